"""Clients that write without pause to whichever node takes it, and the times at which they were acknowledged."""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator

from tests.support.nodes import ClusterUnderTest
from tests.support.wait import wait_for

ANSWER_SECONDS = 3.0
"""A node that has not answered by then is passed over; the same idempotency key goes to the next."""
PACE_SECONDS = 0.02
"""Between two writes of one client: a load, and a clock of that many beats to measure gaps by."""
COUNT = 4
FINAL_SECONDS = 60.0
"""For one write, also for that which a client is at when it is told to stop."""


class Writers:
    """`COUNT` clients, each making tokens (a set: what was acknowledged must be in it) one after another."""

    def __init__(self, cluster: ClusterUnderTest) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._at = [time.monotonic()]
        self._done = [0] * COUNT
        self.acknowledged: set[str] = set()
        self.odd: list[str] = []
        """Answers that no change of members excuses."""
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"writer-{number}") for number in range(COUNT)
        ]

    def longest_gap(self, since: float) -> float:
        """Seconds between two consecutive acknowledgements after `since`, of all clients together."""
        with self._lock:
            times = [at for at in self._at if at >= since]
        times = [since, *times, time.monotonic()]
        return max(after - before for before, after in itertools.pairwise(times))

    def go_on(self) -> None:
        """Returns when each client has had a write acknowledged that it began from here on."""
        before = [*self._done]  # the next one of each may have begun earlier, the one after that has not
        wait_for(
            "every client to write on",
            lambda: all(now >= then + 2 for now, then in zip(self._done, before, strict=True)),
            2 * FINAL_SECONDS,
        )

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(FINAL_SECONDS)
            assert not thread.is_alive(), "a write was never answered"

    def _run(self, number: int) -> None:
        count = 0
        while not self._stopping.wait(PACE_SECONDS):
            count += 1
            self._write(f"w{number}-{count}", number + count)
            self._done[number] = count

    def _write(self, name: str, first: int) -> None:
        """Until some node says that it is done."""
        deadline = time.monotonic() + FINAL_SECONDS
        for tried in range(first, first + 10_000):
            if time.monotonic() > deadline:
                break
            if self._acknowledged_by(name, tried):
                with self._lock:
                    self._at.append(time.monotonic())
                    self.acknowledged.add(name)
                return
            time.sleep(PACE_SECONDS)
        self.odd.append(f"{name} was not acknowledged in {FINAL_SECONDS:.0f} s")

    def _acknowledged_by(self, name: str, tried: int) -> bool:
        living = self._cluster.living
        if not living:
            return False
        node = living[tried % len(living)]
        body, headers = {"name": name, "role": "viewer"}, {"Idempotency-Key": name}
        try:
            answer = self._cluster.ask(node, "POST", "/v1/tokens", body, headers=headers, timeout=ANSWER_SECONDS)
        except OSError:  # on its way up or down
            return False
        if answer.status not in (201, 429, 503):
            self.odd.append(f"{name} on {node.name}: {answer.status} {answer.body}")
        return answer.status == 201


@contextlib.contextmanager
def writing(cluster: ClusterUnderTest) -> Iterator[Writers]:
    """Writers that run; stopped, each write of theirs answered, at the end."""
    writers = Writers(cluster)
    writers.start()
    try:
        yield writers
    finally:
        writers.stop()


def missing(cluster: ClusterUnderTest, writers: Writers) -> dict[str, int]:
    """How many acknowledged writes each living node lacks, read after it has all that was committed."""
    lacks = {}
    for node in cluster.living:
        answer = cluster.ask(node, "GET", "/v1/tokens?consistency=linearizable", timeout=30.0)
        assert answer.status == 200, answer
        held = {token["name"] for token in answer.body["tokens"]}
        lacks[node.name] = len(writers.acknowledged - held)
    return lacks
