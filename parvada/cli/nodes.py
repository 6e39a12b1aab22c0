"""`nodes`: listing members, moving their work away and back, taking them out for good, handing the leadership over."""

import click

from parvada import errors
from parvada.cli import render
from parvada.cli.exits import RETRY, Failure
from parvada.cli.groups import CommandGroup
from parvada.cli.settings import Pace, Settings, as_json_option, connected
from parvada.client import Client
from parvada.schema import Cluster, Node

COLUMNS = ("name", "role", "state", "marks", "blobs", "cpus", "cpu", "memory", "req/s", "seen", "address", "id")
LOOK_SECONDS = 0.5
"""Between looks at a node that drains."""
LEFT = """\
{name} has left for good. If its process ran, it ends with exit code 4; started again it says that it was removed.
  → to come back as a new node: move its slot's folder (slots/K in its data folder) away, then start it"""


def print_nodes(cluster: Cluster) -> None:
    render.print_table(COLUMNS, [_row(node) for node in cluster.nodes], "no nodes")


def _row(node: Node) -> list[str]:
    marks = [mark for mark, held in (("leader", node.leader), ("ray head", node.ray_head)) if held]
    cpu = "–" if node.cpu_percent is None else f"{node.cpu_percent:.0f} %"
    return [
        node.name,
        node.role,
        render.state(node.state),
        ", ".join(marks) or "–",
        _blobs(node),
        _cpus(node),
        cpu,
        f"{render.size(node.memory_bytes)} of {render.size(node.memory_total_bytes)}",
        f"{node.requests_per_second:.1f}",
        render.age(node.last_seen),
        f"{node.address}:{node.api_port}",
        node.id[:12],
    ]


def _blobs(node: Node) -> str:
    """How many it has, and what is still to move."""
    if node.drain is not None:
        return f"{node.blobs.held} (drained)" if node.drain.done else f"{node.blobs.held} ({node.drain.blobs} to move)"
    return f"{node.blobs.held} ({node.blobs.owed} owed)" if node.blobs.owed else str(node.blobs.held)


def _cpus(node: Node) -> str:
    """What it offers to training, and why it is no more."""
    sharing = f" (shared by {len(node.cpus_shared_with) + 1})" if node.cpus_shared_with else ""
    return f"{node.cpus}{sharing}" if node.cpus else "–"


@click.group(cls=CommandGroup, short_help="List, drain and remove nodes.")
def nodes() -> None:
    """List, drain and remove nodes. A node is named by its name or by the beginning of its id."""


@nodes.command("ls")
@connected
@as_json_option
def nodes_ls(settings: Settings, as_json: bool) -> None:
    """List the nodes."""
    with settings.client() as client:
        cluster = client.status()
    render.print_json(cluster.nodes) if as_json else print_nodes(cluster)


@nodes.command()
@click.argument("node", required=False)
@click.option("--wait/--no-wait", help="Return only when the others have all that they take over.")
@click.option("--timeout", type=click.FloatRange(0), default=600.0, show_default=True, help="Seconds, with --wait.")
@connected
@as_json_option
def drain(settings: Settings, node: str | None, wait: bool, timeout: float, as_json: bool) -> None:
    """Move work away from a node: training, leadership, copies of data and models.

    It still answers predictions, and it keeps its vote as long as no other node can take it. Without NODE: the node
    on this machine. `undrain` takes it back.
    """
    with settings.client() as client:
        found = _resolve(client, settings, node)
        client.drain(found.id)
        found = _drained(client, found, timeout, settings.pace) if wait else _look(client, found)
    if as_json:
        render.print_json(found)
    else:
        done = "has nothing left to hand over" if wait else "drains: `parvada nodes ls` shows what is left to move"
        click.echo(f"{found.name} {done} (`parvada nodes undrain {found.name}` takes it back)", err=True)


@nodes.command()
@click.argument("node", required=False)
@connected
@as_json_option
def undrain(settings: Settings, node: str | None, as_json: bool) -> None:
    """Give a drained node work again."""
    with settings.client() as client:
        found = _resolve(client, settings, node)
        client.undrain(found.id)
        if as_json:
            render.print_json(_look(client, found))


