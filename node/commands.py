"""What of the command line starts, founds or mends nodes here, or reads their secret. It is loaded by name.

Each command imports what it runs when it is called: its help needs none of that.
"""

from pathlib import Path
from typing import IO

import click

from parvada.cli.exits import Failure
from parvada.cli.groups import CommandGroup, HandedDown, refuse_unused
from parvada.cli.settings import Settings, connected, no_secret

RECOVER_WARNING = """\
This makes node {me} a cluster of its own, with what it knows up to entry {index} of term {term}.
* Acknowledged writes that only the lost nodes had are gone. If more nodes than this one are left, recover the one with
  the highest term, and of these the one with the highest entry: without --yes this command shows both and asks.
* These members are removed for good, and must never be started again under their old ids (move their slots away):
{lost}
* Models and datasets whose files only the lost nodes had are listed, but cannot be read.
If a majority can come back, even later: start those nodes instead, and nothing is lost."""


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


@click.command()
@click.option(
    "--data",
    cls=HandedDown,
    type=click.Path(path_type=Path, file_okay=False),
    envvar="PARVADA_DATA",
    required=True,
)
@click.option("--slot", type=click.IntRange(1), envvar="PARVADA_SLOT", required=True, help="Of the stopped node.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def recover(data: Path, slot: int, yes: bool) -> None:
    """Go on with one node when the majority is lost for good. The node must be stopped."""
    from node.recover import RecoverError, Survivor

    try:
        with Survivor(data, slot) as survivor:
            plan = survivor.plan
            lost = "\n".join(f"    {node}" for node in plan.lost)
            click.echo(RECOVER_WARNING.format(me=survivor.me, index=plan.index, term=plan.term, lost=lost), err=True)
            if not yes:
                click.confirm("Recover?", abort=True, err=True)
            kept = survivor.recover()
            click.echo(f"cluster {survivor.cluster_id}: start the node, then join new ones; the old log is in {kept}")
    except RecoverError as error:
        raise Failure(str(error)) from error


@click.command()
@connected
def join(settings: Settings) -> None:
    """Print what a node on another host needs to join this cluster. It holds the secret: hand it over with care."""
    if settings.secret is None:
        raise no_secret(settings)
    from node.identity.ring import secret_in_use
    from node.identity.secret import encode_join_token

    with settings.client() as client:
        cluster_id = client.status().cluster_id
    click.echo(encode_join_token(cluster_id, secret_in_use(settings.secret, settings.data)))


def admin_token(secret: Path, data: Path | None) -> str:
    """The token that may do everything, of the secret in this file, or of the one that the nodes of `data` have now."""
    from node.identity import ring, secret as cluster_secret

    return cluster_secret.admin_token(ring.secret_in_use(secret, data))
