"""Groups of commands: the connection's options stand before or after any command, and usual commands have their other
names too."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from parvada.cli.later import loaded

F = TypeVar("F", bound=Callable[..., Any])

SYNONYMS = (("ls", "list"), ("rm", "remove", "delete"))


class HandedDown(click.Option):
    """An option that may be given at any level of the command line; the last one given wins."""

    def consume_value(self, ctx: click.Context, opts: Any) -> tuple[Any, ParameterSource]:
        value, source = super().consume_value(ctx, opts)
        if source is not ParameterSource.COMMANDLINE and _key(self.name) in ctx.meta:
            return ctx.meta[_key(self.name)], ParameterSource.COMMANDLINE
        return value, source


def _key(name: str | None) -> str:
    return f"{__name__}.{name}"


_DECLARED: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "url": (("--url",), {"multiple": True, "metavar": "URL", "help": "Base URL of a node; repeat it to fail over."}),
    "token_file": (("--token-file",), {"type": click.Path(dir_okay=False), "help": "File with an API token."}),
    "data": (("--data",), {"type": click.Path(file_okay=False), "help": "Data folder of local nodes."}),
}


def connection_options(command: F) -> F:
    """`--url`, `--token-file` and `--data`: the command receives url, token_file and data."""
    wrapped = command
    for names, settings in reversed(_DECLARED.values()):
        wrapped = click.option(*names, cls=HandedDown, **settings)(wrapped)
    return wrapped


def refuse_unused(context: click.Context, command: str, taken: Collection[str]) -> None:
    """Raises UsageError for an option of the connection that was given before a command that has no use for it."""
    for name, (names, _) in _DECLARED.items():
        if _key(name) in context.meta and name not in taken:
            raise click.UsageError(f"{names[0]} has no meaning for {command!r}", context)


class CommandGroup(click.Group):
    """Takes the connection's options itself, for the command that follows, and finds commands by their synonyms.

    Its commands are those that are added to it, and those in `later`, by name, which are imported when they are used.
    """

    def __init__(self, *args: Any, later: Mapping[str, str] | None = None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._later = later or {}
        self.params += [
            HandedDown(names, expose_value=False, callback=_hand_down, **more) for names, more in _DECLARED.values()
        ]

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self._later])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._later:
            return super().get_command(ctx, cmd_name)
        command: click.Command = loaded(self._later[cmd_name])
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        try:
            name, command, rest = super().resolve_command(ctx, [_own_name(args[0], known), *args[1:]])
        except click.UsageError as error:
            from parvada.nearest import nearest

            near = nearest(args[0], known)
            if near is not None:
                raise click.UsageError(f"{error.message} Did you mean {near!r}?", ctx) from error
            raise
        if command is not None and not isinstance(command, click.Group):
            refuse_unused(ctx, name or "", [parameter.name or "" for parameter in command.params])
        return name, command, rest


def _hand_down(context: click.Context, option: click.Parameter, value: Any) -> None:
    if value:
        context.meta[_key(option.name)] = value


def _own_name(name: str, known: Collection[str]) -> str:
    """What the group calls the command that a synonym means."""
    if name in known:
        return name
    return next((own for alike in SYNONYMS if name in alike for own in alike if own in known), name)
