"""API tokens: made once, shown once, kept as a hash."""

import hashlib
import secrets

from aiohttp import web

from consensus.messages import CreateToken, RevokeToken
from consensus.state import Role
from node.http import views
from node.http.errors import unknown
from node.http.params import body, known_only, name_of
from node.http.routes import Route, answer, commit, ports_of
from parvada import schema

PREFIX = "pvt_"


async def list_tokens(request: web.Request) -> web.Response:
    known_only(request)
    tokens = ports_of(request).log.state.tokens
    return answer({"tokens": [views.token(tokens[key]) for key in sorted(tokens)]})


async def create(request: web.Request) -> web.Response:
    """The text of the token is in this answer and nowhere else."""
    known_only(request)
    asked = await body(request, schema.TokenRequest)
    name_of("token", asked.name)
    text, key = PREFIX + secrets.token_urlsafe(24), secrets.token_hex(6)
    command = CreateToken(key, asked.name, Role(asked.role), hashlib.sha256(text.encode()).hexdigest())
    done = await commit(request, command)
    record = views.token(ports_of(request).log.state.tokens[key])
    record.token = text
    return answer(record, 201, done.index)


async def revoke(request: web.Request) -> web.Response:
    known_only(request)
    key, tokens = request.match_info["token"], ports_of(request).log.state.tokens
    if key not in tokens:
        raise unknown("token", key, tokens)
    done = await commit(request, RevokeToken(key))
    return answer({"id": key, "revoked": True}, index=done.index)


ROUTES = (
    Route("GET", "/v1/tokens", list_tokens, "admin"),
    Route("POST", "/v1/tokens", create, "admin"),
    Route("DELETE", "/v1/tokens/{token}", revoke, "admin"),
)
