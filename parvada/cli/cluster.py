"""`status`, `cluster` and `events`: looking at the cluster, and mending it."""

from collections import deque

import click

from parvada.cli import render
from parvada.cli.exits import DEGRADED, NO_QUORUM, OK
from parvada.cli.groups import CommandGroup
from parvada.cli.nodes import print_nodes
from parvada.cli.rotation import rotate_secret
from parvada.cli.settings import Settings, as_json_option, connected
from parvada.schema import Cluster, EventRecord

INDEXES_A_LINE = 20
"""How far back in the log the wanted lines are looked for: many entries are no events."""


@click.command(short_help="Show the cluster's health.")
@connected
@as_json_option
@click.option("--watch", is_flag=True, help="Again every two seconds, until Ctrl-C.")
def status(settings: Settings, as_json: bool, watch: bool) -> None:
    """Show the cluster's health.

    Exits with 4 when a node is missing or there is an alarm, with 5 when there is no quorum.
    """
    with settings.client() as client:
        while True:
            cluster = client.status()
            if watch:
                click.clear()
            render.print_json(cluster) if as_json else _print_status(cluster, client.stale_seconds)
            if not watch:
                raise click.exceptions.Exit(verdict(cluster))
            settings.pace.sleep(2)


def verdict(cluster: Cluster) -> int:
    """The exit code that stands for a cluster's health."""
    if not cluster.quorum:
        return NO_QUORUM
    missing = any(node.state in ("suspect", "dead") for node in cluster.nodes)
    return DEGRADED if missing or cluster.alarms else OK


def _print_status(cluster: Cluster, stale: float | None) -> None:
    names = {node.id: node.name for node in cluster.nodes}
    health = {OK: "healthy", DEGRADED: "degraded", NO_QUORUM: "no quorum: writes wait, predictions go on"}
    colours = {OK: "green", DEGRADED: "yellow", NO_QUORUM: "red"}
    code = verdict(cluster)
    leader = names.get(cluster.leader or "", cluster.leader or "none")
    voters = f"{len(cluster.voters)} voters" + (f", {len(cluster.learners)} learners" if cluster.learners else "")
    ray = cluster.ray
    facts = [
        ("cluster", f"{cluster.name}  {click.style(health[code], fg=colours[code], bold=True)}"),
        ("raft", f"leader {leader} · term {cluster.term} · index {cluster.applied_index} · {voters}"),
        (
            "ray" if ray.mode == "ray" else "training",
            f"{render.state(ray.state)} · epoch {ray.epoch} · head {names.get(ray.head or '', 'none')} · "
            f"{len(ray.nodes)} nodes · {ray.cpus_used:g} of {ray.cpus:g} CPUs busy",
        ),
    ]
    if stale is not None:
        facts.append(("stale", f"this is what the node knew {render.duration(stale)} ago"))
    facts += [("alarm", click.style(f"{alarm.message} (since {render.age(alarm.since)})", fg="red"))
              for alarm in cluster.alarms]  # fmt: skip
    render.print_facts(facts)
    click.echo()
    print_nodes(cluster)


@click.group(
    "cluster",
    cls=CommandGroup,
    later={"recover": "node.commands:recover"},
    short_help="Rotate the secret; recover what lost its majority.",
)
def cluster_group() -> None:
    """What concerns the cluster as a whole."""


cluster_group.add_command(rotate_secret)


@click.command(short_help="Show what happens.")
@connected
@as_json_option
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--since", type=int, help="Begin after this log index.")
@click.option("--kind", help="Only events of this kind.")
@click.option("--lines", "-n", type=click.IntRange(min=1), default=50, show_default=True, help="At most; not with -f.")
def events(settings: Settings, as_json: bool, follow: bool, since: int | None, kind: str | None, lines: int) -> None:
    """Show what happens: one line an event, with --json one JSON object a line."""
    with settings.client() as client:
        if since is None:
            since = client.status().applied_index
            since = since if follow else max(0, since - lines * INDEXES_A_LINE)
        found = client.events(since, kind, follow=follow)
        for event in found if follow else deque(found, maxlen=lines):
            _print_event(event, as_json)


def _print_event(event: EventRecord, as_json: bool) -> None:
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(event).decode())
        return
    if event.kind == "resync":
        click.echo("what happened before is not remembered by this node", err=True)
        return
    detail = " ".join(f"{name}={value}" for name, value in event.detail.items())
    click.echo(f"{render.clock(event.at)}  {event.index:>8}  {event.kind}  {event.subject}  {detail}".rstrip())
