"""One fold of a candidate, and the refit of the best one. Knows nothing of Ray: a pure function of data and seed.

A fit that raises is an outcome, not an exception: its candidate fails with the reason and the job goes on.
"""

import platform
import time
import warnings
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from parvada.schema import OutputField, Scalar, Signature
from parvada.trusted import TRUSTED_TYPES
from training.blob_door import MOST_SECONDS
from training.catalog import NON_NEGATIVE, build, kind_of
from training.context import ALONE, TaskContext
from training.errors import NotStored
from training.evaluate import score
from training.folds import fold_split, holdout_split
from training.frames import Prepared
from training.ports import MoreTime
from training.preprocess import build_pipeline
from training.results import FoldDetail, encode_detail
from training.tasks import DataView, FoldOutcome, FoldTask, Recipe, RefitOutcome, RefitTask

_PROOF_ROWS = 200
_REASON_LENGTH = 300


def run_fold(task: FoldTask, data: Prepared, _: TaskContext = ALONE) -> FoldOutcome:
    """Fit on the fold's training rows, score on its test rows."""
    classify = task.view.task != "regression"
    split = task.recipe.split
    try:
        rows, _ = holdout_split(data.y, data.groups, split, classify=classify)
        groups = data.groups[rows] if data.groups is not None else None
        train, test = fold_split(data.y[rows], groups, split, task.fold, classify=classify)
        train, test = rows[train], rows[test]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, seconds = _fit(task.recipe, data, train)
            frame = data.frame.iloc[test]
            started = time.perf_counter()
            model.predict(frame)
            per_row = (time.perf_counter() - started) / len(test) * 1e6
            weight = data.weight[test] if data.weight is not None else None
            scores = score(task.view.task, model, frame, data.y[test], weight)
    except MemoryError:
        return FoldOutcome(failed="MemoryError: the fit needs more memory than there is")
    except Exception as error:
        return FoldOutcome(failed=_reason(error))
    if task.recipe.metric not in scores and _could_be_scored(task.view.task, model, data.y[test]):
        metric = task.recipe.metric
        return FoldOutcome(failed=f"{metric} is not defined for {task.recipe.estimator} on fold {task.fold}")
    return FoldOutcome(scores, seconds, per_row, detail=encode_detail(FoldDetail(scores)))


def _could_be_scored(task: str, model: Any, y: Any) -> bool:
    """False where it is for the fold's rows alone that a metric is not defined: then the other folds are the measure.
    An area under a curve needs two classes, a loss one that the model knows, a share of the variance two rows."""
    if task == "regression":
        return len(y) > 1
    return len(np.unique(y)) > 1 and bool(np.isin(y, model.classes_).any())


def refit(task: RefitTask, data: Prepared, context: TaskContext = ALONE) -> RefitOutcome:
    """As `refitted`; the file is stored at this node, if it is wanted."""
    outcome, saved = refitted(task, data)
    if outcome.failed or not task.store:
        return outcome
    if context.door is None:
        return msgspec.structs.replace(outcome, not_stored="there is no agent beside this worker")
    context.emit(MoreTime(MOST_SECONDS))  # the fit is over: what its limit is for
    try:
        return msgspec.structs.replace(outcome, stored=context.door.store(saved))
    except NotStored as error:
        return msgspec.structs.replace(outcome, not_stored=str(error))


def refitted(task: RefitTask, data: Prepared) -> tuple[RefitOutcome, bytes]:
    """Fit on all rows but the held-out ones, score on those, and make the model file."""
    classify = task.view.task != "regression"
    try:
        rows, held = holdout_split(data.y, data.groups, task.recipe.split, classify=classify)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, seconds = _fit(task.recipe, data, rows)
            holdout: Mapping[str, float] = {}
            if len(held):
                weight = data.weight[held] if data.weight is not None else None
                holdout = score(task.view.task, model, data.frame.iloc[held], data.y[held], weight)
            saved = _proven(model, data.frame.iloc[:_PROOF_ROWS])
    except MemoryError:
        return RefitOutcome(failed="MemoryError: the fit needs more memory than there is"), b""
    except Exception as error:
        return RefitOutcome(failed=_reason(error)), b""
    return RefitOutcome(len(saved), _signature(task.view, model, data), holdout, _libraries(), seconds), saved


def _fit(recipe: Recipe, data: Prepared, rows: Any) -> tuple[Any, float]:
    from sklearn.utils.validation import has_fit_parameter

    options = recipe.preprocess
    if recipe.estimator in NON_NEGATIVE:
        options = msgspec.structs.replace(options, scale="minmax")
    estimator = build(kind_of(data.view.task), recipe.estimator, recipe.params, recipe.seed)
    model = build_pipeline(data.view.inputs, options, estimator)
    extra = {}
    if data.weight is not None and has_fit_parameter(estimator, "sample_weight"):
        extra["estimator__sample_weight"] = data.weight[rows]
    frame, y = data.frame.iloc[rows], data.y[rows]
    started = time.perf_counter()
    # Some estimators draw from numpy's global generator whatever their random_state says.
    np.random.seed(recipe.seed % 2**32)
    model.fit(frame, y, **extra)
    return model, time.perf_counter() - started


def _proven(model: Any, frame: Any) -> bytes:
    """The skops file of `model`, after it was loaded as serving will load it and predicted the same."""
    import skops.io

    saved: bytes = skops.io.dumps(model)
    unknown = set(skops.io.get_untrusted_types(data=saved)) - set(TRUSTED_TYPES)
    if unknown:
        raise ValueError(f"the model holds types that may not be loaded: {', '.join(sorted(unknown))[:200]}")
    loaded = skops.io.loads(saved, trusted=list(TRUSTED_TYPES))
    one, other = np.asarray(model.predict(frame)), np.asarray(loaded.predict(frame))
    same = np.array_equal(one, other) if one.dtype.kind != "f" else np.allclose(one, other, rtol=1e-9, equal_nan=True)
    if not same:
        raise ValueError("the saved model does not predict what the fitted one does")
    return saved


def _signature(view: DataView, model: Any, data: Prepared) -> Signature:
    if view.task == "regression":
        return Signature(inputs=view.inputs, ignored=view.ignored, outputs=[OutputField(name="predict", type="number")])
    classes: list[Scalar] = [value.item() for value in model.classes_]
    kinds = {"b": "boolean", "i": "integer", "u": "integer"}
    label = kinds.get(data.y.dtype.kind, "category")
    outputs = [OutputField(name="predict", type=label, classes=classes)]  # type: ignore[arg-type]
    outputs += [
        OutputField(name=method, type="number", classes=classes)
        for method in ("predict_proba", "decision_function")
        if hasattr(model, method)
    ]
    return Signature(inputs=view.inputs, ignored=view.ignored, outputs=outputs)


def _libraries() -> Mapping[str, str]:
    from importlib.metadata import version

    found = {name: version(name) for name in ("scikit-learn", "numpy", "scipy", "pandas", "skops")}
    return {"python": platform.python_version(), **found}


def _reason(error: Exception) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}"[:_REASON_LENGTH]
