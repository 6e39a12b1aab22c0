"""Parquet parts of a dataset to the frame, target, weights and groups that a fit takes; the last few are kept."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec

from parvada.columns import to_frame
from training.tasks import DataView

Array = Any
_KEPT = 2
"""Prepared datasets in one worker process: the unit at work and the one before or after it."""


class Prepared(msgspec.Struct, frozen=True):
    """`frame`: (rows, features) as `parvada.columns.to_frame` makes it; `y`: (rows,) of str, int, bool or float;
    `weight`: (rows,) float or None; `groups`: (rows,) or None. Read only: shared by the tasks of a process."""

    frame: Any
    y: Array
    weight: Array | None
    groups: Array | None
    view: DataView


_cache: OrderedDict[tuple[str, bytes], Prepared] = OrderedDict()


def prepare(key: str, sources: Sequence[Any], view: DataView) -> Prepared:
    """Read and convert the dataset `key`. `sources`: paths of Parquet files, or buffers with their bytes."""
    name = (key, msgspec.json.encode(view))
    if name in _cache:
        _cache.move_to_end(name)
        return _cache[name]
    while len(_cache) >= _KEPT:
        _cache.popitem(last=False)
    _cache[name] = prepared = _read(sources, view)
    return prepared


def _read(sources: Sequence[Any], view: DataView) -> Prepared:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pa_parquet

    names = [field.name for field in view.inputs]
    extra = [name for name in (view.target, view.weight, view.group) if name]
    readable = [source if isinstance(source, str) else pa.BufferReader(pa.py_buffer(source)) for source in sources]
    tables = [pa_parquet.read_table(source, columns=[*names, *extra], use_threads=False) for source in readable]
    table = pa.concat_tables(tables)
    table = table.filter(pc.is_valid(table.column(view.target)))
    columns = {name: table.column(name).to_numpy() for name in names}
    weight = table.column(view.weight).to_numpy().astype("float64") if view.weight else None
    groups = _labels(table.column(view.group)) if view.group else None
    y = _labels(table.column(view.target))
    if view.task == "regression":
        y = y.astype("float64")
    elif y.dtype.kind == "f":
        y = y.astype("int64")  # labels that a file wrote as 0.0 and 1.0
    return Prepared(to_frame(columns, view.inputs, stored=True), y, weight, groups, view)


def _labels(column: Any) -> Array:
    import numpy as np

    values = column.to_numpy()
    # Texts of fixed width: skops writes them as plain arrays.
    return np.asarray(values.tolist(), dtype=str) if values.dtype == object else values
