"""Which column a name means: white space and what has no width are not told apart, so that a name can be typed as it
looks. And what a column is called whose header is blank."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

_WITHOUT_WIDTH = dict.fromkeys(map(ord, "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))
"""Soft hyphen, zero-width spaces and joiners, marks of direction, byte order mark."""


class AmbiguousName(LookupError):
    """A name that may mean any of several columns, and is exactly none of them."""

    def __init__(self, name: str, meant: Sequence[str]) -> None:
        super().__init__(f"{name!r} may mean any of the columns {', '.join(map(repr, meant))}: write it just as it is")
        self.name = name
        self.meant = tuple(meant)


def folded(name: str) -> str:
    """The name as it looks: each run of white space, line breaks too, is one space, and none is at its ends."""
    return " ".join(name.translate(_WITHOUT_WIDTH).split())


def header_names(cells: Iterable[str]) -> tuple[str, ...]:
    """The columns' names by the cells of a header: a blank cell names its column `column_N`, counted from 1."""
    return tuple(cell.strip() if folded(cell) else f"column_{number}" for number, cell in enumerate(cells, 1))


class ColumnNames:
    """The names of a table's columns, no two of them equal."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = dict.fromkeys(names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def find(self, name: str) -> str | None:
        """The column that `name` means: the one of just that name, else the one whose name looks the same.

        Raises AmbiguousName: several look the same.
        """
        if name in self._names:
            return name
        meant = self._by_look.get(folded(name), [])
        if len(meant) > 1:
            raise AmbiguousName(name, meant)
        return meant[0] if meant else None

    @cached_property
    def _by_look(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self._names:
            found.setdefault(folded(name), []).append(name)
        return found
