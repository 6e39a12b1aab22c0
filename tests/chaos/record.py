"""What the clients write down, in one list each kind, safe for threads."""

import threading
import time
from collections import Counter

import msgspec

from tests.support.lincheck import Operation


class Move(msgspec.Struct, frozen=True):
    """An acknowledged move of an alias. `tag`, its comment, is in the alias' history once if it had an effect."""

    alias: str
    tag: str
    effective: bool


class Sight(msgspec.Struct, frozen=True):
    """A local read of one alias' history on one node: the tags of all its moves, oldest first.

    `life`: the pid of the node's agent; `must_hold`: a tag that had to be there (a read with `min_index`).
    """

    node: str
    life: int
    alias: str
    called: float
    returned: float
    tags: tuple[str, ...]
    must_hold: str = ""


class Applied(msgspec.Struct, frozen=True):
    """`applied_index` as one node told it."""

    node: str
    life: int
    called: float
    returned: float
    index: int


class Upload(msgspec.Struct, frozen=True):
    """An acknowledged upload: the dataset's `digest` as the cluster told it, and that of the bytes sent."""

    name: str
    digest: str
    sha256: str


class Recorder:
    """The history of one run. Times are `now()`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.operations: list[Operation] = []
        self.moves: list[Move] = []
        self.sights: list[Sight] = []
        self.applied: list[Applied] = []
        self.tokens: list[str] = []
        """Names of tokens whose creation was acknowledged."""
        self.uploads: list[Upload] = []
        self.asked: set[str] = set()
        """Tags of all moves that were ever sent."""
        self.answered: list[tuple[float, float]] = []
        """When each write that was repeated until its outcome was known was first sent, and was answered."""
        self.jobs: list[str] = []
        """Ids of jobs whose submission was acknowledged."""
        self.unexpected: list[str] = []
        """Answers that no fault excuses."""
        self.counts: Counter[str] = Counter()

    def add(self, *found: Operation | Move | Sight | Applied | Upload) -> None:
        with self._lock:
            for one in found:
                match one:
                    case Operation():
                        self.operations.append(one)
                    case Move():
                        self.moves.append(one)
                    case Sight():
                        self.sights.append(one)
                    case Applied():
                        self.applied.append(one)
                    case Upload():
                        self.uploads.append(one)

    def ask(self, tag: str) -> None:
        with self._lock:
            self.asked.add(tag)

    def answer(self, called: float, returned: float) -> None:
        with self._lock:
            self.answered.append((called, returned))

    def token(self, name: str) -> None:
        with self._lock:
            self.tokens.append(name)

    def job(self, job: str) -> None:
        with self._lock:
            self.jobs.append(job)

    def odd(self, what: str) -> None:
        with self._lock:
            self.unexpected.append(what)

    def count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


def now() -> float:
    """Seconds of the clock of the history."""
    return time.monotonic()
