"""A small API, declared."""

from typing import Annotated

import msgspec

from parvada.contract.kinds import Freshness
from parvada.contract.operation import Answer, AnyOf, Body, Example, Operation


class ShelfQuery(Freshness, frozen=True, kw_only=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=9)] = 5
    """So many books
    at most."""
    label: tuple[str, ...] = ()


class Book(msgspec.Struct):
    """What is on a shelf."""

    title: str
    """As it stands on the cover."""
    pages: int = 0


class Leaflet(msgspec.Struct):
    folded: bool


SHELF = Operation(
    method="GET", path="/shelf", tag="Datasets", summary="A shelf.", query=ShelfQuery, answers=(Answer(list[Book]),)
)
PUT_BOOK = Operation(
    method="PUT",
    path="/shelf/{dataset}",
    tag="Datasets",
    summary="Put a book.",
    role="operator",
    makes="dataset",
    body=Body(
        AnyOf((Book, Leaflet)),
        media=("application/json", "text/csv"),
        examples=(Example("A book", {"title": "Emma"}), Example("A line", "Emma,512\n", "text/csv")),
    ),
    answers=(Answer(Book, 201, example={"title": "Emma", "pages": 512}),),
    refuses=(422,),
)
HEALTH = Operation(
    method="GET",
    path="/health",
    tag="Observation",
    summary="Alive.",
    role=None,
    query=None,
    answers=(Answer(bytes, media=("text/plain",)),),
)
TABLE = (SHELF, PUT_BOOK, HEALTH)
