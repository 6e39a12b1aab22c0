"""The ledger: what was done to the cluster, what it promised meanwhile, and what of it was broken."""

from collections.abc import Mapping
from typing import Final

import msgspec

HIGHEST: Final = frozenset({"longest_unavailability"})
"""Of which the sum is the highest."""
SHOWN_VIOLATIONS = 50


class Ledger(msgspec.Struct):
    """Sums over runs. `operations` on registers, as checked: a read of a model reads all its aliases. `acknowledged`:
    writes answered with 2xx; `refused`: by compare-and-set; `repeated`: tries without an answer or with 404, 429, 503;
    `given_up`: writes whose client hung up on purpose; `unknown`: those of a client that persisted in vain; `lost`:
    acknowledged items that are not there in the end. Times in seconds."""

    runs: int = 0
    seconds: float = 0.0
    kills: int = 0
    kills_of_one: int = 0
    kills_of_leader: int = 0
    kills_of_all: int = 0
    kills_of_all_in_mid_job: int = 0
    pauses: int = 0
    partitions: int = 0
    longest_unavailability: float = 0.0
    operations: int = 0
    writes: int = 0
    acknowledged: int = 0
    refused: int = 0
    repeated: int = 0
    given_up: int = 0
    unknown: int = 0
    linearizable_reads: int = 0
    local_reads: int = 0
    reads_set_back_by_restart: int = 0
    datasets: int = 0
    jobs: int = 0
    jobs_succeeded: int = 0
    resumed: int = 0
    lost: int = 0
    linearizable: bool = True
    violations: list[str] = []

    def __iadd__(self, other: "Ledger") -> "Ledger":
        for field in self.__struct_fields__:
            mine, its = getattr(self, field), getattr(other, field)
            if field == "linearizable":
                self.linearizable = mine and its
            else:
                setattr(self, field, max(mine, its) if field in HIGHEST else mine + its)
        return self


def table(ledgers: Mapping[str, Ledger]) -> str:
    """A column for each ledger under its name, then all violations."""
    rows = [("", list(ledgers))]
    for field in Ledger.__struct_fields__:
        rows.append((field.replace("_", " "), [_shown(getattr(ledger, field)) for ledger in ledgers.values()]))
    lines = [f"{name:<28}" + "".join(f"{value:>12}" for value in values) for name, values in rows]
    found = {one: None for ledger in ledgers.values() for one in ledger.violations}
    return "\n".join([*lines, *(f"  {one}" for one in list(found)[:SHOWN_VIOLATIONS])])


def _shown(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "NO"
        case float():
            return f"{value:.1f}"
        case list():
            return str(len(value))
    return str(value)