@nodes.command()
@click.argument("node")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Also when bytes that no other node has are lost by it.")
@connected
@as_json_option
def remove(settings: Settings, node: str, yes: bool, force: bool, as_json: bool) -> None:
    """Take a node out of the cluster for good, at once; its certificate is revoked.

    For a node that is lost. One that lives had better `leave`: its copies move first.
    """
    with settings.client() as client:
        found = _resolve(client, settings, node)
        if not yes:
            click.confirm(f"Remove {found.name} ({found.id[:12]}, {found.state}) for good?", abort=True, err=True)
        _remove(client, found, force)
    _say_left(found, as_json)


@nodes.command()
@click.argument("node", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--timeout", type=click.FloatRange(0), default=600.0, show_default=True, help="Seconds for it to drain.")
@connected
@as_json_option
def leave(settings: Settings, node: str | None, yes: bool, timeout: float, as_json: bool) -> None:
    """Drain a node, wait until the others have all it has, then take it out for good.

    Without NODE: the node on this machine. When it is interrupted the node goes on draining: run it again, or
    `undrain`.
    """
    with settings.client() as client:
        found = _resolve(client, settings, node)
        if not yes:
            click.confirm(f"{found.name} ({found.id[:12]}) leaves for good?", abort=True, err=True)
        client.drain(found.id)
        _drained(client, found, timeout, settings.pace)
        _remove(client, found, force=False)
    _say_left(found, as_json)


@nodes.command()
@click.argument("node", required=False)
@connected
@as_json_option
def transfer(settings: Settings, node: str | None, as_json: bool) -> None:
    """Hand the leadership to NODE, or to the voter that is furthest."""
    with settings.client() as client:
        client.transfer(_resolve(client, settings, node).id if node is not None else None)
        cluster = client.status()
    if as_json:
        render.print_json({"leader": cluster.leader})
    else:
        names = {each.id: each.name for each in cluster.nodes}
        click.echo(f"the leader is {names.get(cluster.leader or '', cluster.leader or 'not known yet')}", err=True)


# ---------------------------------------------------------------- steps
def _resolve(client: Client, settings: Settings, text: str | None) -> Node:
    members = client.nodes()
    known = ", ".join(f"{node.name} ({node.id[:12]})" for node in members)
    if text is None:
        if len(settings.urls) != 1:
            raise Failure("several nodes run here: say which one is meant", f"the nodes are {known}")
        text = client.node
    found = [node for node in members if node.name == text or node.id.startswith(text)]
    if len(found) == 1:
        return found[0]
    raise Failure(f"{text!r} names {len(found) or 'no'} nodes", f"the nodes are {known}")


def _look(client: Client, node: Node) -> Node:
    for found in client.nodes():
        if found.id == node.id:
            return found
    raise Failure(f"{node.name} is no member any more")


def _drained(client: Client, node: Node, timeout: float, pace: Pace) -> Node:
    """The node once nothing is left to hand over; says how it gets on."""
    deadline, said = pace.clock() + timeout, ""
    while True:
        found = _look(client, node)
        if found.drain is None:
            raise Failure(f"{node.name} does not drain any more: somebody has taken it back")
        if found.drain.done:
            return found
        left = _left(found)
        if left != said:
            click.echo(f"{node.name} drains: {left}", err=True)
            said = left
        if pace.clock() >= deadline:
            hint = "it goes on draining; run this again to wait on, or `parvada nodes undrain` to take it back"
            raise Failure(f"{node.name} has not drained in {timeout:g} s: {left}", hint, RETRY)
        pace.sleep(LOOK_SECONDS)


def _left(node: Node) -> str:
    found = [f"{node.drain.blobs} blobs to copy to other nodes"] if node.drain is not None and node.drain.blobs else []
    found += ["the leadership to hand over"] if node.leader else []
    found += ["the head of the training to move"] if node.ray_head else []
    return ", ".join(found)


def _remove(client: Client, node: Node, force: bool) -> None:
    try:
        client.remove_node(node.id, force=force)
    except errors.Unreachable as error:
        if client.node != node.id:
            raise
        # The node that was asked is the one that leaves: it may have ended before it could answer.
        hint = "`parvada nodes ls` on another node shows whether it is gone; if it is not, run this again there"
        raise Failure(f"{node.name} ended before it had answered", hint, RETRY) from error


def _say_left(node: Node, as_json: bool) -> None:
    if as_json:
        render.print_json({"id": node.id, "name": node.name, "removed": True})
    else:
        click.echo(LEFT.format(name=node.name), err=True)
