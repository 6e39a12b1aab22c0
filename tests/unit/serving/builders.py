"""Views, signatures and real model files for the tests of serving."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parvada.columns import to_frame
from parvada.schema import InputField, OutputField, Signature
from serving.view import ModelView, ServingView, TokenView, VersionView

IRIS_INPUTS = [
    InputField(name=name, type="number", required=True)
    for name in ("sepal_length", "sepal_width", "petal_length", "petal_width")
]
MIXED_INPUTS = [
    InputField(name="age", type="integer", required=True),
    InputField(name="income", type="number", required=False),
    InputField(name="city", type="category", required=True, categories=["Oslo", "Rome"]),
    InputField(name="member", type="boolean", required=True, categories=[False, True]),
    InputField(name="note", type="text", required=False),
]
MIXED_ROW: dict[str, Any] = {"age": 41, "income": 5.5, "city": "Rome", "member": True, "note": "pays late"}


def version_of(
    inputs: Sequence[InputField] = tuple(IRIS_INPUTS),
    *,
    number: int = 1,
    digest: str = "0" * 64,
    size: int = 1000,
    task: str = "multiclass",
    label: Any = "integer",
    classes: Sequence[Any] = (0, 1, 2),
) -> VersionView:
    outputs = [OutputField(name="predict", type=label)]
    if task != "regression":
        outputs = [
            OutputField(name="predict", type=label, classes=list(classes)),
            OutputField(name="predict_proba", type="number", classes=list(classes)),
        ]
    signature = Signature(inputs=list(inputs), outputs=outputs)
    return VersionView(number, digest, size, task, "SomeEstimator", "sklearn", signature)


def model_of(
    *versions: VersionView, name: str = "iris", aliases: Mapping[str, int] | None = None, **more: Any
) -> ModelView:
    latest = max((version.version for version in versions), default=0)
    return ModelView(name, latest, dict(aliases or {}), tuple(versions), **more)


def view_of(*models: ModelView, tokens: Sequence[tuple[str, str]] = (), **more: Any) -> ServingView:
    known = tuple(TokenView(hashlib.sha256(token.encode()).hexdigest(), role) for token, role in tokens)
    settings: dict[str, Any] = {"index": 7, "node": "a" * 32, "auth": "writes", "stale_seconds": None, "ready": True}
    return ServingView(**(settings | more), models=models, tokens=known)


def save(estimator: Any, directory: Path) -> tuple[Path, str, int]:
    """The estimator as a model file: path, digest and bytes."""
    import skops.io

    data: bytes = skops.io.dumps(estimator)
    digest = hashlib.sha256(data).hexdigest()
    path = directory / digest
    path.write_bytes(data)
    return path, digest, len(data)


def pipeline(frame: Any, target: Sequence[Any], inputs: Sequence[InputField], estimator: Any) -> Any:
    """Fitted, as training makes them."""
    from training.preprocess import PreprocessOptions, build_pipeline

    return build_pipeline(inputs, PreprocessOptions(), estimator).fit(frame, target)


def iris_model(directory: Path, *, number: int = 1, labels: Sequence[Any] | None = None) -> tuple[Path, VersionView]:
    """A logistic regression on the real iris data; `labels` rename the three classes."""
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    data = load_iris()
    columns = {field.name: data.data[:, place].tolist() for place, field in enumerate(IRIS_INPUTS)}
    names = [0, 1, 2] if labels is None else list(labels)
    target = [names[label] for label in data.target]
    fitted = pipeline(to_frame(columns, IRIS_INPUTS), target, IRIS_INPUTS, LogisticRegression(max_iter=500, C=number))
    path, digest, size = save(fitted, directory)
    kind = "integer" if isinstance(names[0], int) else "category"
    return path, version_of(number=number, digest=digest, size=size, label=kind, classes=sorted(names))


def mixed_model(directory: Path) -> tuple[Path, VersionView]:
    """A forest over numbers, a category, a boolean and a text, with a boolean target."""
    from sklearn.ensemble import RandomForestClassifier

    rows = 60
    columns: dict[str, list[Any]] = {
        "age": [20 + n % 50 for n in range(rows)],
        "income": [None if n % 7 == 0 else n / 3 for n in range(rows)],
        "city": [("Rome", "Oslo")[n % 2] for n in range(rows)],
        "member": [n % 3 == 0 for n in range(rows)],
        "note": [("pays late", "pays early", "")[n % 3] for n in range(rows)],
    }
    target = [n % 3 == 0 for n in range(rows)]
    forest = RandomForestClassifier(n_estimators=5, random_state=0)
    fitted = pipeline(to_frame(columns, MIXED_INPUTS), target, MIXED_INPUTS, forest)
    path, digest, size = save(fitted, directory)
    version = version_of(MIXED_INPUTS, digest=digest, size=size, task="binary", label="boolean", classes=[False, True])
    return path, version
