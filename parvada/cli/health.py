"""`health`: for scripts; the container's own check is `parvada.health`."""

import click


@click.command(short_help="Exit 0 if the node on this machine is ready.")
def health() -> None:
    """Exit 0 if the node on this machine (PARVADA_PORT) is ready, else 1 with the reason."""
    from parvada.health import main

    raise click.exceptions.Exit(main())
