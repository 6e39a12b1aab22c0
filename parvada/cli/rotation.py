"""`cluster rotate-secret`: a new cluster secret for all nodes, while they go on."""

import click

from parvada import errors
from parvada.cli import render
from parvada.cli.exits import RETRY, Failure
from parvada.cli.settings import Settings, as_json_option, connected
from parvada.schema import SecretRotation

LOOK_SECONDS = 0.5
DOES = {
    "prepare": "every node gets the new secret and trusts both",
    "present": "every node shows certificates of the new secret",
    "retire": "every node forgets the old secret",
    "settled": "no rotation is under way",
}
WARNING = """\
The new secret is handed to these members; remove those that you do not know first (`parvada nodes remove`):
{members}
With the old secret ends the admin token that follows from it, and every running fold of a job starts again."""
DONE = """\
generation {generation} of the cluster secret is in force; the old one opens nothing any more.
* The admin token is another one: `parvada token show`. Tokens made by `parvada token create` stay good.
* Secret files that were given by PARVADA_SECRET_FILE, and copies on other machines, are yours to replace:
  `parvada token join` prints what `parvada init --join` takes. Until then these nodes keep it in their slots."""
LEFT_OUT = "{names} did not get the new secret: `parvada token join` prints what `parvada init --join` takes there"


@click.command("rotate-secret", short_help="Replace the cluster secret on all nodes, while they run.")
@click.option(
    "--without", multiple=True, metavar="NODE", help="Wait for this node no longer; it needs the secret by hand."
)
@click.option("--abandon", is_flag=True, help="Back to the old secret: while no node shows the new one yet.")
@click.option("--status", "look", is_flag=True, help="Only show how far it is.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--timeout", type=click.FloatRange(0), default=300.0, show_default=True, help="Seconds to wait for its end."
)
@connected
@as_json_option
def rotate_secret(
    settings: Settings,
    without: tuple[str, ...],
    abandon: bool,
    look: bool,
    yes: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Replace the cluster secret on all nodes, while they run, and wait until the old one is worth nothing.

    When it is interrupted the rotation goes on: run this again to wait for its end.
    """
    with settings.client() as client:
        if look:
            _show(client.rotation(), as_json)
            return
        if abandon:
            _show(client.abandon_rotation(), as_json)
            return
        found = client.rotation()
        if found.phase == "settled":
            _ask(found, yes)
            client.rotate_secret()
        for node in without:
            client.excuse_node(node)
    done = _finished(settings, found.generation, timeout)
    if as_json:
        render.print_json(done)
        return
    click.echo(DONE.format(generation=done.generation), err=True)
    if left := [node.name for node in done.nodes if node.excused]:
        click.echo(LEFT_OUT.format(names=", ".join(left)), err=True)


def _ask(found: SecretRotation, yes: bool) -> None:
    if not yes:
        members = "\n".join(f"    {node.name}  {node.id[:12]}  {node.state}" for node in found.nodes)
        click.echo(WARNING.format(members=members), err=True)
        click.confirm("Rotate the secret?", abort=True, err=True)


def _finished(settings: Settings, generation: int, timeout: float) -> SecretRotation:
    """Once the generation after this one is settled; says how it gets on."""
    pace = settings.pace
    deadline, said, begun = pace.clock() + timeout, "", False
    while True:
        found = _look(settings)
        if found is not None and found.phase == "settled":
            if found.generation > generation:
                return found
            if begun:  # a node that lags behind may not have heard of it yet
                raise Failure("the rotation was abandoned: the old secret stays in force")
        begun = begun or (found is not None and found.phase != "settled")
        line = _line(found) if found is not None and begun else said
        if line != said:
            click.echo(line, err=True)
            said = line
        if pace.clock() >= deadline:
            hint = "it goes on as soon as these nodes run; to go on without one: --without NODE"
            raise Failure(f"not finished in {timeout:g} s: {said}", hint, RETRY)
        pace.sleep(LOOK_SECONDS)


def _look(settings: Settings) -> SecretRotation | None:
    """Anew each time: the admin token follows from the secret, which is replaced meanwhile. None while the file here
    and the node that answered are not of one mind."""
    try:
        with settings.client() as client:
            return client.rotation()
    except errors.Unauthorized:
        if settings.token is None:
            return None
        raise


def _line(found: SecretRotation) -> str:
    waiting = [node.name if node.state == "alive" else f"{node.name} ({node.state})"
               for node in found.nodes if not node.done and not node.excused]  # fmt: skip
    return f"{found.phase}: {DOES[found.phase]}; waiting for {', '.join(waiting) or 'nobody'}"


def _show(found: SecretRotation, as_json: bool) -> None:
    if as_json:
        render.print_json(found)
        return
    settled = found.phase == "settled"
    click.echo(f"generation {found.generation} is in force. {DOES['settled'] if settled else _line(found)}")
