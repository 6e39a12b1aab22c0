"""The cluster secret: how far its rotation is, beginning one, going on without a node, giving it up."""

from aiohttp import web

from consensus.messages import AbandonRotation, ExcuseNode
from consensus.rules.rotation import waited_for
from consensus.state import ClusterState, RotationPhase
from node.http import views
from node.http.context import Ports
from node.http.nodes import named, shown
from node.http.routes import Route, answer, commit, ports_of, route, was_done
from parvada import schema
from parvada.contract.operation import Answer, Example

ALARM = "rotation"


@route("GET", "/v1/cluster/secret", Answer(schema.SecretRotation), tag="Access")
async def get(request: web.Request) -> web.Response:
    """How far the rotation of the cluster secret is; never the secret."""
    return answer(progress(ports_of(request)))


@route(
    "POST",
    "/v1/cluster/secret/rotate",
    Answer(schema.SecretRotation, 202),
    tag="Access",
    role="admin",
)
async def rotate(request: web.Request) -> web.Response:
    """Begin a rotation of the cluster secret.

    One that is under way already is answered as it is.
    """
    ports = ports_of(request)
    index = None
    if not was_done(request):
        await ports.rotation.begin(lambda command: commit(request, command))
        index = ports.log.state.index
    return answer(progress(ports), 202, index)


@route(
    "POST",
    "/v1/cluster/secret/excuse",
    Answer(schema.SecretRotation),
    tag="Access",
    role="admin",
    body=schema.ExcuseRequest,
    examples=(Example("A node that does not come back", {"node": "node-3"}),),
    refuses=(404,),
)
async def excuse(request: web.Request, asked: schema.ExcuseRequest) -> web.Response:
    """Let the rotation go on without a node.

    It needs the new secret by hand to come back.
    """
    ports = ports_of(request)
    done = await commit(request, ExcuseNode(named(ports, asked.node)))
    return answer(progress(ports), index=done.index)


@route("POST", "/v1/cluster/secret/abandon", Answer(schema.SecretRotation), tag="Access", role="admin")
async def abandon(request: web.Request) -> web.Response:
    """Give a rotation up.

    Possible as long as no node presents the new secret.
    """
    done = await commit(request, AbandonRotation())
    return answer(progress(ports_of(request)), index=done.index)


def progress(ports: Ports) -> schema.SecretRotation:
    state = ports.log.state
    rotation = state.rotation
    waiting = frozenset(waited_for(state))
    nodes = [
        schema.RotationNode(
            id=node.id,
            name=node.name,
            state=node.state,
            done=node.id not in waiting and node.id not in rotation.excused,
            excused=node.id in rotation.excused,
        )
        for node in shown(ports)
    ]
    return schema.SecretRotation(
        generation=rotation.generation,
        phase=rotation.phase.value,
        since=views.iso(rotation.begun_at) if rotation.begun_at else None,
        nodes=nodes,
    )


def alarm(state: ClusterState) -> schema.Alarm | None:
    """While one is not finished: both secrets are good until then."""
    rotation = state.rotation
    if rotation.phase is RotationPhase.SETTLED:
        return None
    names = ", ".join(sorted(state.members[node].name for node in waited_for(state)))
    message = (
        f"the rotation of the cluster secret is not finished ({rotation.phase}, it waits for {names or 'nobody'}): "
        "start these nodes, or go on without one by `parvada cluster rotate-secret --without NODE`"
    )
    return schema.Alarm(code=ALARM, since=views.iso(rotation.begun_at), message=message)


ROUTES: tuple[Route, ...] = (get, rotate, excuse, abandon)
