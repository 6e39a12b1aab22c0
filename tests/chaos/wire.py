"""How a write goes out: repeated under its idempotency key until its outcome is known, or once with little patience."""

import random
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tests.chaos.arena import Arena, Target
from tests.chaos.record import Recorder, now
from tests.support.http import Answer

ANSWER_SECONDS = 4.0
PERSIST_SECONDS = 45.0
"""How long a client repeats a write before it gives up not knowing; times the arena's patience."""


def persist(
    arena: Arena,
    home: Target,
    record: Recorder,
    method: str,
    path: str,
    body: Any,
    key: str,
    final: set[int],
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Answer | None:
    """Send a write with its idempotency key to one node after the other until one answers with a `final` status."""
    nodes, begun, tries = [home, *(node for node in arena.nodes if node is not home)], now(), 0
    sent = {"Idempotency-Key": key, **headers}
    record.count("writes")
    while now() - begun < PERSIST_SECONDS * arena.patience:
        node = nodes[tries % len(nodes)]
        tries += 1
        try:
            answer = arena.ask(node, method, path, body, headers=sent, timeout=ANSWER_SECONDS)
        except OSError:
            record.count("writes repeated: no answer")
        else:
            if answer.status in final:
                record.answer(begun, now())
                record.count("acknowledged" if answer.status < 300 else "refused")
                return answer
            # A node that has just come back may not know of the model yet; one without a quorum says 503.
            if answer.status not in (404, 429, 503):
                record.odd(f"{method} {path} on {node.name}: {answer.status} {answer.body}")
                return None
            record.count(f"writes repeated: {answer.status}")
        time.sleep(0.05)
    return None


def hang_up(
    arena: Arena,
    home: Target,
    record: Recorder,
    method: str,
    path: str,
    body: Any,
    key: str,
    final: set[int],
    patience: float,
) -> Answer | None:
    """One try that waits for so many seconds; None if the outcome is not known: it may happen later, or never."""
    record.count("writes")
    try:
        answer = arena.ask(home, method, path, body, headers={"Idempotency-Key": key}, timeout=patience)
    except OSError:
        return None
    if answer.status not in final:
        return None
    record.count("acknowledged" if answer.status < 300 else "refused")
    return answer


def table(random: random.Random) -> bytes:
    """A CSV of some hundred rows, one in five of some ten thousand (so that a transfer may be cut in its middle), just
    as a node gives it back: texts in quotes, and nothing else."""
    rows = random.randrange(5_000, 20_000) if random.random() < 0.2 else random.randrange(50, 500)
    lines = (f'{random.randrange(1_000_000)},{random.randrange(1_000)},"{random.choice("abc")}"' for _ in range(rows))
    return ("\n".join(["serial,size,kind", *lines]) + "\n").encode()
