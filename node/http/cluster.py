"""The cluster itself: who is in it, who leads, how Ray is; handing over; the audit."""

from collections.abc import Set
from typing import Annotated, Any

import msgspec
from aiohttp import web

from consensus.state import Digest
from node.http import secret, views
from node.http.context import Ports
from node.http.errors import Refusal
from node.http.nodes import named, shown, users_of
from node.http.routes import Route, answer, ports_of, route
from parvada import schema
from parvada.contract.kinds import Freshness
from parvada.contract.operation import Answer, Example


@route("GET", "/v1/cluster", Answer(schema.Cluster), tag="Cluster")
async def get_cluster(request: web.Request) -> web.Response:
    """The whole picture, as this node sees it."""
    return answer(describe(ports_of(request)))


def describe(ports: Ports) -> schema.Cluster:
    """The whole picture as this node sees it."""
    state, status = ports.log.state, ports.log.status
    nodes = shown(ports)
    return schema.Cluster(
        cluster_id=state.cluster_id,
        name=state.name,
        leader=status.leader,
        term=status.term,
        level=state.level,
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
    for name in ports.telemetry.full():
        message = (
            f"{name} has no room for more blobs and refuses uploads and copies: "
            "free some of its disk, delete datasets, or raise PARVADA_DISK_QUOTA_MB"
        )
        alarms.append(schema.Alarm(code="disk_full", since=now, message=message))
    if split := ports.split():
        clusters = ", ".join(sorted(set(split.values())))
        message = (
            f"{len(split)} nodes with this secret belong to another cluster ({clusters}): one that was formed in "
            "development mode and holds nothing ends by itself within seconds, else stop one"
        )
        alarms.append(schema.Alarm(code="split", since=now, message=message))
    if (unfinished := secret.alarm(ports.log.state)) is not None:
        alarms.append(unfinished)
    for node in nodes:
        if node.state == "dead" and node.id in status.voters:
            message = f"{node.name} votes and has not been seen since {node.last_seen or 'its start'}"
            alarms.append(schema.Alarm(code="voter_dead", since=node.last_seen or now, message=message))
    return alarms


def _lost_message(ports: Ports, lost: Set[Digest]) -> str:
    """What is missing, by its users' names where there are few."""
    users = users_of(ports.log.state, lost)
    return f"no node within reach holds the bytes of {users}: bring back a node that did"


@route(
    "POST",
    "/v1/cluster/transfer",
    Answer(schema.Leader),
    tag="Cluster",
    role="admin",
    body=schema.TransferRequest,
    optional=True,
    examples=(Example("To one node", {"to": "node-2"}), Example("To the one that is furthest", {})),
    refuses=(404,),
)
async def transfer(request: web.Request, asked: schema.TransferRequest) -> web.Response:
    """Hand the leadership over, whichever node is asked.

    To a voter, by id or name, or to the one that is furthest.
    """
    ports = ports_of(request)
    target = named(ports, asked.to) if asked.to is not None else None
    if target is not None and target not in ports.log.status.voters:
        name = ports.log.state.members[target].name
        raise Refusal(409, "conflict", f"{name} is a learner: only a voter can lead", {"node": target})
    if target is None or ports.log.status.leader != target:
        await ports.leadership.transfer(target)
    return answer(schema.Leader(leader=ports.log.status.leader))


class AuditQuery(Freshness, frozen=True, kw_only=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    """So many entries at most."""


@route("GET", "/v1/audit", Answer(schema.AuditLog), tag="Cluster", role="operator", query=AuditQuery)
async def audit(request: web.Request, query: AuditQuery) -> web.Response:
    """Who did what when, newest first."""
    entries = sorted(ports_of(request).log.state.audit.items(), reverse=True)[: query.limit]
    return answer(schema.AuditLog(entries=[views.audit(entry) for _, entry in entries]))


ROUTES: tuple[Route, ...] = (get_cluster, transfer, audit)
