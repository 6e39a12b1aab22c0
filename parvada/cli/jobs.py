"""`jobs` and `leaderboard`: what was trained and how well."""

import click

from parvada._calls import ENDED
from parvada.cli import render
from parvada.cli.exits import Failure
from parvada.cli.groups import CommandGroup
from parvada.cli.settings import Settings, as_json_option, connected
from parvada.client import Client
from parvada.schema import Job, LeaderboardRow, UnitProgress

SHOWN_IDS = 5
COLUMNS = ("id", "name", "state", "done", "datasets", "best", "left", "made")


def resolve(client: Client, text: str) -> str:
    """The id of a job: `latest`, an id, or the beginning of one that no other job shares."""
    if text == "latest":
        newest = client.jobs(limit=1)
        if not newest:
            raise Failure("there are no jobs yet", "`parvada train DATASET` starts one")
        return newest[0].id
    found = [job.id for job in client.jobs(prefix=text, limit=SHOWN_IDS + 1) if job.id.startswith(text)]
    if text in found or not found:
        return text  # an unknown one is the node's to refuse, in its words
    if len(found) > 1:
        many = f"more than {SHOWN_IDS}" if len(found) > SHOWN_IDS else str(len(found))
        raise Failure(f"{text!r} begins {many} ids", f"give more of one: {', '.join(found[:SHOWN_IDS])}")
    return found[0]


@click.group(cls=CommandGroup, short_help="List, show, cancel, retry and delete training jobs.")
def jobs() -> None:
    """List, show, cancel, retry and delete training jobs. JOB is an id, the beginning of one, or `latest`."""


@jobs.command("ls")
@click.option("--state", type=click.Choice(["queued", "running", "succeeded", "failed", "cancelled"]))
@click.option("--limit", type=click.IntRange(min=1), help="Only the newest so many.")
@connected
@as_json_option
def jobs_ls(settings: Settings, as_json: bool, state: str | None, limit: int | None) -> None:
    """List the jobs, newest first."""
    with settings.client() as client:
        found = client.jobs(state, limit=limit)
    if as_json:
        render.print_json(found)
    else:
        render.print_table(COLUMNS, [_row(job) for job in found], "no jobs yet: `parvada train DATASET`")


def _row(job: Job) -> list[str]:
    best = max((unit for unit in job.per_dataset if unit.best_score is not None),
               key=lambda unit: unit.best_score or 0.0, default=None)  # fmt: skip
    return [
        job.id,
        job.name or "–",
        render.state(job.state),
        f"{job.progress.fraction:.0%}",
        ",".join(unit.dataset for unit in job.per_dataset),
        f"{best.best_estimator} {best.best_score:.4f}" if best else "–",
        render.duration(job.progress.eta_seconds) if job.state == "running" else "–",
        render.age(job.created_at),
    ]


@jobs.command()
@click.argument("job")
@connected
@as_json_option
def show(settings: Settings, as_json: bool, job: str) -> None:
    """Show a job."""
    with settings.client() as client:
        found = client.job(resolve(client, job))
    if as_json:
        render.print_json(found)
        return
    done = found.progress
    facts = [
        ("job", f"{found.id} {found.name}".rstrip()),
        ("state", render.state(found.state) + (f": {found.error}" if found.error else "")),
        ("done", f"{done.fraction:.0%}: {done.fits_done} of {done.fits_total} fits, {done.fits_failed} failed"),
        ("made", f"{render.age(found.created_at)} by {found.created_by or 'unknown'}"),
        ("epochs", f"{', '.join(map(str, found.epochs)) or '–'} (resumed {found.resumed} times)"),
    ]
    render.print_facts(facts)
    click.echo()
    print_units(found)


def print_units(job: Job) -> None:
    """The result for each dataset of a job."""
    render.print_table(
        ("dataset", "state", "best", "metric", "score", "published"), [_unit(u) for u in job.per_dataset]
    )
    for unit in job.per_dataset:
        for line in [*unit.notes, *([f"{unit.dataset}: {unit.error}"] if unit.error else [])]:
            click.echo(f"note: {line}", err=True)


def _unit(unit: UnitProgress) -> list[str]:
    published = f"{unit.model} v{unit.model_version}" if unit.model and unit.model_version else "–"
    return [
        f"{unit.dataset} v{unit.version}",
        render.state(unit.state),
        unit.best_estimator or "–",
        unit.metric,
        render.number(unit.best_score),
        published,
    ]


@jobs.command()
@click.argument("job")
@connected
def cancel(settings: Settings, job: str) -> None:
    """Stop a job; what it finished stays."""
    with settings.client() as client:
        click.echo(client.cancel(resolve(client, job)).state)


@jobs.command()
@click.argument("job")
@connected
def retry(settings: Settings, job: str) -> None:
    """Run the failed part of a job again."""
    with settings.client() as client:
        click.echo(client.retry(resolve(client, job)).id)


@jobs.command()
@click.argument("job")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected
def delete(settings: Settings, job: str, yes: bool) -> None:
    """Delete a job that has ended, with its leaderboard; models that it made stay."""
    with settings.client() as client:
        found = client.job(resolve(client, job))
        name = found.id
        if found.state not in ENDED:
            raise Failure(f"job {name} is {found.state}", f"`parvada jobs cancel {name}` ends it")
        if not yes:
            click.confirm(f"Delete job {name} and its leaderboard?", abort=True, err=True)
        client.delete_job(name)
        click.echo(f"deleted job {name}")


@click.command(short_help="Show a job's models, best first.")
@click.argument("job")
@click.option("--dataset", help="Only this dataset of the job.")
@connected
@as_json_option
def leaderboard(settings: Settings, as_json: bool, job: str, dataset: str | None) -> None:
    """Show the models of JOB (an id, its beginning, or `latest`), best first, also those that failed."""
    with settings.client() as client:
        board = client.leaderboard(resolve(client, job), dataset)
    if as_json:
        render.print_json(board)
        return
    metric = board.rows[0].metric if board.rows else "score"
    columns = ("rank", "dataset", "estimator", metric, "±", "holdout", "fit", "predict", "state", "")
    render.print_table(columns, [_board_row(row) for row in board.rows], f"job {board.job} has no candidates yet")
    for note in board.notes:
        click.echo(f"note: {note}", err=True)


def _board_row(row: LeaderboardRow) -> list[str]:
    predict = "–" if row.predict_us_per_row is None else f"{row.predict_us_per_row:.1f} µs/row"
    note = row.reason or (f"→ {row.model} v{row.version}" if row.model and row.version else "")
    return [
        str(row.rank or "–"),
        row.dataset,
        row.estimator,
        render.number(row.cv_mean),
        render.number(row.cv_std),
        render.number(row.holdout.get(row.metric)),
        render.duration(row.fit_seconds),
        predict,
        render.state(row.state),
        note[:100],
    ]
