"""What goes to a worker and what comes back: plain structs that cost nothing to import."""

from collections.abc import Mapping
from typing import Any

import msgspec

from parvada.local import StoredBlob
from parvada.schema import InputField, Signature
from training.preprocess import PreprocessOptions


class DataView(msgspec.Struct, frozen=True):
    """Which columns of a dataset are used, and how."""

    target: str
    task: str
    inputs: list[InputField]
    weight: str | None = None
    group: str | None = None
    ignored: list[str] = []
    """All columns of the file that are no inputs."""


class SplitPlan(msgspec.Struct, frozen=True):
    folds: int
    repeats: int
    holdout: float
    """Share of the rows that no fold sees, 0 to 0.5."""
    seed: int


class Recipe(msgspec.Struct, frozen=True):
    """What is fitted: the same for every fold of a candidate and for its refit."""

    estimator: str
    params: Mapping[str, Any]
    preprocess: PreprocessOptions
    seed: int
    metric: str
    split: SplitPlan


class FoldTask(msgspec.Struct, frozen=True):
    view: DataView
    recipe: Recipe
    fold: int
    memory_mb: int = 0
    """What the fit may take beyond what the process has already; 0 = no limit."""


class RefitTask(msgspec.Struct, frozen=True):
    view: DataView
    recipe: Recipe
    memory_mb: int = 0
    store: bool = False
    """Whether the model file is wanted: then the worker stores it at its own node. It is made and proven anyway."""


class FoldOutcome(msgspec.Struct, frozen=True):
    """`failed` is the reason, empty when the fold is good."""

    scores: Mapping[str, float] = {}
    fit_seconds: float = 0.0
    predict_us_per_row: float = 0.0
    failed: str = ""
    detail: bytes = b""
    """`training.results.FoldDetail`, encoded where it was made."""


class RefitOutcome(msgspec.Struct, frozen=True):
    """Of a skops file that was loaded again and predicts the same. `failed` as in `FoldOutcome`."""

    model_bytes: int = 0
    signature: Signature | None = None
    holdout: Mapping[str, float] = {}
    libraries: Mapping[str, str] = {}
    fit_seconds: float = 0.0
    failed: str = ""
    stored: StoredBlob | None = None
    """Where the file is, if it was wanted."""
    not_stored: str = ""
    """Why the worker's node did not take the file: for no fault of the model, so it is to be fitted once more."""
