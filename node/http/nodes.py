"""Single members: what they look like, draining and its undoing, leaving for good."""

import asyncio
from collections.abc import Set
from typing import Any

from aiohttp import web
from msgspec.structs import replace

from consensus.messages import RemoveMember, SetMemberStatus
from consensus.queries import active_members
from consensus.state import ClusterState, Digest, MemberStatus, NodeId
from node.http.context import Ports
from node.http.errors import Refusal, unknown
from node.http.routes import Route, answer, commit, ports_of, route, was_done
from node.membership import draining
from parvada import schema
from parvada.contract.kinds import Freshness
from parvada.contract.operation import Answer

MAX_NAMED = 5


def shown(ports: Ports) -> list[schema.Node]:
    """Every member as this node sees it, those that drain with their progress."""
    state, nodes = ports.log.state, ports.telemetry.nodes()
    return [replace(node, drain=_progress(ports, node)) if _drains(state, NodeId(node.id)) else node for node in nodes]


def _drains(state: ClusterState, node: NodeId) -> bool:
    member = state.members.get(node)
    return member is not None and member.status is MemberStatus.DRAINING


def _progress(ports: Ports, node: schema.Node) -> schema.Drain:
    left = draining.unmoved(ports.log.state, NodeId(node.id), ports.settings.copies)
    done = not left and not node.leader and not node.ray_head
    return schema.Drain(blobs=left, votes=node.role == "voter", done=done)


def named(ports: Ports, asked: str) -> NodeId:
    """The member with this id or name."""
    members = ports.log.state.members
    if asked in members:
        return NodeId(asked)
    found = [member.id for member in members.values() if member.name == asked]
    if len(found) > 1:
        ids = ", ".join(sorted(found))
        raise Refusal(409, "conflict", f"{len(found)} nodes are called {asked!r}: give the id ({ids})", {"name": asked})
    if not found:
        raise unknown("node", asked, [*members, *(member.name for member in members.values())])
    return found[0]


def users_of(state: ClusterState, digests: Set[Digest]) -> str:
    """The datasets and models that are made of these blobs; only the first of many."""
    found = set[str]()
    for dataset in state.datasets.values():
        for number, data in dataset.versions.items():
            if any(part.digest in digests for part in data.parts):
                found.add(f"dataset {dataset.name} {number}")
    for model in state.models.values():
        found |= {f"model {model.name} {number}" for number, made in model.versions.items() if made.digest in digests}
    names = sorted(found)
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


# ---------------------------------------------------------------- draining
@route("POST", "/v1/nodes/{node}/drain", Answer(schema.Node), tag="Cluster", role="admin")
async def drain(request: web.Request) -> web.Response:
    """Move all work away from a node.

    Work, leadership and copies move to the others, and so does the vote where one of them can take it.
    """
    ports = ports_of(request)
    node = named(ports, request.match_info["node"])
    if not was_done(request) and ports.log.status.quorum:
        _check_others(ports, node)
    return await _set_status(request, node, MemberStatus.DRAINING)


@route("POST", "/v1/nodes/{node}/undrain", Answer(schema.Node), tag="Cluster", role="admin")
async def undrain(request: web.Request) -> web.Response:
    """Let a node take work again."""
    return await _set_status(request, named(ports_of(request), request.match_info["node"]), MemberStatus.ACTIVE)


def _check_others(ports: Ports, node: NodeId) -> None:
    within_reach = {ports.settings.node, *ports.log.status.connected}
    if not any(member.id != node and member.id in within_reach for member in active_members(ports.log.state)):
        name = ports.log.state.members[node].name
        message = f"{name} cannot drain: no other node is here to take its work; start one, or undrain one"
        raise Refusal(409, "conflict", message, {"node": node})


async def _set_status(request: web.Request, node: NodeId, status: MemberStatus) -> web.Response:
    done = await commit(request, SetMemberStatus(node, status))
    found = next((each for each in shown(ports_of(request)) if each.id == node), None)
    if found is None:  # removed in the meantime
        raise unknown("node", node)
    return answer(found, index=done.index)


# ---------------------------------------------------------------- leaving
class RemoveQuery(Freshness, frozen=True, kw_only=True):
    force: bool = False
    """Also when bytes are lost by it."""


@route(
    "DELETE",
    "/v1/nodes/{node}",
    Answer(schema.NodeRemoved),
    tag="Cluster",
    role="admin",
    query=RemoveQuery,
)
async def remove(request: web.Request, query: RemoveQuery) -> web.Response:
    """Make a node leave for good.

    It loses its vote in order, then its place, and its certificate is revoked.
    """
    ports = ports_of(request)
    again = was_done(request)
    node = NodeId(request.match_info["node"]) if again else named(ports, request.match_info["node"])
    if not again:
        if not query.force and ports.log.status.quorum:
            _check_copies(ports, node)
        if node in ports.log.status.voters and len(ports.log.state.members) > 1:
            await ports.leadership.retire(node)
    removing = _leave if node == ports.settings.node else _take_out
    index = await removing(request, node)
    return answer(schema.NodeRemoved(id=node), index=index)


async def _take_out(request: web.Request, node: NodeId) -> int | None:
    return (await commit(request, RemoveMember(node))).index


async def _leave(request: web.Request, me: NodeId) -> int | None:
    """The peers cut this node off as soon as they apply its removal, perhaps before its own log has heard of it: then
    their word is as good, and there is no index."""
    ports = ports_of(request)
    committing = asyncio.ensure_future(_take_out(request, me))
    told = asyncio.ensure_future(ports.removed.wait())
    try:
        await asyncio.wait({committing, told}, return_when=asyncio.FIRST_COMPLETED)
        by_peers = told.done() and me not in ports.log.state.revoked
        return None if by_peers else await committing
    finally:
        committing.cancel()
        told.cancel()
        await asyncio.gather(committing, told, return_exceptions=True)  # nobody else asks what became of them


def _check_copies(ports: Ports, node: NodeId) -> None:
    within_reach = {ports.settings.node, *ports.log.status.connected}
    only = draining.only_here(ports.log.state, node, within_reach)
    if not only:
        return
    name, users = ports.log.state.members[node].name, users_of(ports.log.state, only)
    details: dict[str, Any] = {"node": node, "blobs": len(only)}
    message = (
        f"no other node within reach holds the bytes of {users}: drain {name} and wait for its copies to move, "
        "bring back another holder, or give them up with force=true"
    )
    raise Refusal(409, "only_copies", message, details)


ROUTES: tuple[Route, ...] = (drain, undrain, remove)
