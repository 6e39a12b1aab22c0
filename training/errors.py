"""The errors of this package. A message says what was wrong, with which value, and what would be right."""

from collections.abc import Mapping

Details = Mapping[str, object]
"""JSON values only: they go into the `details` of the HTTP answer."""


MAX_REASON = 300
"""Characters of a failure's reason: some hundred of them must fit into one command."""


def plain(reason: str) -> str:
    """A reason as it can be recorded: what a library raised may be long, and hold what no UTF-8 has."""
    return reason[:MAX_REASON].encode(errors="replace").decode()


class TrainingError(Exception):
    """Root of the errors of this package."""


class InputError(TrainingError):
    """Something that a user gave cannot be used. `code` is snake_case; pickles, as it crosses processes."""

    def __init__(self, code: str, message: str, details: Details | None = None) -> None:
        super().__init__(code, message, details)
        self.code = code
        self.message = message
        self.details: Details = details or {}

    def __str__(self) -> str:
        return self.message


class BadData(InputError):
    """Data that parses but cannot be used, or does not parse: HTTP 422."""


class BadRequest(InputError):
    """A request with an invalid or unknown value: HTTP 400."""


class TaskFailed(TrainingError):
    """The function raised, or ran longer than its limit. Running it again would fail again."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class WorkerLost(TrainingError):
    """The process or node that ran the task is gone, through no known fault of the task: run it again."""


class NotStored(TrainingError):
    """The agent of a worker's node did not take a file, for a reason of its node's."""


class PoolBusy(TrainingError):
    """Too many calls are waiting for a process."""


class PoolClosed(TrainingError):
    """No process can be started: this machine's trouble, not the call's."""


class EpochLost(TrainingError):
    """This trainer's epoch is over, or its agent or Ray head is gone: the process must end (exit code 3)."""
