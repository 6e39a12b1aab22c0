"""What the state keeps as JSON of a job and its data, as the structs that it is; the last few stay decoded."""

from functools import lru_cache

import msgspec

from consensus.state import DatasetVersion, Job, Json, Unit
from parvada.schema import DatasetDetail, JobSpec, UnitDetail


def spec_of(job: Job) -> JobSpec:
    """Shared by all who ask: not to be changed, and so are the others."""
    return _spec(job.spec)


def detail_of(unit: Unit) -> UnitDetail:
    return _unit(unit.detail)


def description_of(dataset: DatasetVersion) -> DatasetDetail:
    return _dataset(dataset.detail)


@lru_cache(maxsize=256)
def _spec(text: Json) -> JobSpec:
    return msgspec.json.decode(text, type=JobSpec)


@lru_cache(maxsize=256)
def _unit(text: Json) -> UnitDetail:
    return msgspec.json.decode(text, type=UnitDetail)


@lru_cache(maxsize=64)
def _dataset(text: Json) -> DatasetDetail:
    return msgspec.json.decode(text, type=DatasetDetail)
