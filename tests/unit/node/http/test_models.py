"""Models over HTTP: versions with all that is known of them, aliases that move, roll back and remember."""

from collections.abc import Mapping
from typing import Any

import pytest
import pytest_asyncio

from tests.unit.node.http.facts import model
from tests.unit.node.http.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALIASES = "/v1/models/iris/aliases"


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _model(api: World) -> None:
    await model(api, "iris", versions=3)


async def move(api: World, alias: str, version: int, **more: Any) -> Mapping[str, Any]:
    answer = await api.call("PUT", f"{ALIASES}/{alias}", json={"version": version, **more})
    assert answer.status == 200, answer.raw
    assert int(answer.headers["x-parvada-index"]) == api.state.index
    found: Mapping[str, Any] = answer.json
    return found


async def test_a_model_and_its_versions(api: World) -> None:
    found = await api.get("/v1/models/iris")
    assert (found["latest"], found["versions"], found["aliases"]["production"]) == (3, [1, 2, 3], 3)
    assert (found["task"], found["estimator"], found["metrics"]) == ("binary", "LogisticRegression", {"roc_auc": 0.85})
    assert found in (await api.get("/v1/models"))["models"]
    versions = (await api.get("/v1/models/iris/versions"))["versions"]
    assert [version["version"] for version in versions] == [3, 2, 1]
    one = await api.get("/v1/models/iris/versions/1")
    assert one == versions[-1]
    assert one["holders"] == [api.flock.first.id]
    assert one["dataset"]["name"] == "iris"
    assert one["signature"]["inputs"][0] == {"name": "length", "type": "number", "required": True}
    assert one["engine"] == "sklearn"
    assert ["production" in version["aliases"] for version in versions] == [True, False, False]
    assert one["job"] in api.state.jobs


async def test_an_alias_moves_rolls_back_and_goes(api: World) -> None:
    assert await move(api, "canary", 1) == {"alias": "canary", "version": 1, "previous": 0}
    assert await move(api, "canary", 3, comment="looks good") == {"alias": "canary", "version": 3, "previous": 1}
    back = await api.call("POST", f"{ALIASES}/canary/rollback")
    assert back.json == {"alias": "canary", "version": 1, "previous": 3}
    history = (await api.get(f"{ALIASES}/canary/history"))["history"]
    assert [(step["version"], step["previous"], step["by"]) for step in history] == [
        (1, 3, "admin"),
        (3, 1, "admin"),
        (1, 0, "admin"),
    ]
    assert history[1]["comment"] == "looks good"
    assert history[0]["metrics"] == {"roc_auc": 0.85}
    for step in history:  # the steps may share a millisecond
        then = (await api.get(f"{ALIASES}/canary/history?as_of={step['at']}"))["history"]
        assert step in then
    assert (await api.get(f"{ALIASES}/canary/history?as_of=2001-01-01"))["history"] == []
    assert (await api.get(f"{ALIASES}/canary/history?as_of=2999-01-01T00:00:00%2B02:00"))["history"] == history
    dropped = await api.call("DELETE", f"{ALIASES}/canary")
    assert dropped.json == {"alias": "canary", "dropped": True}
    assert "canary" not in (await api.get("/v1/models/iris"))["aliases"]
    assert (await api.get(f"{ALIASES}/canary/history"))["history"][0]["version"] == 0


async def test_an_alias_moves_only_from_where_it_is_expected(api: World) -> None:
    await move(api, "guarded", 1, expected=0)
    before = api.state.models["iris"]
    refused = await api.call("PUT", f"{ALIASES}/guarded", json={"version": 3, "expected": 2})
    assert refused.problem == (409, "conflict")
    assert "names version 1" in refused.json["error"]
    assert api.state.models["iris"] is before
    assert (await move(api, "guarded", 3, expected=1))["version"] == 3


@pytest.mark.parametrize(
    ("method", "path", "body", "problem", "said"),
    [
        ("GET", "/v1/models/irs", None, (404, "unknown_model"), "did you mean 'iris'"),
        ("GET", "/v1/models/irs/versions", None, (404, "unknown_model"), "irs"),
        ("GET", "/v1/models/iris/versions/7", None, (404, "unknown_version"), "'7'"),
        ("GET", "/v1/models/iris/versions/one", None, (400, "invalid"), "one"),
        ("PUT", f"{ALIASES}/x", {"version": 7}, (404, "unknown_version"), "'7'"),
        ("PUT", f"{ALIASES}/x", {"version": 2**70}, (404, "unknown_version"), ""),
        ("PUT", f"{ALIASES}/x", {"version": 1, "expected": 2**70}, (400, "invalid"), ""),
        ("PUT", f"{ALIASES}/x", {"version": "1"}, (400, "invalid"), "version"),
        ("PUT", f"{ALIASES}/x", {"version": True}, (400, "invalid"), "version"),
        ("PUT", f"{ALIASES}/x", {}, (400, "invalid"), "version"),
        ("PUT", f"{ALIASES}/x", {"version": 1, "coment": ""}, (400, "invalid"), "did you mean 'comment'"),
        ("PUT", f"{ALIASES}/a%20b", {"version": 1}, (400, "invalid"), "alias"),
        ("PUT", f"{ALIASES}/x", {"version": 1, "comment": "x" * 1001}, (400, "invalid"), "comment"),
        ("PUT", "/v1/models/irs/aliases/x", {"version": 1}, (404, "unknown_model"), "iris"),
        ("DELETE", f"{ALIASES}/producton", None, (404, "unknown_alias"), "did you mean 'production'"),
        ("POST", f"{ALIASES}/none/rollback", None, (404, "unknown_alias"), "none"),
        ("GET", f"{ALIASES}/none/history", None, (404, "unknown_alias"), "none"),
        ("GET", f"{ALIASES}/production/history?as_of=soon", None, (400, "invalid"), "soon"),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_is_changed(
    api: World, method: str, path: str, body: Any, problem: tuple[int, str], said: str
) -> None:
    facts = api.state.models, api.state.datasets, api.state.jobs
    answer = await api.call(method, path, **({} if body is None else {"json": body}))
    assert answer.problem == problem, answer.raw
    assert said in answer.json["error"]
    assert (api.state.models, api.state.datasets, api.state.jobs) == facts


async def test_a_first_move_cannot_be_rolled_back(api: World) -> None:
    await move(api, "first", 1)
    assert (await api.call("POST", f"{ALIASES}/first/rollback")).problem == (409, "conflict")


async def test_a_retried_call_has_its_effect_once(api: World) -> None:
    """A client whose answer was lost asks again, with the same key."""
    await move(api, "retried", 1)
    await move(api, "retried", 2)
    headers = {"Idempotency-Key": "lost"}
    for method, path in (("POST", f"{ALIASES}/retried/rollback"), ("DELETE", f"{ALIASES}/retried")):
        first = await api.call(method, path, headers=headers)
        again = await api.call(method, path, headers=headers)
        assert (first.status, again.status, again.json) == (200, 200, first.json)
    assert (await api.call("DELETE", f"{ALIASES}/retried")).problem == (404, "unknown_alias")
