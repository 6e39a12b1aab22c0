"""Models, their versions, and the aliases that say which version serves."""

from aiohttp import web

from consensus import state as facts
from consensus.messages import DropAlias, MoveAlias, RollBackAlias
from node.http import views
from node.http.errors import unknown
from node.http.params import body, known_only, moment, name_of, version_of
from node.http.routes import Route, answer, commit, ports_of, value_of, was_done
from parvada import schema


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


async def list_models(request: web.Request) -> web.Response:
    known_only(request)
    state = ports_of(request).log.state
    return answer({"models": [views.model(state, state.models[name]) for name in sorted(state.models)]})


async def get_model(request: web.Request) -> web.Response:
    known_only(request)
    return answer(views.model(ports_of(request).log.state, _model(request)))


async def list_versions(request: web.Request) -> web.Response:
    """Newest first."""
    known_only(request)
    state, model = ports_of(request).log.state, _model(request)
    numbers = sorted(model.versions, reverse=True)
    return answer({"versions": [views.model_version(state, model.versions[number]) for number in numbers]})


async def get_version(request: web.Request) -> web.Response:
    known_only(request)
    model, number = _model(request), version_of(request)
    if number not in model.versions:
        raise unknown("version", str(number), map(str, model.versions))
    return answer(views.model_version(ports_of(request).log.state, model.versions[number]))


# ---------------------------------------------------------------- aliases
async def move(request: web.Request) -> web.Response:
    """With `expected`, only if the alias names that version now (0: does not exist yet), else 409."""
    known_only(request)
    model, asked = _model(request), await body(request, schema.AliasRequest)
    alias = name_of("alias", request.match_info["alias"])
    if asked.version not in model.versions:
        raise unknown("version", str(asked.version), map(str, model.versions))
    done = await commit(request, MoveAlias(model.name, alias, asked.version, asked.comment, asked.expected))
    return answer({"alias": alias, **value_of(done)}, index=done.index)


async def drop(request: web.Request) -> web.Response:
    known_only(request)
    model = _model(request)
    alias = request.match_info["alias"] if was_done(request) else _alias(request, model)
    done = await commit(request, DropAlias(model.name, alias))
    return answer({"alias": alias, "dropped": True}, index=done.index)


async def roll_back(request: web.Request) -> web.Response:
    """To the version that the alias named before its last move."""
    known_only(request)
    model = _model(request)
    alias = _alias(request, model)
    done = await commit(request, RollBackAlias(model.name, alias))
    return answer({"alias": alias, **value_of(done)}, index=done.index)


async def history(request: web.Request) -> web.Response:
    """Newest first. With `as_of` only the moves up to then: the first is what the alias named at that time."""
    known_only(request, ["as_of"])
    model, alias, until = _model(request), request.match_info["alias"], moment(request, "as_of")
    moves = [move for move in reversed(model.history) if move.alias == alias]
    if not moves:
        raise unknown("alias", alias, model.aliases)
    told = [views.alias_change(model, move) for move in moves if until is None or views.shown_at(move.at) <= until]
    return answer({"alias": alias, "history": told})


ROUTES = (
    Route("GET", "/v1/models", list_models),
    Route("GET", "/v1/models/{model}", get_model),
    Route("GET", "/v1/models/{model}/versions", list_versions),
    Route("GET", "/v1/models/{model}/versions/{version}", get_version),
    Route("PUT", "/v1/models/{model}/aliases/{alias}", move, "operator"),
    Route("DELETE", "/v1/models/{model}/aliases/{alias}", drop, "operator"),
    Route("POST", "/v1/models/{model}/aliases/{alias}/rollback", roll_back, "operator"),
    Route("GET", "/v1/models/{model}/aliases/{alias}/history", history),
)
