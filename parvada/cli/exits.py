"""Exit codes, and what a person is told when a command fails: what was wrong and what to do now."""

from collections.abc import Callable

import click

from parvada import errors

OK, FAILED, USAGE, RETRY, DEGRADED, NO_QUORUM, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130


class Failure(Exception):
    """Ends a command with a message, a next step and an exit code."""

    def __init__(self, message: str, hint: str = "", code: int = FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


# The first that fits: (error, exit code, what to do).
_TABLE: tuple[tuple[type[errors.ParvadaError], int, str], ...] = (
    (errors.NoQuorum, NO_QUORUM, "reads and predictions go on; `parvada status` shows which nodes to start again"),
    (errors.Unreachable, RETRY, "start a node (`parvada up`), or say where one is: --url or PARVADA_URL"),
    (errors.Overloaded, RETRY, "try again in a moment"),
    (errors.Unavailable, RETRY, "try again in a moment"),
    (errors.Unauthorized, FAILED, "give a token by --token-file or PARVADA_TOKEN; `parvada token show` prints one"),
    (errors.Forbidden, FAILED, "use a token with a higher role; an admin makes one by `parvada token create`"),
    (errors.BadAnswer, FAILED, "check --url: does something else listen there?"),
    (errors.ServerFault, FAILED, "the node's log says more"),
)


def guarded(run: Callable[[], object]) -> int:
    """Run a command; every failure ends as a message on stderr and an exit code, never as a trace."""
    try:
        result = run()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:
        return _said("interrupted", "", INTERRUPTED)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        return _said("interrupted", "", INTERRUPTED)
    except Failure as error:
        return _said(str(error), error.hint, error.code)
    except errors.ParvadaError as error:
        return _said(*describe(error))
    except (OSError, ValueError) as error:
        return _said(str(error), "", FAILED)
    return result if isinstance(result, int) else OK


def describe(error: errors.ParvadaError) -> tuple[str, str, int]:
    """(message, next step, exit code) for an error of the client."""
    for kind, code, hint in _TABLE:
        if isinstance(error, kind):
            return str(error), hint, code
    return str(error), "", FAILED


def _said(message: str, hint: str, code: int) -> int:
    click.echo(f"parvada: {message}", err=True)
    if hint:
        click.echo(f"  → {hint}", err=True)
    return code
