"""`up`, `node`, `init`, `health` and `top`: what starts something. The node and the TUI are imported here, late."""

import sys
from pathlib import Path
from typing import IO

import click

from parvada.cli.exits import Failure
from parvada.cli.groups import CommandGroup, HandedDown, refuse_unused
from parvada.cli.settings import Settings, connected


@click.command(short_help="Run a whole flock as local processes.")
@click.option("--nodes", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Of the first node.")
@click.option(
    "--data",
    cls=HandedDown,
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".parvada"),
    show_default=True,
)
@click.option("--no-ray", is_flag=True, help="Train in the nodes' own processes, for small machines.")
@click.option("--no-restart", is_flag=True, help="Leave a node that dies dead.")
@click.option(
    "--restart-after",
    type=click.FloatRange(0, 3600),
    default=3.0,
    show_default=True,
    help="Seconds until a node that died is started again.",
)
def up(nodes: int, port: int, data: Path, no_ray: bool, no_restart: bool, restart_after: float) -> None:
    """Run a whole flock as local processes, until Ctrl-C; the same code as in containers."""
    from node.up import UpError, UpOptions, run

    try:
        code = run(UpOptions(nodes, port, data, not no_ray, not no_restart, restart_after))
    except UpError as error:
        raise Failure(str(error)) from error
    raise click.exceptions.Exit(code)


class NodeGroup(CommandGroup):
    """What `nodes` has for a single node, under `node` too: there the node is that of this machine."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["drain", "leave", "remove", "undrain"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from parvada.cli.nodes import nodes

        return nodes.commands[cmd_name] if cmd_name in self.list_commands(ctx) else None


@click.group(cls=NodeGroup, invoke_without_command=True, short_help="Run one node (what a container does).")
@click.pass_context
def node(context: click.Context) -> None:
    """Run one node in the foreground, configured by PARVADA_ variables (see node/config.py)."""
    if context.invoked_subcommand is not None:
        return
    refuse_unused(context, "node", ())
    from parvada._startup import cheap_imports

    with cheap_imports():
        from node.agent import main
        from node.joining.slot import SlotError

    try:
        code = main()
    except SlotError as error:
        raise Failure(str(error)) from error
    raise click.exceptions.Exit(code)


@click.command(short_help="Make the cluster secret if there is none.")
@click.option(
    "--data",
    cls=HandedDown,
    type=click.Path(path_type=Path, file_okay=False),
    envvar="PARVADA_DATA",
    required=True,
)
@click.option("--join", type=click.File("r"), metavar="FILE", help="Take the secret of this join token ('-': stdin).")
def init(data: Path, join: IO[str] | None) -> None:
    """Make the cluster secret in the data folder if there is none, readable by its owner alone.

    With --join it is that of the cluster whose `parvada token join` made the token, also in the place of an old one.
    """
    from node.files import write_atomically
    from node.identity.secret import decode_join_token, load_secret, make_secret

    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    data.chmod(0o700)
    path = data / "secret"
    if join is not None:
        token = decode_join_token(join.read(4096))
        write_atomically(path, token.secret.hex().encode() + b"\n")
        click.echo(f"the secret of cluster {token.cluster_id} is at {path}", err=True)
        return
    try:
        make_secret(path)
        click.echo(f"made a new cluster secret at {path}", err=True)
    except FileExistsError:
        path.chmod(0o600)
        load_secret(path)
        click.echo(f"the cluster secret at {path} stays as it is", err=True)


@click.command(short_help="Exit 0 if the node on this machine is ready.")
def health() -> None:
    """Exit 0 if the node on this machine (PARVADA_PORT) is ready, else 1 with the reason."""
    from parvada.health import main

    raise click.exceptions.Exit(main())


@click.command(short_help="Open the terminal UI.")
@click.option("--interval", type=click.FloatRange(0.5, 60), default=2.0, show_default=True, help="Seconds.")
@connected
def top(settings: Settings, interval: float) -> None:
    """Open the terminal UI: nodes, leader, Ray, jobs and events, live. It moves to another node by itself."""
    if not sys.stdout.isatty():
        raise Failure("the terminal UI needs a terminal", "`parvada status --watch` works without one")
    from tui.app import TopOptions, run

    run(TopOptions(urls=settings.urls, token=settings.token or settings.derived_token, interval=interval))
