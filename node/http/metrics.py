"""This node's figures in Prometheus's text format (version 0.0.4)."""

from collections.abc import Iterable

from aiohttp import web

from consensus.state import JobState
from node.http.context import Ports
from node.http.routes import Route, ports_of, route
from parvada.contract.operation import Answer


@route("GET", "/metrics", Answer(bytes, media=("text/plain",)), tag="Observation")
async def metrics(request: web.Request) -> web.Response:
    """This node's figures, as Prometheus reads them."""
    text = "\n".join(_lines(ports_of(request))) + "\n"
    return web.Response(body=text.encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _lines(ports: Ports) -> Iterable[str]:
    status, state = ports.log.status, ports.log.state
    yield from _family("parvada_raft_term", "gauge", "Current term.", [("", status.term)])
    yield from _family("parvada_raft_commit_index", "gauge", "Commit index.", [("", status.commit_index)])
    yield from _family("parvada_raft_applied_index", "gauge", "Applied index.", [("", status.applied_index)])
    yield from _family("parvada_raft_leader", "gauge", "1 on the leader.", [("", int(status.leader == status.me))])
    yield from _family("parvada_raft_quorum", "gauge", "1 with a quorum.", [("", int(status.quorum))])
    yield from _family("parvada_peers_connected", "gauge", "Connected peers.", [("", len(status.connected))])
    yield from _family("parvada_epoch", "counter", "Ray epochs begun.", [("", state.epoch.number)])
    counts = [(_labels(state=kind.value), sum(job.state is kind for job in state.jobs.values())) for kind in JobState]
    yield from _family("parvada_jobs", "gauge", "Jobs by state.", counts)
    yield from _node(ports)
    yield from _models(ports)


def _node(ports: Ports) -> Iterable[str]:
    here = next((node for node in ports.telemetry.nodes() if node.id == ports.settings.node), None)
    if here is None:  # not registered yet
        return
    for name, text, value in (
        ("parvada_node_cpus", "CPUs that the node offers to training.", here.cpus),
        ("parvada_node_cpu_percent", "CPU of the machine, 0 to 100.", here.cpu_percent),
        ("parvada_node_memory_bytes", "Memory of the node's processes (PSS).", here.memory_bytes),
        ("parvada_node_disk_free_bytes", "Free bytes where the data is.", here.disk_free_bytes),
        ("parvada_blobs_held", "Blobs on this node.", here.blobs.held),
        ("parvada_blobs_owed", "Blobs that this node should have and has not yet.", here.blobs.owed),
    ):
        yield from _family(name, "gauge", text, [("", value)] if value is not None else [])


def _models(ports: Ports) -> Iterable[str]:
    loads = [row.load() for row in ports.telemetry.local_rows()]
    labelled = [(_labels(model=load.model, version=str(load.version)), load) for load in loads]
    yield from _family(
        "parvada_requests_total", "counter", "Predictions asked for.", [(at, load.requests) for at, load in labelled]
    )
    yield from _family(
        "parvada_errors_total", "counter", "Of them failed.", [(at, load.errors) for at, load in labelled]
    )
    yield from _family("parvada_rows_total", "counter", "Rows predicted.", [(at, load.rows) for at, load in labelled])
    seconds = [
        (_labels(model=load.model, version=str(load.version), quantile=f"{quantile}"), value / 1000)
        for load in loads
        for quantile, value in ((0.5, load.p50), (0.9, load.p90), (0.99, load.p99))
    ]
    yield from _family("parvada_latency_seconds", "gauge", "Latency quantiles of predictions.", seconds)


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> Iterable[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{labels} {value!r}"


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    """As the text format asks of label values."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


ROUTES: tuple[Route, ...] = (metrics,)
