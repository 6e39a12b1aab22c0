"""When a blob that is not needed here may go. Pure: time and facts come in."""

from collections.abc import Iterable, Set as AbstractSet

from consensus.state import Digest


class Garbage:
    """Remembers since when each blob has been needless. One that somebody touches begins anew; one that is needed
    again is forgotten. So a blob goes only after it was needless, and untouched, for the whole `grace`."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self.since: dict[Digest, float] = {}

    def due(self, needless: Iterable[Digest], touched: AbstractSet[Digest], now: float) -> frozenset[Digest]:
        """Those of `needless` whose grace is over. `touched`: since the last call."""
        self.since = {digest: now if digest in touched else self.since.get(digest, now) for digest in needless}
        return frozenset(digest for digest, since in self.since.items() if now - since >= self._grace)

    def forget(self) -> None:
        """What looks needless may not be: wait from now on."""
        self.since.clear()
