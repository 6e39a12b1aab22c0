"""`token`: who may do what."""

import click

from parvada.bearer import ROLES
from parvada.cli import render
from parvada.cli.groups import CommandGroup
from parvada.cli.settings import Settings, as_json_option, connected, no_secret


@click.group(cls=CommandGroup, later={"join": "node.commands:join"}, short_help="Show, make and revoke tokens.")
def token() -> None:
    """Show, make and revoke tokens."""


@token.command()
@connected
def show(settings: Settings) -> None:
    """Print the admin token; works where the cluster secret may be read, also without a running node."""
    found = settings.derived_token()
    if found is None:
        raise no_secret(settings)
    click.echo(found)


@token.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(ROLES),
    default="operator",
    show_default=True,
    help="Each role includes those before it.",
)
@connected
@as_json_option
def create(settings: Settings, as_json: bool, name: str, role: str) -> None:
    """Make a token for NAME and print it; it cannot be printed again."""
    with settings.client() as client:
        made = client.create_token(name, role)  # type: ignore[arg-type]  # click.Choice checked it
    if as_json:
        render.print_json(made)
    else:
        click.echo(made.token)
        click.echo(f"{made.id}: {made.role} {made.name!r}; keep the text, it is not stored", err=True)


@token.command("ls")
@connected
@as_json_option
def token_ls(settings: Settings, as_json: bool) -> None:
    """List the tokens, without their text."""
    with settings.client() as client:
        found = client.tokens()
    if as_json:
        render.print_json(found)
        return
    rows = [[one.id, one.name, one.role, render.age(one.created_at)] for one in found]
    render.print_table(("id", "name", "role", "made"), rows, "no tokens but the admin's")


@token.command()
@click.argument("token_id")
@connected
def revoke(settings: Settings, token_id: str) -> None:
    """Make a token worthless at once."""
    with settings.client() as client:
        client.revoke_token(token_id)
