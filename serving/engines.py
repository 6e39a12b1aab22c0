"""Model engines: how a model file becomes something that predicts. The only door to scikit-learn and skops here.

Nothing heavy is imported before the first model is loaded, so that an idle front stays small. An ONNX engine
is one more entry of `_LOADERS`.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from parvada import schema
from serving.errors import LoadFailed, PredictionFailed, UnusableInput
from serving.heads import Head
from serving.view import VersionView

if TYPE_CHECKING:
    import numpy
    import pandas

    Array = numpy.ndarray[Any, numpy.dtype[Any]]

PREDICT: Final = "predict"
PROBA: Final = "predict_proba"
DECISION: Final = "decision_function"
OUTPUTS: Final = (PREDICT, PROBA, DECISION)


class Engine(Protocol):
    """A loaded model. `run` is called from several threads at once."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """What it can be asked for, of `OUTPUTS`."""

    @property
    def classes(self) -> list[Any] | None:
        """The labels in the order of the columns of `predict_proba`, as Python values; None for a regressor."""

    def run(self, frame: "pandas.DataFrame", outputs: Sequence[str]) -> "dict[str, Array]":
        """Each output named, as an array whose first axis is the rows of `frame`. Raises `UnusableInput` when
        the estimator refuses the values, `PredictionFailed` for anything else."""


class SklearnEngine:
    """A scikit-learn pipeline. What comes before the last step is computed once for all outputs."""

    def __init__(self, estimator: Any, signature: schema.Signature) -> None:
        from sklearn.pipeline import Pipeline

        whole = isinstance(estimator, Pipeline) and len(estimator.steps) > 1
        self._head = Head(estimator[:-1], signature.inputs) if whole else None
        self._last = estimator[-1] if whole else estimator
        self._outputs = tuple(name for name in OUTPUTS if hasattr(self._last, name))
        classes = getattr(self._last, "classes_", None)
        self._classes: list[Any] | None = None if classes is None else list(classes.tolist())

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._outputs

    @property
    def classes(self) -> list[Any] | None:
        return self._classes

    def run(self, frame: "pandas.DataFrame", outputs: Sequence[str]) -> "dict[str, Array]":
        import numpy
        import sklearn

        try:
            # The estimator's own parameters were validated when it was fitted; the values still are, here.
            with sklearn.config_context(skip_parameter_validation=True):
                values = frame if self._head is None else self._head.transform(frame)
                return {name: numpy.asarray(getattr(self._last, name)(values)) for name in outputs}
        except ValueError as error:
            raise UnusableInput(f"The model refuses these values: {_first_line(error)}") from error
        except Exception as error:
            raise PredictionFailed(f"The model failed with {type(error).__name__}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _load_sklearn(path: Path, version: VersionView) -> Engine:
    import pandas  # noqa: F401  # every prediction needs it: better now than in the first request
    import skops.io

    from parvada.trusted import TRUSTED_TYPES

    # The list is ours, never what the file says of itself (GHSA-w582-9x45-8mpx).
    return SklearnEngine(skops.io.load(path, trusted=list(TRUSTED_TYPES)), version.signature)


_LOADERS: Final[dict[str, Callable[[Path, VersionView], Engine]]] = {"sklearn": _load_sklearn}


def verify(path: Path, digest: str) -> None:
    """Read the whole file and compare its SHA-256. Raises `LoadFailed`."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LoadFailed(f"The model's file cannot be read: {error.strerror}", digest=digest) from error
    if found != digest:
        raise LoadFailed("The model's file is damaged: its SHA-256 is another", digest=digest, found=found)


def load(path: Path, version: VersionView) -> Engine:
    """The engine of a version from its file; blocks for as long as it takes. Raises `LoadFailed`."""
    loader = _LOADERS.get(version.engine)
    if loader is None:
        raise LoadFailed(f"There is no engine {version.engine!r} here; there is {sorted(_LOADERS)}")
    verify(path, version.digest)
    try:
        return loader(path, version)
    except Exception as error:
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise LoadFailed(f"The model's file cannot be loaded: {reason}", digest=version.digest) from error
