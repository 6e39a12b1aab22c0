"""The running and waiting jobs: a bar for each dataset, what is left, and the best model so far."""

from typing import NamedTuple

from rich.text import Text

from parvada.schema import Job, UnitProgress
from tui.text import Palette, bar, brief, clip
from tui.widgets.panel import Panel

_LEFT_OUT = ("Classifier", "Regressor")


class JobsPanel(Panel):
    """Given the jobs that have not ended; None before the first picture."""

    jobs: tuple[Job, ...] | None = None

    def show(self, jobs: tuple[Job, ...]) -> None:
        self.jobs = jobs
        self.redraw()

    def draw(self) -> Text:
        p = self.palette
        if self.jobs is None:
            return Text("waiting for the first answer…", style=p.dim)
        if not self.jobs:
            return Text.assemble(
                ("No job is running.\n", p.dim),
                ("Start one: ", p.dim),
                ("parvada train DATASET", p.accent),
                (" after ", p.dim),
                ("parvada data push FILE", p.accent),
            )
        columns = _columns(self.jobs, self.inner_width)
        return Text("\n").join(_block(job, self.inner_width, columns, p) for job in self.jobs)


class _Columns(NamedTuple):
    """Cells for a dataset's name, its bar, and its best model; the same for all jobs, so that the eye can compare."""

    name: int
    bar: int
    best: int


def _columns(jobs: tuple[Job, ...], width: int) -> _Columns:
    units = [unit for job in jobs for unit in job.per_dataset]
    name = min(max((len(unit.dataset) for unit in units), default=0), 14)
    best = min(max((len(_best(unit)) for unit in units), default=0), 28, max(0, width - name - 20))
    return _Columns(name, max(4, min(48, width - name - best - 9)), best)


def _block(job: Job, width: int, columns: _Columns, p: Palette) -> Text:
    return Text("\n").join([_title(job, width, p), *(_unit(unit, columns, p) for unit in job.per_dataset)])


def _title(job: Job, width: int, p: Palette) -> Text:
    done = job.progress
    left = Text.assemble((job.name or "job", "bold"), (f"  {job.id}", p.dim))
    parts = [Text("queued", style=p.warn)] if job.state == "queued" else [Text(f"{brief(done.eta_seconds)} left")]
    # In the order in which they are worth their room.
    if job.resumed:
        parts.append(Text(f"resumed {job.resumed}× · ", style=p.second))
    if done.fits_failed:
        parts.append(Text(f"{done.fits_failed} failed · ", style=p.bad))
    if job.state != "queued":
        parts.append(Text(f"{done.fits_done}/{done.fits_total} fits · ", style=p.dim))
    right = Text()
    for part in parts:
        if left.cell_len + part.cell_len + right.cell_len + 2 <= width:
            right = Text.assemble(part, right)
    line = Text.assemble(left, " " * max(1, width - left.cell_len - right.cell_len), right)
    line.truncate(width, overflow="ellipsis")
    return line


def _unit(unit: UnitProgress, columns: _Columns, p: Palette) -> Text:
    colour = p.bad if unit.state == "failed" else p.good if unit.state == "done" else p.accent
    line = Text.assemble((clip(unit.dataset, columns.name).ljust(columns.name), p.text), " ", no_wrap=True)
    line.append_text(bar(unit.progress.fraction, columns.bar, colour, p.faint))
    line.append(f" {unit.progress.fraction:4.0%}", style=colour)
    if columns.best:
        line.append("  ").append(clip(_best(unit), columns.best), style=p.bad if unit.state == "failed" else p.second)
    return line


def _best(unit: UnitProgress) -> str:
    if unit.state == "failed":
        return unit.error or "failed"
    if unit.best_score is None:
        return ""
    name = unit.best_estimator or ""
    for word in _LEFT_OUT:
        name = name.removesuffix(word)
    return f"{unit.best_score:.3f} {name}"
