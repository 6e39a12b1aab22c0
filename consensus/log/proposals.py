"""Commands of this node that are not applied yet, and when to send each of them again."""

REPEAT_SECONDS = 0.5
REPEAT_SECONDS_MAX = 8.0
"""The pause doubles up to this. Every repeat is an entry of the log: from a node that is far behind they would make
the log grow, and be compacted, faster than it ever catches up (found by the simulator)."""


class _Pending:
    __slots__ = ("command", "due", "pause")

    def __init__(self, command: bytes) -> None:
        self.command = command
        self.hurry()

    def hurry(self) -> None:
        self.due, self.pause = 0.0, REPEAT_SECONDS

    def sent(self, now: float) -> None:
        self.due = now + self.pause
        self.pause = min(2 * self.pause, REPEAT_SECONDS_MAX)


class Proposals:
    """Repeats are harmless: the state machine knows the ids of recent commands."""

    def __init__(self) -> None:
        self._pending: dict[str, _Pending] = {}
        self._leader: tuple[str | None, int] = (None, 0)

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, command_id: str, command: bytes) -> None:
        """Due at once; under an id that is pending already it changes nothing."""
        self._pending.setdefault(command_id, _Pending(command))

    def remove(self, command_id: str) -> None:
        """It was applied, or nobody waits for it any longer."""
        self._pending.pop(command_id, None)

    def see_leader(self, leader: str | None, term: int) -> None:
        """A new leader may never have heard of them: all are due at once."""
        if leader is not None and (leader, term) != self._leader:
            for pending in self._pending.values():
                pending.hurry()
        self._leader = (leader, term)

    def take_due(self, now: float) -> list[bytes]:
        """The commands to send now; each is due again after `REPEAT_SECONDS`, then ever later."""
        due = [pending for pending in self._pending.values() if pending.due <= now]
        for pending in due:
            pending.sent(now)
        return [pending.command for pending in due]

    @property
    def next_due(self) -> float:
        """When `take_due` will have something, infinity for never."""
        return min((pending.due for pending in self._pending.values()), default=float("inf"))
