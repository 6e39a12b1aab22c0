"""What each column of an upload is for: by what its uploader said, and by what the file says of its index."""

from collections.abc import Collection

import msgspec

from parvada.names import AmbiguousName, ColumnNames, folded
from parvada.nearest import did_you_mean
from training.asked_types import parse_types
from training.errors import BadData, BadRequest
from training.sources import Source
from training.upload import IngestOptions


class Roles(msgspec.Struct, frozen=True):
    """Names of columns; `kept` has all that are not dropped, in the order of the file."""

    kept: tuple[str, ...]
    target: str
    weight: str
    group: str
    dropped: tuple[str, ...]

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(name for name in self.kept if name not in (self.target, self.weight, self.group))

    def without(self, names: Collection[str]) -> "Roles":
        """These features left out."""
        kept = tuple(name for name in self.kept if name not in names)
        return msgspec.structs.replace(self, kept=kept, dropped=(*self.dropped, *names))

    @staticmethod
    def resolve(source: Source, options: IngestOptions) -> "Roles":
        """As the options say. A nameless index is no column, unless it is named here.

        Raises BadRequest, BadData.
        """
        names = source.names
        known = ColumnNames(names)
        target = meant(options.target, known, "target", BadData)
        weight = meant(options.weight, known, "weight", BadRequest)
        group = meant(options.group, known, "group", BadRequest)
        dropped = tuple(dict.fromkeys(meant(name, known, "drop", BadRequest) for name in options.drop))
        asked = {meant(name, known, "types", BadRequest) for name in parse_types(options.types)}
        index = [name for name in source.index if name not in {target, weight, group, *dropped, *asked}]
        dropped = (*dropped, *index)
        unused = {*dropped, weight, group}
        features = [name for name in names if name not in unused]
        target = target or (features[-1] if features else "")
        if target in unused:
            raise BadRequest("invalid_target", f"the target {target!r} cannot be dropped, weight or group as well")
        if weight and weight == group:
            raise BadRequest("invalid_weight", f"{weight!r} cannot be both weight and group")
        if features in ([], [target]):
            raise BadData("no_features", f"no column is left to learn from: the columns are {', '.join(names[:20])}")
        kept = tuple(name for name in names if name not in dropped)
        return Roles(kept, target, weight, group, dropped)


def meant(name: str, known: ColumnNames, role: str, error: type[BadData] | type[BadRequest]) -> str:
    """The own name of the column that `name` means, "" for none."""
    try:
        found = known.find(name) if name else ""
    except AmbiguousName as ambiguous:
        details = {"column": name, "columns": list(ambiguous.meant)}
        raise BadRequest("ambiguous_column", f"{role}: {ambiguous}", details) from ambiguous
    if found is not None:
        return found
    names = list(known)
    shown = ", ".join(map(folded, names[:20])) + (", …" if len(names) > 20 else "")
    raise error(
        f"{role}_missing" if role == "target" else f"unknown_{role}",
        f"the {role} column {name!r} is not in the file{did_you_mean(name, names)}; its columns are {shown}",
        {"column": name, "columns": names[:100]},
    )
