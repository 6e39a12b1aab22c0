"""The part of a pipeline before the estimator, fitted inside each fold: columns by kind to one dense matrix."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from parvada.columns import layout
from parvada.nearest import known_are
from parvada.schema import InputField
from training.errors import BadRequest

PREPROCESS_PREFIX = "preprocess__"
"""The options stand among a candidate's parameters under this prefix, as the steps of a pipeline do."""


class PreprocessOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a candidate may say about its preprocessing; each default is for most data."""

    scale: Literal["standard", "minmax", "robust", "none"] = "standard"
    impute: Literal["median", "mean", "most_frequent"] = "median"
    max_categories: int = 50
    """Columns made of one category column; rarer values share one."""
    text_features: int = 256
    """Columns made of one text column, by hashing: it has no vocabulary that could be empty in a fold."""


def parse_options(given: Mapping[str, Any], field: str) -> PreprocessOptions:
    """Raises BadRequest: unknown or invalid option."""
    known = PreprocessOptions.__struct_fields__
    for name in given:
        if name not in known:
            raise BadRequest(
                "unknown_parameter",
                f"{field}: {name!r} is not an option of preprocess{known_are(name, known)}",
                {"field": field, "value": name, "allowed": list(known)},
            )
    try:
        options = msgspec.convert(dict(given), PreprocessOptions)
    except msgspec.ValidationError as error:
        raise BadRequest("invalid_parameter", f"{field}: {error}", {"field": field, "value": dict(given)}) from error
    if not 2 <= options.max_categories <= 1_000 or not 2 <= options.text_features <= 4_096:
        raise BadRequest("invalid_parameter", f"{field}: max_categories is 2 to 1000, text_features 2 to 4096")
    return options


def build_pipeline(inputs: Sequence[InputField], options: PreprocessOptions, estimator: Any) -> Any:
    """An unfitted Pipeline("preprocess", "estimator") for frames of `layout(inputs)`. Only classes of
    scikit-learn, so that it can be loaded without this package."""
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    columns = layout(inputs)
    steps: list[tuple[str, Any, Any]] = []
    if numbers := [column.name for column in columns if column.kind == "number"]:
        steps.append(("numbers", _numbers(options), numbers))
    if categories := [column.name for column in columns if column.kind == "category"]:
        encoder = OneHotEncoder(
            handle_unknown="infrequent_if_exist", max_categories=options.max_categories, sparse_output=False
        )
        steps.append(("categories", encoder, categories))
    for index, column in enumerate(column for column in columns if column.kind == "text"):
        hashing = HashingVectorizer(n_features=options.text_features, alternate_sign=False)
        steps.append((f"text{index}", Pipeline([("hash", hashing), ("weigh", TfidfTransformer())]), column.name))
    # Several estimators take no sparse matrices, hence the threshold.
    preprocess = ColumnTransformer(steps, sparse_threshold=0.0)
    return Pipeline([("preprocess", preprocess), ("estimator", estimator)])


def _numbers(options: PreprocessOptions) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    imputer = SimpleImputer(strategy=options.impute, add_indicator=True, keep_empty_features=True)
    scalers = {"standard": StandardScaler, "minmax": MinMaxScaler, "robust": RobustScaler}
    if options.scale == "none":
        return imputer
    # Values beyond the training range are clipped, so that what must not be negative stays so.
    scaler = MinMaxScaler(clip=True) if options.scale == "minmax" else scalers[options.scale]()
    return Pipeline([("impute", imputer), ("scale", scaler)])
