"""API tokens: made once, shown once, kept as a hash."""

import base64
import hmac
import secrets

from aiohttp import web

from consensus.messages import CreateToken, RevokeToken
from consensus.state import Role
from node.http import views
from node.http.errors import unknown
from node.http.params import name_of
from node.http.routes import Route, answer, command_id, commit, key_reused, ports_of, route, was_done
from parvada import schema
from parvada.bearer import token_sha256
from parvada.contract.operation import Answer, Example

PREFIX = "pvt_"


@route("GET", "/v1/tokens", Answer(schema.TokenList), tag="Access", role="admin")
async def list_tokens(request: web.Request) -> web.Response:
    """All API tokens, without their texts."""
    tokens = ports_of(request).log.state.tokens
    return answer(schema.TokenList(tokens=[views.token(tokens[key]) for key in sorted(tokens)]))


@route(
    "POST",
    "/v1/tokens",
    Answer(schema.TokenRecord, 201),
    tag="Access",
    role="admin",
    body=schema.TokenRequest,
    examples=(Example("A token that may predict", {"name": "shop", "role": "predictor"}),),
)
async def create(request: web.Request, asked: schema.TokenRequest) -> web.Response:
    """Make an API token.

    The text of the token is in this answer and nowhere else. The same idempotency key gives the same text again,
    made anew from the cluster's secret: it is stored nowhere.
    """
    name_of("token", asked.name)
    texts = {seed[24:30].hex(): PREFIX + base64.urlsafe_b64encode(seed[:24]).decode() for seed in _seeds(request)}
    key, text = next(iter(texts.items()))
    command = CreateToken(key, asked.name, Role(asked.role), token_sha256(text))
    done = await commit(request, command)
    # While the cluster secret is rotated, the call that was the first may have come to a node with the other one.
    tokens = ports_of(request).log.state.tokens
    made, text = next(((tokens[key], text) for key, text in texts.items() if key in tokens), (None, ""))
    if made is None:
        raise key_reused("the token that it made has been revoked")
    if (made.name, made.role.value) != (asked.name, asked.role):
        raise key_reused(f"made the token {made.name!r} with the role {made.role.value}")
    record = views.token(made)
    record.token = text
    return answer(record, 201, done.index)


def _seeds(request: web.Request) -> list[bytes]:
    """32 bytes each that nobody can guess: one, or one for each secret that is good now, the newest first."""
    key = command_id(request)
    if key is None:
        return [secrets.token_bytes(32)]
    return [hmac.digest(seed, key.encode(), "sha256") for seed in ports_of(request).settings.token_seeds()]


@route("DELETE", "/v1/tokens/{token}", Answer(schema.TokenRevoked), tag="Access", role="admin")
async def revoke(request: web.Request) -> web.Response:
    """Revoke an API token, on all nodes."""
    key, tokens = request.match_info["token"], ports_of(request).log.state.tokens
    if key not in tokens and not was_done(request):
        raise unknown("token", key, tokens)
    done = await commit(request, RevokeToken(key))
    return answer(schema.TokenRevoked(id=key), index=done.index)


ROUTES: tuple[Route, ...] = (list_tokens, create, revoke)
