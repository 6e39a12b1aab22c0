"""Who may call what: every route by every role, tokens made once and revoked, and the audit of it all."""

import hashlib
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from node.http.app import ROUTES
from node.http.routes import Route
from tests.support.clock import Clock
from tests.unit.node.http.world import ROLES, World, world

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALL: tuple[Route, ...] = tuple(route for route in ROUTES if route.path not in ("/openapi.json", "/docs"))

# What the contract says, by its own words and not by the code's: who changes data, training and models is an
# operator; who changes nodes and tokens is an admin; reading is open.
NEEDED = {
    ("POST", "/v1/nodes/{node}/drain"): "admin",
    ("POST", "/v1/nodes/{node}/undrain"): "admin",
    ("DELETE", "/v1/nodes/{node}"): "admin",
    ("POST", "/v1/cluster/transfer"): "admin",
    ("POST", "/v1/cluster/secret/rotate"): "admin",
    ("POST", "/v1/cluster/secret/excuse"): "admin",
    ("POST", "/v1/cluster/secret/abandon"): "admin",
    ("GET", "/v1/audit"): "operator",
    ("PUT", "/v1/datasets/{dataset}"): "operator",
    ("DELETE", "/v1/datasets/{dataset}"): "operator",
    ("POST", "/v1/jobs"): "operator",
    ("POST", "/v1/jobs/{job}/cancel"): "operator",
    ("POST", "/v1/jobs/{job}/retry"): "operator",
    ("DELETE", "/v1/jobs/{job}"): "operator",
    ("PUT", "/v1/models/{model}/aliases/{alias}"): "operator",
    ("DELETE", "/v1/models/{model}/aliases/{alias}"): "operator",
    ("POST", "/v1/models/{model}/aliases/{alias}/rollback"): "operator",
    ("GET", "/v1/tokens"): "admin",
    ("POST", "/v1/tokens"): "admin",
    ("DELETE", "/v1/tokens/{token}"): "admin",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def closed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A cluster with PARVADA_AUTH=all."""
    async with world(tmp_path_factory.mktemp("closed"), auth="all") as made:
        yield made


async def status_of(api: World, route: Route, role: str | None) -> int:
    """Of a call that fails for want of an object, or of sense, once it may be made at all."""
    path = re.sub(r"\{.*?\}", "nothing", route.path) + "?no_such_parameter=1"
    answer = await api.call(route.method, path, role=role)
    assert answer.problem[0] in (400, 401, 403)
    return answer.status


@pytest.mark.parametrize("route", ALL, ids=lambda route: f"{route.method} {route.path}")
async def test_every_route_by_every_role(api: World, closed: World, route: Route) -> None:
    needed = NEEDED.get((route.method, route.path))
    for role in ROLES:
        enough = needed is None or ROLES.index(role) >= ROLES.index(needed)
        assert await status_of(api, route, role) == (400 if enough else 403), role
        assert await status_of(closed, route, role) == (400 if enough else 403), role
    assert await status_of(api, route, None) == (400 if needed is None else 401)
    assert await status_of(closed, route, None) == 401


async def test_no_writing_route_is_left_open() -> None:
    assert {(route.method, route.path) for route in ALL if route.method != "GET"} <= NEEDED.keys()


@pytest.mark.parametrize(
    "header", ["Bearer wrong", "Bearer ", "Bearer", "Basic YWRtaW46YWRtaW4=", "pvd_admin", "Bearer \xff"]
)
async def test_a_token_that_is_none_is_refused_even_where_reading_is_open(
    api: World, clock: Clock, header: str
) -> None:
    answer = await clock.run(api.call("GET", "/v1/cluster", role=None, headers={"Authorization": header}))
    assert answer.problem == (401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_role_too_low_is_named(api: World) -> None:
    answer = await api.call("POST", "/v1/tokens", role="operator", json={})
    assert answer.problem == (403, "forbidden")
    assert answer.json["details"] == {"role": "operator", "needed": "admin"}


# ---------------------------------------------------------------- tokens
async def test_a_token_lives_from_its_creation_to_its_revocation(api: World, clock: Clock) -> None:
    made = await api.call("POST", "/v1/tokens", json={"name": "ci", "role": "operator"})
    assert made.status == 201
    text, key = made.json["token"], made.json["id"]
    assert (made.json["name"], made.json["role"]) == ("ci", "operator")
    assert len(text) >= 32
    bearer = {"Authorization": f"Bearer {text}"}
    assert (await api.call("GET", "/v1/audit", role=None, headers=bearer)).status == 200
    listed = await api.call("GET", "/v1/tokens")
    assert {"id": key, "name": "ci", "role": "operator", "created_at": made.json["created_at"]} in listed.json["tokens"]
    assert text.encode() not in listed.raw
    assert api.state.tokens[key].sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert (await api.call("DELETE", f"/v1/tokens/{key}")).json == {"id": key, "revoked": True}
    stale = await clock.run(api.call("GET", "/v1/audit", role=None, headers=bearer))
    assert stale.problem == (401, "unauthenticated")
    assert (await api.call("DELETE", f"/v1/tokens/{key}")).problem == (404, "unknown_token")


async def test_a_retried_creation_gives_the_same_token(api: World) -> None:
    """The answer with the text may be lost on its way: nobody could ever read it again otherwise."""
    body, headers = {"name": "retried", "role": "viewer"}, {"Idempotency-Key": "create"}
    first = await api.call("POST", "/v1/tokens", json=body, headers=headers)
    tokens_then = api.state.tokens
    again = await api.call("POST", "/v1/tokens", json=body, headers=headers)
    assert (first.status, again.status, again.json) == (201, 201, first.json)
    assert api.state.tokens == tokens_then
    other = await api.call("POST", "/v1/tokens", json=body, headers={"Idempotency-Key": "another"})
    assert other.json["token"] != first.json["token"]
    for changed in ({"name": "else", "role": "viewer"}, {"name": "retried", "role": "admin"}):
        assert (await api.call("POST", "/v1/tokens", json=changed, headers=headers)).problem == (409, "conflict")
    stop = {"Idempotency-Key": "revoke"}
    for _ in range(2):
        assert (await api.call("DELETE", f"/v1/tokens/{first.json['id']}", headers=stop)).status == 200
    late = await api.call("POST", "/v1/tokens", json=body, headers=headers)
    assert late.problem == (409, "conflict")
    assert "revoked" in late.json["error"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"name": "x"}, "role"),
        ({"name": "x", "role": "root"}, "root"),
        ({"name": "a b", "role": "viewer"}, "a b"),
        ({"name": "", "role": "viewer"}, "token name"),
        ({"name": "x", "role": "viewer", "roles": []}, "did you mean 'role'"),
    ],
)
async def test_bad_tokens(api: World, body: dict[str, object], said: str) -> None:
    before = api.trace()
    answer = await api.call("POST", "/v1/tokens", json=body)
    assert answer.problem == (400, "invalid")
    assert said in answer.json["error"]
    assert api.trace() == before


async def test_the_audit_says_who_did_what(api: World) -> None:
    await api.call("PUT", "/v1/datasets/audited", data=b"x,y\n1,a\n2,b\n3,a\n4,b\n", role="operator")
    index = api.state.index
    refused = await api.call("DELETE", "/v1/nodes/node-9")
    assert refused.status == 404
    found = (await api.call("GET", "/v1/audit?limit=1", role="operator")).json["entries"]
    assert [(entry["index"], entry["actor"], entry["call"], entry["object"], entry["outcome"]) for entry in found] == [
        (index, "operator", "AddDatasetVersion", "audited", "ok")
    ]
    longer = (await api.call("GET", "/v1/audit")).json["entries"]
    assert [entry["index"] for entry in longer] == sorted((entry["index"] for entry in longer), reverse=True)
