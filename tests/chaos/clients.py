"""Concurrent clients: each has a home node, turns to the others when it fails, and repeats a write under its key until
it knows the outcome, as a careful user would. Now and then one hangs up instead, and never learns what became of it."""

import hashlib
import random
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from tests.chaos.arena import Arena, Target
from tests.chaos.record import Applied, Move, Recorder, Sight, Upload, now
from tests.chaos.wire import ANSWER_SECONDS, hang_up, persist, table
from tests.support.http import Answer
from tests.support.lincheck import UNKNOWN, Operation

MODEL = "chaos"
MAX_MOVES = 900
"""Of one run: a model remembers its last 1,000 moves, and all of them are compared."""
PACE_SECONDS = 0.08
MAX_GIVEN_UP = 24
"""Moves of a run whose client hangs up: each may double what the search has to try."""
HANG_UP = 0.06
"""So many of the moves, until then."""
HANG_UP_SECONDS = (0.001, 0.015)
"""After so long: about as long as a write takes, so that some of them happen and some do not."""


class Client:
    """One thread's worth of load. `run` ends soon after `stopping` is set, with the outcome of its last write."""

    def __init__(
        self,
        arena: Arena,
        name: str,
        home: Target,
        aliases: list[str],
        versions: list[int],
        record: Recorder,
        stopping: threading.Event,
        seed: int,
    ) -> None:
        self._arena = arena
        self._name = name
        self._home = home
        self._aliases = aliases
        self._versions = versions
        self._record = record
        self._stopping = stopping
        self._random = random.Random(seed)
        self._number = 0
        self._seen: dict[str, int] = {}

    def run(self) -> None:
        acts: list[tuple[Callable[[], None], int]] = [
            (self.write, 18),
            (self.compare_and_set, 30),
            (self.read, 22),
            (self.glance, 16),
            (self.ask_index, 6),
            (self.create_token, 8),
            (self.upload, 3),
        ]
        chosen, weights = [act for act, _ in acts], [weight for _, weight in acts]
        while not self._stopping.is_set():
            act = self._random.choices(chosen, weights)[0]
            if act in (self.write, self.compare_and_set) and self._record.counts["moves"] >= MAX_MOVES:
                act = self.read
            act()
            self._stopping.wait(self._random.uniform(0, 2 * PACE_SECONDS))

    # ---------------------------------------------------------------- the register: an alias of a model
    def write(self) -> None:
        self._move(self._random.choice(self._aliases), "write", None)

    def compare_and_set(self) -> None:
        alias = self._random.choice(self._aliases)
        self._move(alias, "cas", self._seen.get(alias, 0))

    def _move(self, alias: str, action: Any, expected: int | None) -> None:
        tag, version = self._tag(), self._random.choice(self._versions)
        body = {"version": version, "comment": tag, "expected": expected}
        self._record.count("moves")
        self._record.ask(tag)
        called = now()
        hangs_up = self._record.counts["given up"] < MAX_GIVEN_UP and self._random.random() < HANG_UP
        send = self._hang_up if hangs_up else self._persist
        answer = send("PUT", f"/v1/models/{MODEL}/aliases/{alias}", body, tag, {200, 409})
        known = answer is not None
        done = answer.status == 200 if answer is not None else None
        returned = now() if known else UNKNOWN
        self._record.add(Operation(alias, action, called, returned, version, expected or 0, done))
        if answer is None or not done:
            if not known:
                self._record.count("given up" if hangs_up else "outcome unknown")
            self._seen.pop(alias, None)
            return
        self._seen[alias] = version
        effective = answer.body["previous"] != version
        self._record.add(Move(alias, tag, effective))
        if effective and self._random.random() < 0.3:
            self._look(self._random.choice(self._arena.nodes), alias, int(answer.headers["x-parvada-index"]), tag)

    def read(self) -> None:
        """Linearizable, of all aliases at once: each is a read of its own register."""
        called = now()
        answer = self._once(self._home, f"/v1/models/{MODEL}?consistency=linearizable")
        if answer is None:
            return
        returned, held = now(), answer.body["aliases"]
        for alias in self._aliases:
            self._seen[alias] = held.get(alias, 0)
            self._record.add(Operation(alias, "read", called, returned, self._seen[alias]))

    # ---------------------------------------------------------------- local reads
    def glance(self) -> None:
        self._look(self._random.choice(self._arena.nodes), self._random.choice(self._aliases))

    def _look(self, node: Target, alias: str, min_index: int = 0, tag: str = "") -> None:
        query = f"?min_index={min_index}" if min_index else ""
        life, called = node.pid, now()
        answer = self._once(node, f"/v1/models/{MODEL}/aliases/{alias}/history{query}")
        if answer is None or life is None or node.pid != life:
            return
        tags = tuple(move["comment"] for move in reversed(answer.body["history"]))
        self._record.add(Sight(node.name, life, alias, called, now(), tags, tag))

    def ask_index(self) -> None:
        node = self._random.choice(self._arena.nodes)
        life, called = node.pid, now()
        answer = self._once(node, "/v1/cluster")
        if answer is not None and life is not None and node.pid == life:
            self._record.add(Applied(node.name, life, called, now(), answer.body["applied_index"]))

    # ---------------------------------------------------------------- the set: tokens
    def create_token(self) -> None:
        name = self._tag()
        if self._persist("POST", "/v1/tokens", {"name": name, "role": "viewer"}, name, {201}) is not None:
            self._record.token(name)
        else:
            self._record.count("outcome unknown")

    # ---------------------------------------------------------------- bytes: datasets
    def upload(self) -> None:
        """A table of its own, in the very form in which it is given back."""
        name, content = self._tag(), table(self._random)
        path, plain = f"/v1/datasets/{name}?target=kind", {"Content-Type": "text/csv"}
        answer = self._persist("PUT", path, content, name, {200, 201}, plain)
        if answer is None:
            self._record.count("outcome unknown")
            return
        self._record.add(Upload(name, answer.body["digest"], hashlib.sha256(content).hexdigest()))

    # ---------------------------------------------------------------- the wire
    def _tag(self) -> str:
        self._number += 1
        return f"{self._name}-{self._number}"

    def _persist(
        self,
        method: str,
        path: str,
        body: Any,
        key: str,
        final: set[int],
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Answer | None:
        """The outcome, from whichever node told it; None if none did in `PERSIST_SECONDS`."""
        return persist(self._arena, self._home, self._record, method, path, body, key, final, headers)

    def _hang_up(self, method: str, path: str, body: Any, key: str, final: set[int]) -> Answer | None:
        patience = self._random.uniform(*HANG_UP_SECONDS)
        return hang_up(self._arena, self._home, self._record, method, path, body, key, final, patience)

    def _once(self, node: Target, path: str) -> Answer | None:
        """One try of a read: a read that failed says nothing."""
        try:
            answer = self._arena.ask(node, "GET", path, timeout=ANSWER_SECONDS)
        except OSError:
            self._record.count("reads without answer")
            return None
        if answer.status == 200:
            self._record.count("reads")
            return answer
        if answer.status not in (404, 503):
            self._record.odd(f"GET {path} on {node.name}: {answer.status} {answer.body}")
        self._record.count(f"reads answered {answer.status}")
        return None
