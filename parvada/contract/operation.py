"""What one call of the HTTP API is: path, query, body, answers, refusals and role, each said once."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from parvada.contract.kinds import MAX_DIGITS, TEXT, Freshness, Kind, integer, matching
from parvada.identifiers import NAME
from parvada.schema import Role

Tag = Literal["Cluster", "Datasets", "Jobs", "Models", "Predictions", "Inference protocol", "Observation", "Access"]
JSON: Final = "application/json"
SSE, NDJSON = "text/event-stream", "application/x-ndjson"

TAGS: Final[Mapping[Tag, str]] = {
    "Datasets": "Files, kept as versions on several nodes.",
    "Jobs": "Training: submitted, followed, cancelled.",
    "Models": "What training has published, and the aliases that say which version serves.",
    "Predictions": "Any node answers, with or without a quorum.",
    "Inference protocol": "The Open Inference Protocol v2, on the same models.",
    "Cluster": "Who is in it, who leads, what happens.",
    "Observation": "Figures of this node and of all.",
    "Access": "API tokens and the cluster secret.",
}
"""In the order in which a reader needs them."""

_STATED: Final = re.compile(r"\{(\w+)\}")


class Example(msgspec.Struct, frozen=True):
    """`value` is JSON, or the text of another media type."""

    summary: str
    value: Any
    media: str = JSON


class AnyOf(msgspec.Struct, frozen=True):
    """Any of several structs: more than msgspec reads by one type."""

    forms: tuple[Any, ...]


class Body(msgspec.Struct, frozen=True):
    """What a call takes. `form` is a type of the wire, read from JSON; bytes are for the handler itself."""

    form: Any
    media: tuple[str, ...] = (JSON,)
    required: bool = True
    examples: tuple[Example, ...] = ()


class Answer(msgspec.Struct, frozen=True):
    """A good answer. `form` is a type of the wire; bytes where only the media type says what comes."""

    form: Any
    status: int = 200
    media: tuple[str, ...] = (JSON,)
    text: str = ""
    example: Any = msgspec.UNSET
    """JSON, or a text of the first media type."""


class PathParameter(msgspec.Struct, frozen=True):
    kind: Kind
    text: str
    example: Any


_NEW_NAME: Final = matching(
    NAME, "1 to 128 letters, digits, dots, hyphens and underscores, the first a letter or digit"
)
PATH_PARAMETERS: Final[Mapping[str, PathParameter]] = {
    "dataset": PathParameter(_NEW_NAME, "Name of a dataset.", "iris"),
    "model": PathParameter(_NEW_NAME, "Name of a model.", "iris"),
    "alias": PathParameter(_NEW_NAME, "Name of an alias.", "production"),
    "version": PathParameter(integer(1, 10**MAX_DIGITS - 1, "a number from 1"), "Number of a version, from 1.", 1),
    "job": PathParameter(TEXT, "Id of a job.", "1f3kq0ab7c2d"),
    "node": PathParameter(TEXT, "Id or name of a node.", "node-2"),
    "token": PathParameter(TEXT, "Id of a token; not its text.", "6f1a0c9b52de"),
}
"""By name: a parameter means the same in whatever path it stands."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One call. `refuses` are the statuses from 400 on that are its own; those that follow from the rest of the
    declaration (`statuses`) are not repeated."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    tag: Tag
    summary: str
    text: str = ""
    role: Role | None = "viewer"
    """The least that a caller needs; None: nobody is asked who they are."""
    query: type[Freshness] | None = Freshness
    """None: the front answers, which reads no query."""
    makes: str = ""
    """The path parameter that names something new, and must be a name."""
    body: Body | None = None
    answers: tuple[Answer, ...]
    refuses: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        """Unique, and a name in every language."""
        path = re.sub(r"[{}]", "", self.path)
        return self.method.lower() + re.sub(r"\W+", "_", path)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Those of the path, in order."""
        return tuple(_STATED.findall(self.path))

    @property
    def writes(self) -> bool:
        return self.method != "GET" and self.query is not None

    def statuses(self, auth: Literal["writes", "all"]) -> Iterator[int]:
        """Every status from 400 on that it may answer."""
        found = set(self.refuses)
        if self.query is not None:
            found |= {400, 409, 503}
        if self.parameters:
            found.add(404)
        if self.body is not None:
            found |= {400, 413, 415}
        if self.guarded(auth) or (self.query is not None and self.role is not None):
            found.add(401)
        if self.guarded(auth) and self.role != "viewer":
            found.add(403)
        yield from sorted(found)

    def guarded(self, auth: Literal["writes", "all"]) -> bool:
        """Whether it needs a token."""
        return self.role is not None and (auth == "all" or self.role not in ("viewer", "predictor"))
