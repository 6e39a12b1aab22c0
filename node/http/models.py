"""Models, their versions, and the aliases that say which version serves."""

from aiohttp import web

from consensus import state as facts
from consensus.messages import DropAlias, MoveAlias, RollBackAlias
from node.http import views
from node.http.errors import unknown
from node.http.params import version_of
from node.http.routes import Route, answer, commit, ports_of, route, value_of, was_done
from parvada import schema
from parvada.contract.kinds import Freshness, Moment
from parvada.contract.operation import Answer, Example


def _model(request: web.Request) -> facts.Model:
    name, models = request.match_info["model"], ports_of(request).log.state.models
    if name not in models:
        raise unknown("model", name, models)
    return models[name]


def _alias(request: web.Request, model: facts.Model) -> str:
    alias = request.match_info["alias"]
    if alias not in model.aliases:
        raise unknown("alias", alias, model.aliases)
    return alias


@route("GET", "/v1/models", Answer(schema.ModelList), tag="Models")
async def list_models(request: web.Request) -> web.Response:
    """All models."""
    state = ports_of(request).log.state
    return answer(schema.ModelList(models=[views.model(state, state.models[name]) for name in sorted(state.models)]))


@route("GET", "/v1/models/{model}", Answer(schema.Model), tag="Models")
async def get_model(request: web.Request) -> web.Response:
    """One model, with its versions and aliases."""
    return answer(views.model(ports_of(request).log.state, _model(request)))


@route("GET", "/v1/models/{model}/versions", Answer(schema.VersionList), tag="Models")
async def list_versions(request: web.Request) -> web.Response:
    """All versions of a model, newest first."""
    state, model = ports_of(request).log.state, _model(request)
    numbers = sorted(model.versions, reverse=True)
    return answer(
        schema.VersionList(versions=[views.model_version(state, model.versions[number]) for number in numbers])
    )


@route("GET", "/v1/models/{model}/versions/{version}", Answer(schema.ModelVersion), tag="Models")
async def get_version(request: web.Request) -> web.Response:
    """One version: what it takes and gives, how good it is, where it comes from."""
    model, number = _model(request), version_of(request)
    if number not in model.versions:
        raise unknown("version", str(number), map(str, model.versions))
    return answer(views.model_version(ports_of(request).log.state, model.versions[number]))


# ---------------------------------------------------------------- aliases
@route(
    "PUT",
    "/v1/models/{model}/aliases/{alias}",
    Answer(schema.AliasMoved),
    tag="Models",
    role="operator",
    makes="alias",
    body=schema.AliasRequest,
    examples=(
        Example("To another version", {"version": 1, "comment": "better on the holdout"}),
        Example("Only from where it is expected", {"version": 1, "expected": 1}),
    ),
)
async def move(request: web.Request, asked: schema.AliasRequest) -> web.Response:
    """Let an alias name a version.

    With `expected`, only if the alias names that version now (0: does not exist yet), else 409.
    """
    model, alias = _model(request), request.match_info["alias"]
    if asked.version not in model.versions:
        raise unknown("version", str(asked.version), map(str, model.versions))
    done = await commit(request, MoveAlias(model.name, alias, asked.version, asked.comment, asked.expected))
    return answer({"alias": alias, **value_of(done)}, index=done.index)


@route(
    "DELETE",
    "/v1/models/{model}/aliases/{alias}",
    Answer(schema.AliasDropped),
    tag="Models",
    role="operator",
)
async def drop(request: web.Request) -> web.Response:
    """Delete an alias; its history stays."""
    model = _model(request)
    alias = request.match_info["alias"] if was_done(request) else _alias(request, model)
    done = await commit(request, DropAlias(model.name, alias))
    return answer(schema.AliasDropped(alias=alias), index=done.index)


@route(
    "POST",
    "/v1/models/{model}/aliases/{alias}/rollback",
    Answer(schema.AliasMoved),
    tag="Models",
    role="operator",
)
async def roll_back(request: web.Request) -> web.Response:
    """Let an alias name the version that it named before its last move."""
    model = _model(request)
    alias = _alias(request, model)
    done = await commit(request, RollBackAlias(model.name, alias))
    return answer({"alias": alias, **value_of(done)}, index=done.index)


class AliasHistoryQuery(Freshness, frozen=True, kw_only=True):
    as_of: Moment | None = None
    """Only the moves up to then: the first is what the alias named at that time."""


@route(
    "GET",
    "/v1/models/{model}/aliases/{alias}/history",
    Answer(schema.AliasHistory),
    tag="Models",
    query=AliasHistoryQuery,
)
async def history(request: web.Request, query: AliasHistoryQuery) -> web.Response:
    """Who moved an alias, when and whereto, newest first."""
    model, alias, until = _model(request), request.match_info["alias"], query.as_of
    moves = [move for move in reversed(model.history) if move.alias == alias]
    if not moves:
        raise unknown("alias", alias, model.aliases)
    told = [views.alias_change(model, move) for move in moves if until is None or views.shown_at(move.at) <= until]
    return answer(schema.AliasHistory(alias=alias, history=told))


ROUTES: tuple[Route, ...] = (
    list_models,
    get_model,
    list_versions,
    get_version,
    move,
    drop,
    roll_back,
    history,
)
