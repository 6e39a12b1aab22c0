"""Hand-over of leadership: hold new commands back, wait until the target has the whole log, tell it to stand."""

from consensus.core.base import Node, RaftBase, now
from consensus.ports import MembershipRefused

REPEAT_SECONDS = 0.1


class Handover:
    """At most one hand-over of one leader (Ongaro's thesis, section 3.10)."""

    def __init__(self, core: RaftBase) -> None:
        self._core = core
        self._target: Node | None = None
        self._until = self._next_attempt = 0.0

    @property
    def active(self) -> bool:
        """While it is, the leader appends nothing: a log that grows is never caught up with."""
        return self._target is not None

    def begin(self, to: str | None, seconds: float) -> None:
        """Try for `seconds` to make `to`, or the voter that is furthest, the leader. Raises MembershipRefused."""
        core = self._core
        if not core.is_leader:
            raise MembershipRefused(f"{core.me} is not the leader")
        target = self.best() if to is None else Node(to)
        if target is None or target not in core.others or target not in core.connected:
            raise MembershipRefused(f"{to or 'none of the peers'} is a connected voter")
        self._target, self._until, self._next_attempt = target, now() + seconds, 0.0

    def best(self) -> Node | None:
        """The connected voter with the longest confirmed log."""
        core = self._core
        candidates = sorted(core.others & core.connected, key=lambda node: str(node.id))
        return max(candidates, key=lambda node: core.match_index.get(node, 0), default=None)

    def tick(self) -> None:
        core = self._core
        if self._target is None:
            return
        if not core.is_leader or now() >= self._until or self._target not in core.others:
            self._target = None
        elif now() >= self._next_attempt and core.match_index.get(self._target) == core.last_index:
            self._next_attempt = now() + REPEAT_SECONDS
            core.transferLeadership(self._target)
