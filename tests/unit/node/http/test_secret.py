"""The rotation of the cluster secret over HTTP: who may, how far it is, and what the API never tells."""

import pytest

from consensus.messages import ConfirmRotation
from consensus.state import RotationPhase
from node.http.cluster import describe
from tests.support.clock import Clock
from tests.unit.node.http.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/cluster/secret"


@pytest.mark.parametrize("call", ["rotate", "excuse", "abandon"])
@pytest.mark.parametrize("role", ["viewer", "operator"])
async def test_only_an_admin_may(api: World, call: str, role: str) -> None:
    before = api.trace()
    assert (await api.call("POST", f"{PATH}/{call}", role=role)).status == 403
    assert (await api.call("POST", f"{PATH}/{call}", role=None)).status == 401
    assert api.trace() == before


@pytest.mark.parametrize(("call", "body"), [("excuse", {"node": "node-1"}), ("abandon", None)])
async def test_what_needs_a_rotation_is_a_conflict_without_one(
    api: World, call: str, body: dict[str, str] | None
) -> None:
    answer = await api.call("POST", f"{PATH}/{call}", json=body)
    assert (answer.status, answer.json["code"]) == (409, "conflict")
    assert "no rotation of the secret is under way" in answer.json["error"]


async def test_from_its_beginning_to_its_end(fresh: World) -> None:
    found = await fresh.get(PATH)
    assert (found["generation"], found["phase"], found["since"]) == (1, "settled", None)
    assert describe(fresh.ports).alarms == []

    headers = {"Idempotency-Key": "once"}
    for _ in range(2):
        answer = await fresh.call("POST", f"{PATH}/rotate", headers=headers)
        assert (answer.status, answer.json["phase"], answer.json["generation"]) == (202, "prepare", 1)
    begun = fresh.state.rotation
    assert (await fresh.call("POST", f"{PATH}/rotate")).json["phase"] == "prepare"
    assert fresh.state.rotation == begun, "the second call has joined the first"
    (alarm,) = describe(fresh.ports).alarms
    assert alarm.code == "rotation"
    assert "(prepare, it waits for node-0, node-1, node-2)" in alarm.message

    first, second, third = fresh.flock.nodes
    for node in (first, second):
        await fresh.log.propose(ConfirmRotation(node.id, begun.coming, RotationPhase.PREPARE), actor="secret")
    seen = await fresh.get(PATH)
    assert {node["name"]: node["done"] for node in seen["nodes"]} == {"node-0": True, "node-1": True, "node-2": False}
    excused = await fresh.call("POST", f"{PATH}/excuse", json={"node": "node-2"})
    assert (excused.status, excused.json["phase"]) == (200, "present")
    assert (await fresh.call("POST", f"{PATH}/abandon")).status == 409
    assert (await fresh.call("POST", f"{PATH}/excuse", json={"node": "node-9"})).status == 404
    for phase in (RotationPhase.PRESENT, RotationPhase.RETIRE):
        for node in (first, second):
            await fresh.log.propose(ConfirmRotation(node.id, begun.coming, phase), actor="secret")
    done = await fresh.get(PATH)
    assert (done["generation"], done["phase"]) == (2, "settled")
    assert {node["id"] for node in done["nodes"] if node["excused"]} == {third.id}
    assert describe(fresh.ports).alarms == []
    repeated = await fresh.call("POST", f"{PATH}/rotate", headers=headers)
    assert (repeated.status, repeated.json["phase"]) == (202, "settled"), "the very same call: nothing begins anew"


async def test_without_a_quorum_nothing_begins(fresh: World, clock: Clock) -> None:
    with fresh.cut_off():
        answer = await clock.run(fresh.call("POST", f"{PATH}/rotate"))
        assert (answer.status, answer.json["code"]) == (503, "no_quorum")
    assert (await fresh.get(PATH))["phase"] == "settled"


async def test_audit_and_events_name_who_began_it_and_hold_no_secret(fresh: World) -> None:
    await fresh.call("POST", f"{PATH}/rotate")
    entries = (await fresh.get("/v1/audit"))["entries"]
    assert [(entry["call"], entry["actor"], entry["object"]) for entry in entries][:1] == [
        ("BeginRotation", "admin", "2")
    ]
    (event,) = [event for event in fresh.log.recent_events(0) or () if event.kind == "secret.rotating"]
    assert (event.subject, event.detail) == ("2", b'{"phase":"prepare"}')
