"""Progress on stderr: a live bar where a person looks, a few lines where a log looks, nothing on stdout."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from parvada.schema import Job

if TYPE_CHECKING:
    from rich.progress import Progress

LOG_STEP = 0.1
"""Without a terminal, a line is written each time another tenth is done."""


def _bars(*extra: str) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")))
    columns = [TextColumn("{task.description}"), BarColumn(bar_width=28), TaskProgressColumn()]
    return Progress(*columns, *(TextColumn(text) for text in extra), console=console, transient=True)


@contextmanager
def uploading(name: str) -> Iterator[Callable[[int, int], None]]:
    """A callback for `Client.upload`."""
    if not sys.stderr.isatty():
        yield lambda _sent, _size: None
        return
    from parvada.cli.render import size

    with _bars("{task.fields[note]}") as bars:
        task = bars.add_task(f"sending {name}", total=None, note="")

        def report(sent: int, total: int) -> None:
            note = "the node reads, checks and replicates it" if sent >= total else size(total)
            bars.update(task, completed=sent, total=total, note=note)

        yield report


def follow(jobs: Iterable[Job]) -> Job:
    """Show a job until it ends; returns it as it was at the end."""
    return _follow_on_terminal(jobs) if sys.stderr.isatty() else _follow_in_log(jobs)


def _follow_on_terminal(jobs: Iterable[Job]) -> Job:
    with _bars("{task.fields[note]}") as bars:
        task = bars.add_task("training", total=1.0, note="")
        last: Job | None = None
        for last in jobs:
            bars.update(task, completed=last.progress.fraction, note=_note(last), description=last.state)
        return _ended(last)


def _follow_in_log(jobs: Iterable[Job]) -> Job:
    last: Job | None = None
    told = -LOG_STEP
    for last in jobs:
        if last.progress.fraction - told >= LOG_STEP or last.state not in ("queued", "running"):
            told = last.progress.fraction
            click.echo(f"{last.id} {last.state} {last.progress.fraction:4.0%}  {_note(last)}", err=True)
    return _ended(last)


def _ended(job: Job | None) -> Job:
    if job is None:
        raise RuntimeError("the job was never seen")
    return job


def _note(job: Job) -> str:
    from parvada.cli.render import duration

    best = [f"{unit.dataset}: {unit.best_estimator} {unit.best_score:.4f}" for unit in job.per_dataset
            if unit.best_score is not None]  # fmt: skip
    eta = f"{duration(job.progress.eta_seconds)} left · " if job.progress.eta_seconds else ""
    resumed = f" · resumed {job.resumed}×" if job.resumed else ""
    done = f"{job.progress.fits_done}/{job.progress.fits_total} fits"
    return f"{eta}{done}{resumed}" + (f" · best {', '.join(best)}" if best else "")
