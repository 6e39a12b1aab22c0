"""The candidates of a unit, from its templates: the same ones in the same order whoever asks, and however often."""

import hashlib
from collections.abc import Iterator

import msgspec

from consensus.messages import NewCandidate
from consensus.state import CandidateId, Json
from parvada.schema import UnitDetail
from training.search import combinations


def proposals(detail: UnitDetail, unit: int) -> Iterator[NewCandidate]:
    """Of unit number `unit` of a job, numbered from 0."""
    number = 0
    for template in detail.templates:
        for params in combinations(template):
            yield NewCandidate(
                id=CandidateId(f"{unit}.{number}"),
                unit=unit,
                estimator=template.estimator,
                params=Json(msgspec.json.encode({**params, **template.options})),
                seed=candidate_seed(detail.seed, unit, number),
                folds_total=detail.folds * detail.repeats,
                baseline=template.baseline,
            )
            number += 1


def candidate_seed(seed: int, unit: int, number: int) -> int:
    """31 bits, the same for the same job, unit and number whichever node computes it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{unit}/{number}".encode()).digest()[:4]) >> 1
