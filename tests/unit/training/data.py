"""Small tables of every kind of column, ingested and prepared as a worker does it."""

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from consensus.state import DatasetVersion, Digest, Json, Part, Unit
from parvada.schema import UnitDetail
from training.frames import Prepared, prepare
from training.ingest import IngestOptions, IngestResult, ingest
from training.recipes import data_view
from training.tasks import DataView, SplitPlan

SPLIT = SplitPlan(folds=3, repeats=1, holdout=0.2, seed=5)


def mixed_table(task: str, rows: int = 90) -> pd.DataFrame:
    """Numbers, categories, booleans, dates and texts, with missing values; the target `y` depends on them."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "height": rng.normal(size=rows),
            "count": rng.integers(0, 9, rows),
            "colour": rng.choice(["red", "green", "blue"], rows),
            "ok": rng.choice([True, False], rows),
            "when": pd.date_range("2024-01-01", periods=rows).astype(str),
            "note": [f"{a} and {b} on some day {i}" for i, (a, b) in enumerate(rng.choice(["cat", "dog"], (rows, 2)))],
        }
    )
    score = frame["height"] + frame["count"] + 3 * (frame["colour"] == "red")
    frame.loc[::7, "height"] = np.nan
    frame.loc[::11, "colour"] = None
    if task == "regression":
        frame["y"] = score
    elif task == "binary":
        frame["y"] = np.where(score > score.median(), "high", "low")
    else:
        frame["y"] = pd.qcut(score, 3, labels=["low", "middle", "high"]).astype(str)
    return frame


def dataset(folder: Path, frame: pd.DataFrame, **options: str) -> tuple[DatasetVersion, tuple[str, ...]]:
    """The replicated facts of an ingested table, and the paths of its parts."""
    folder.mkdir(exist_ok=True)
    frame.to_csv(folder / "table.csv", index=False)
    return facts(ingest(str(folder / "table.csv"), msgspec.convert({"out_dir": str(folder), **options}, IngestOptions)))


def facts(result: IngestResult) -> tuple[DatasetVersion, tuple[str, ...]]:
    version = DatasetVersion(
        name="table",
        version=1,
        digest=result.digest,
        rows=result.rows,
        bytes=result.bytes,
        parts=tuple(Part(Digest(part.digest), part.rows, part.bytes) for part in result.parts),
        target=result.target,
        task=result.task,
        detail=Json(msgspec.json.encode(result.detail)),
        created_at=0.0,
        created_by="test",
    )
    return version, tuple(part.path for part in result.parts)


def prepared(folder: Path, frame: pd.DataFrame, **options: str) -> Prepared:
    version, paths = dataset(folder, frame, **options)
    return prepare(version.digest, paths, view_of(version, options.get("weight"), options.get("group")))


def view_of(version: DatasetVersion, weight: str | None = None, group: str | None = None) -> DataView:
    detail = UnitDetail(
        folds=3,
        repeats=1,
        holdout=0.2,
        seed=5,
        publish_model="m",
        publish_alias="a",
        publish_when="never",
        weight=weight,
        group=group,
    )
    return data_view(
        Unit("table", 1, version.target, version.task, "accuracy", Json(msgspec.json.encode(detail))), version
    )
