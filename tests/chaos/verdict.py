"""What a recorded run must satisfy, given what the cluster holds at its end. Pure: each rule returns its violations."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from tests.chaos.record import Applied, Move, Sight, Upload
from tests.support.lincheck import Operation, Undecided, check

T = TypeVar("T", Sight, Applied)


class Final(msgspec.Struct, frozen=True):
    """Read through the log after the last fault was healed."""

    histories: Mapping[str, tuple[str, ...]]
    """Tags of all moves of each alias, oldest first."""
    tokens: tuple[str, ...]
    jobs: Mapping[str, str]
    """Id to state."""
    leaderboards: Mapping[str, list[tuple[Any, ...]]] = {}
    """Of the jobs that succeeded."""
    contents: Mapping[str, tuple[str, str]] = {}
    """Dataset to its digest in the registry, and the SHA-256 of what a node gave for it."""


def linearizability(operations: Sequence[Operation]) -> list[str]:
    try:
        verdict = check(operations)
    except Undecided as error:
        return [f"undecided: {error}"]
    if verdict.linearizable:
        return []
    shown = "; ".join(
        f"{op.action} {op.expected}->{op.value} {op.called:.3f}..{op.returned:.3f}" for op in verdict.stuck
    )
    return [f"not linearizable: {verdict.key}: {shown}"]


def lost(moves: Sequence[Move], tokens: Sequence[str], jobs: Sequence[str], final: Final) -> list[str]:
    """Everything acknowledged that is not there."""
    kept = {tag for history in final.histories.values() for tag in history}
    gone = [f"move {move.tag} of {move.alias}" for move in moves if move.effective and move.tag not in kept]
    gone += [f"token {name}" for name in tokens if name not in set(final.tokens)]
    gone += [f"job {job}" for job in jobs if job not in final.jobs]
    return [f"lost: {one}" for one in gone]


def spoilt(uploads: Sequence[Upload], final: Final) -> list[str]:
    """Acknowledged bytes that are gone, or are others now."""
    found = []
    for upload in uploads:
        digest, sha256 = final.contents.get(upload.name, ("", ""))
        if not digest:
            found.append(f"lost: dataset {upload.name}")
        elif digest != upload.digest or sha256 != upload.sha256:
            found.append(f"lost: dataset {upload.name} holds other bytes: {sha256 or 'none'}, not {upload.sha256}")
    return found


def invented(asked: Collection[str], final: Final) -> list[str]:
    """Moves that nobody asked for."""
    kept = {tag for history in final.histories.values() for tag in history}
    return [f"nobody asked for the move {tag}" for tag in sorted(kept - set(asked))]


def repeated(moves: Sequence[Move], final: Final) -> list[str]:
    """What happened more than once under one idempotency key, or happened although its answer says that it did not."""
    times = Counter(tag for history in final.histories.values() for tag in history) + Counter(final.tokens)
    found = [f"happened {count} times: {tag}" for tag, count in sorted(times.items()) if count > 1]
    idle = {move.tag for move in moves if not move.effective}
    return found + [f"had an effect, but not by its answer: {tag}" for tag in sorted(idle & set(times))]


def prefixes(sights: Sequence[Sight], final: Final) -> list[str]:
    """A local read shows a prefix of what is committed, with what `min_index` asked for, and no node goes back."""
    found = []
    for sight in sights:
        history = final.histories.get(sight.alias, ())
        if history[: len(sight.tags)] != sight.tags:
            found.append(f"{sight.node} showed a history of {sight.alias} that is no prefix: {sight.tags[-3:]}")
        if sight.must_hold and sight.must_hold not in sight.tags:
            found.append(f"{sight.node} answered with min_index without {sight.must_hold}")
    by_alias: dict[str, list[Sight]] = defaultdict(list)
    for sight in sights:
        by_alias[sight.alias].append(sight)
    for alias, seen in sorted(by_alias.items()):
        for earlier, later in _going_back(seen, lambda sight: len(sight.tags)):
            found.append(f"{later.node} went back in {alias}: {len(earlier.tags)} moves, then {len(later.tags)}")
    return found


def indexes(applied: Sequence[Applied]) -> list[str]:
    """The applied index of a living node never goes back."""
    pairs = _going_back(applied, lambda one: one.index)
    return [f"{later.node} applied {earlier.index}, then {later.index}" for earlier, later in pairs]


def set_back_by_restarts(applied: Sequence[Applied]) -> int:
    """Local reads that showed less than an earlier life of that node had: a node that comes back serves what its disk
    and, within a moment, the leader tell it. No violation, but worth knowing."""
    ageless = [msgspec.structs.replace(one, life=0) for one in applied]
    return sum(1 for _ in _going_back(ageless, lambda one: one.index))


def _going_back(seen: Sequence[T], place: Callable[[T], int]) -> Iterator[tuple[T, T]]:
    """Pairs of reads of one life of a node: the first had returned when the second was called, and showed more."""
    lives: dict[tuple[str, int], list[T]] = defaultdict(list)
    for one in seen:
        lives[one.node, one.life].append(one)
    for group in lives.values():
        ended = sorted(group, key=lambda one: one.returned)
        furthest: T | None = None
        number = 0
        for later in sorted(group, key=lambda one: one.called):
            while ended[number].returned < later.called:
                if furthest is None or place(ended[number]) > place(furthest):
                    furthest = ended[number]
                number += 1
            if furthest is not None and place(later) < place(furthest):
                yield furthest, later


def unfinished(jobs: Sequence[str], final: Final) -> list[str]:
    """Jobs that were accepted and did not succeed."""
    states = {job: final.jobs.get(job, "lost") for job in jobs}
    return [f"job {job} ended as {state}" for job, state in sorted(states.items()) if state != "succeeded"]


def differing(undisturbed: Sequence[tuple[Any, ...]], final: Final) -> list[str]:
    """Jobs whose leaderboard is another than that of the same job without faults."""
    return [
        f"job {job} ended with another leaderboard: {board[:2]}"
        for job, board in sorted(final.leaderboards.items())
        if list(board) != list(undisturbed)
    ]


def longest_wait(answered: Sequence[tuple[float, float]]) -> float:
    """The longest time in which some write was waiting and none was answered, from (called, answered) of each."""
    longest, before, waiting = 0.0, -math.inf, math.inf
    since = []
    for called, answer in sorted(answered, key=lambda one: one[1], reverse=True):
        waiting = min(waiting, called)
        since.append((waiting, answer))
    for earliest, answer in reversed(since):
        longest = max(longest, answer - max(before, earliest))
        before = answer
    return longest
