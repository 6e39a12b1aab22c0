"""The command line. Commands live in modules that are imported when they are used, so that `--help` stays quick.

Data goes to stdout, everything else to stderr; the exit codes are an interface (see `parvada.cli.exits`).
"""

import os
import sys
from typing import TYPE_CHECKING

import click

from parvada import __version__
from parvada.cli.groups import CommandGroup

if TYPE_CHECKING:
    from parvada.cli.settings import Pace

# name -> (place, help line): the help of the group must not import the modules.
_COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("node.commands:up", "Run a whole flock as local processes."),
    "node": ("node.commands:node", "Run one node (what a container does); `node leave` takes it out."),
    "init": ("node.commands:init", "Make the cluster secret if there is none."),
    "health": ("parvada.cli.health:health", "Exit 0 if the node on this machine is ready."),
    "top": ("tui.commands:top", "Open the terminal UI."),
    "status": ("parvada.cli.cluster:status", "Show the cluster's health."),
    "nodes": ("parvada.cli.nodes:nodes", "List, drain and remove nodes."),
    "cluster": ("parvada.cli.cluster:cluster_group", "Rotate the secret; recover what lost its majority."),
    "events": ("parvada.cli.cluster:events", "Show what happens."),
    "data": ("parvada.cli.data:data", "Push, list, show and delete datasets."),
    "train": ("parvada.cli.train:train", "Train models on datasets."),
    "jobs": ("parvada.cli.jobs:jobs", "List, show, cancel, retry and delete training jobs."),
    "leaderboard": ("parvada.cli.jobs:leaderboard", "Show a job's models, best first."),
    "predict": ("parvada.cli.models:predict", "Predict with a model."),
    "models": ("parvada.cli.models:models", "List, show, promote and roll back models."),
    "token": ("parvada.cli.access:token", "Show, make and revoke tokens."),
}


class Parvada(CommandGroup):
    """All commands, in the order of the table, and their help without their modules."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of a pipe (`head`) has gone, which is no failure; the flush at exit must not complain either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(0) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(
    cls=Parvada,
    later={name: place for name, (place, _) in _COMMANDS.items()},
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="parvada %(version)s")
def group() -> None:
    """Parvada: a flock of identical nodes that trains models together and serves them from any of them.

    The node is found by itself in a container and beside a `parvada up`; else give --url or PARVADA_URL (a comma
    list). A token comes from --token-file, PARVADA_TOKEN, PARVADA_TOKEN_FILE, or the cluster secret if it is here.
    These options stand before or after the command; the last one counts.

    Exit codes: 0 ok, 1 failed, 2 usage, 3 unreachable (try again), 4 degraded, 5 no quorum, 130 interrupted.
    """


def main(arguments: list[str] | None = None, pace: "Pace | None" = None) -> int:
    """Run one command, in the time of `pace`; returns the process's exit code."""
    from parvada.cli.exits import guarded

    return guarded(lambda: group.main(args=arguments, prog_name="parvada", standalone_mode=False, obj=pace))


if __name__ == "__main__":
    sys.exit(main())
