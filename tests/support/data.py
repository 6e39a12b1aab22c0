"""Real data sets as CSV, from those that scikit-learn ships."""

import csv
import io

from sklearn import datasets


def iris_csv() -> bytes:
    """150 rows, 4 numbers, 3 species as text in the column `species`."""
    return _csv(datasets.load_iris(), "species", names=True)


def wine_csv() -> bytes:
    """178 rows, 13 numbers, 3 cultivars as text in the column `cultivar`."""
    return _csv(datasets.load_wine(), "cultivar", names=True)


def diabetes_csv() -> bytes:
    """442 rows, 10 numbers, a number to predict in the column `progression`."""
    return _csv(datasets.load_diabetes(), "progression", names=False)


def _csv(bunch: "datasets.base.Bunch", target: str, *, names: bool) -> bytes:
    columns = [str(name).replace(" (cm)", "").replace(" ", "_").replace("/", "_") for name in bunch.feature_names]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*columns, target])
    for row, label in zip(bunch.data, bunch.target, strict=True):
        writer.writerow([*(repr(float(value)) for value in row), str(bunch.target_names[label]) if names else label])
    return out.getvalue().encode()
