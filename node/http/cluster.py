"""The cluster itself: who is in it, who leads, how Ray is; draining, leaving, handing over; the audit."""

from collections.abc import Set
from typing import Any

from aiohttp import web

from consensus.messages import RemoveMember, SetMemberStatus
from consensus.state import Digest, MemberStatus, NodeId
from node.http import views
from node.http.context import Ports
from node.http.errors import Refusal, unknown
from node.http.params import body, integer, known_only
from node.http.routes import Route, answer, commit, ports_of, was_done
from parvada import schema


async def get_cluster(request: web.Request) -> web.Response:
    known_only(request)
    return answer(describe(ports_of(request)))


def describe(ports: Ports) -> schema.Cluster:
    """The whole picture as this node sees it."""
    state, status = ports.log.state, ports.log.status
    nodes = ports.telemetry.nodes()
    return schema.Cluster(
        cluster_id=state.cluster_id,
        name=state.name,
        leader=status.leader,
        term=status.term,
        commit_index=status.commit_index,
        applied_index=status.applied_index,
        quorum=status.quorum,
        voters=sorted(status.voters),
        learners=sorted(node for node in state.members if node not in status.voters),
        ray=_ray(ports),
        nodes=nodes,
        alarms=_alarms(ports, nodes),
        formation=ports.settings.formation,
    )


def _ray(ports: Ports) -> schema.Ray:
    epoch = ports.log.state.epoch
    report = ports.telemetry.trainer()
    state: Any = "up" if report is not None else "starting" if epoch.number else "down"
    return schema.Ray(
        epoch=epoch.number,
        state=state,
        head=epoch.head or None,
        address=epoch.address or None,
        nodes=[str(node) for node in sorted(ports.telemetry.ray_nodes())],
        cpus=report.cpus if report is not None else 0.0,
        cpus_used=report.cpus_used if report is not None else 0.0,
        mode=ports.settings.mode,
    )


def _alarms(ports: Ports, nodes: list[schema.Node]) -> list[schema.Alarm]:
    """What an operator should know of without looking for it."""
    status, now = ports.log.status, views.now_iso()
    alarms = []
    if not status.quorum:
        message = "no majority of the voters is in reach: reads and predictions go on, writes wait"
        alarms.append(schema.Alarm(code="no_quorum", since=now, message=message))
    if status.read_only:
        alarms.append(schema.Alarm(code="read_only", since=now, message=status.read_only))
    if status.quorum and (lost := ports.lost()):  # a minority cannot tell what is lost from what is out of reach
        alarms.append(schema.Alarm(code="blob_lost", since=now, message=_lost_message(ports, lost)))
    if split := ports.split():
        clusters = ", ".join(sorted(set(split.values())))
        message = f"{len(split)} nodes with this secret belong to another cluster ({clusters}): stop one of the two"
        alarms.append(schema.Alarm(code="split", since=now, message=message))
    for node in nodes:
        if node.state == "dead" and node.id in status.voters:
            message = f"{node.name} votes and has not been seen since {node.last_seen or 'its start'}"
            alarms.append(schema.Alarm(code="voter_dead", since=node.last_seen or now, message=message))
    return alarms


def _lost_message(ports: Ports, lost: Set[Digest]) -> str:
    """What is missing, by its users' names where there are few."""
    state, found = ports.log.state, set[str]()
    for dataset in state.datasets.values():
        for number, data in dataset.versions.items():
            if any(part.digest in lost for part in data.parts):
                found.add(f"dataset {dataset.name} {number}")
    for model in state.models.values():
        found |= {f"model {model.name} {number}" for number, made in model.versions.items() if made.digest in lost}
    names = sorted(found)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"no node within reach holds the bytes of {', '.join(names[:5])}{more}: bring back a node that did"


# ---------------------------------------------------------------- members
def _node_of(request: web.Request) -> NodeId:
    """By id or by name."""
    asked, members = request.match_info["node"], ports_of(request).log.state.members
    for member in members.values():
        if asked in (member.id, member.name):
            return member.id
    raise unknown("node", asked, [*members, *(member.name for member in members.values())])


async def drain(request: web.Request) -> web.Response:
    return await _set_status(request, MemberStatus.DRAINING)


async def undrain(request: web.Request) -> web.Response:
    return await _set_status(request, MemberStatus.ACTIVE)


async def _set_status(request: web.Request, status: MemberStatus) -> web.Response:
    known_only(request)
    node = _node_of(request)
    done = await commit(request, SetMemberStatus(node, status))
    return answer(_shown(ports_of(request), node), index=done.index)


def _shown(ports: Ports, node: NodeId) -> schema.Node:
    found = next((shown for shown in ports.telemetry.nodes() if shown.id == node), None)
    if found is None:  # removed in the meantime
        raise unknown("node", node)
    return found


async def remove(request: web.Request) -> web.Response:
    """Leaves for good: its certificate is revoked. A voter must be stopped first, so that it has lost its vote."""
    known_only(request)
    ports = ports_of(request)
    node = NodeId(request.match_info["node"]) if was_done(request) else _node_of(request)
    if node in ports.log.status.voters:
        raise Refusal(
            409,
            "conflict",
            "this node votes: stop it first (it loses its vote in order), then remove it",
            {"node": node},
        )
    done = await commit(request, RemoveMember(node))
    return answer({"id": node, "removed": True}, index=done.index)


async def transfer(request: web.Request) -> web.Response:
    """Hand the leadership over, whichever node is asked."""
    known_only(request)
    ports = ports_of(request)
    asked = await body(request, schema.TransferRequest) if request.can_read_body else schema.TransferRequest()
    target = NodeId(asked.to) if asked.to is not None else None
    if target is not None and target not in ports.log.status.voters:
        raise unknown("voter", target, ports.log.status.voters)
    if target is None or ports.log.status.leader != target:
        await ports.leadership.transfer(target)
    return answer({"leader": ports.log.status.leader})


async def audit(request: web.Request) -> web.Response:
    """Newest first."""
    known_only(request, ["limit"])
    limit = integer(request, "limit", 100, 1, 1000)
    entries = sorted(ports_of(request).log.state.audit.items(), reverse=True)[:limit]
    return answer({"entries": [views.audit(entry) for _, entry in entries]})


ROUTES = (
    Route("GET", "/v1/cluster", get_cluster),
    Route("POST", "/v1/nodes/{node}/drain", drain, "admin"),
    Route("POST", "/v1/nodes/{node}/undrain", undrain, "admin"),
    Route("DELETE", "/v1/nodes/{node}", remove, "admin"),
    Route("POST", "/v1/cluster/transfer", transfer, "admin"),
    Route("GET", "/v1/audit", audit, "operator"),
)
