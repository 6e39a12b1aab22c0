"""`train`: start a job and watch it."""

from typing import Any

import click

from parvada.cli import render
from parvada.cli.exits import FAILED, INTERRUPTED, OK
from parvada.cli.jobs import print_units
from parvada.cli.progress import follow as follow_job
from parvada.cli.settings import Settings, as_json_option, connected
from parvada.schema import CvSpec, DatasetRef, JobSpec, LimitSpec, PublishSpec

FOLLOW_PATIENCE_SECONDS = 60.0
"""A job outlives its nodes' restarts, so the one who watches it waits for them too."""


@click.command(short_help="Train models on datasets.")
@click.argument("datasets", nargs=-1, required=True, metavar="DATASET…")
@click.option("--models", default="default", show_default=True, help="default, all, or a comma list of estimators.")
@click.option("--metric", default="auto", show_default=True, help="What decides which model is best.")
@click.option("--cv", "folds", type=click.IntRange(min=2), default=5, show_default=True, help="Folds.")
@click.option("--repeats", type=click.IntRange(min=1), default=1, show_default=True, help="Of the cross-validation.")
@click.option(
    "--holdout", type=click.FloatRange(0, 0.9), default=0.2, show_default=True, help="Share kept for the end."
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same scores.")
@click.option("--order", type=click.Choice(["parallel", "sequential"]), default="parallel", show_default=True)
@click.option("--name", default="", help="A name for the job.")
@click.option("--target", help="Column to predict, instead of the dataset's own.")
@click.option("--drop", multiple=True, metavar="COLUMN", help="Leave this column out; may be repeated.")
@click.option("--publish", type=click.Choice(["better", "always", "never"]), default="better", show_default=True)
@click.option("--model", default="{dataset}", show_default=True, help="Name of the published model.")
@click.option("--alias", default="production", show_default=True, help="Alias that a published model gets.")
@click.option("--job-seconds", type=float, default=3600.0, show_default=True, help="Limit for the whole job.")
@click.option("--follow/--no-follow", "follows", default=True, show_default=True, help="Watch it until it ends.")
@connected
@as_json_option
def train(settings: Settings, as_json: bool, follows: bool, **options: Any) -> None:
    """Train models on DATASETs (name, or name@version) in one job; the best is published.

    Prints the job's id, and the results when it has ended. Ctrl-C stops the watching, not the job.
    """
    with settings.client() as client:
        job = client.submit(_spec(options))
        if not as_json:
            click.echo(job.id)
        if follows:
            try:
                with settings.client(patience=FOLLOW_PATIENCE_SECONDS) as follower:
                    job = follow_job(follower.wait_for_job(job.id))
            except KeyboardInterrupt:
                click.echo(f"the job runs on: `parvada jobs show {job.id}`, `parvada jobs cancel {job.id}`", err=True)
                raise click.exceptions.Exit(INTERRUPTED) from None
    if as_json:
        render.print_json(job)
    elif follows:
        print_units(job)
        click.echo(f"next: parvada leaderboard {job.id}", err=True)
    raise click.exceptions.Exit(FAILED if job.state in ("failed", "cancelled") else OK)


def _spec(options: dict[str, Any]) -> JobSpec:
    models = options["models"]
    return JobSpec(
        datasets=[_reference(text, options["target"], list(options["drop"])) for text in options["datasets"]],
        name=options["name"],
        models=models if models in ("default", "all") else [name.strip() for name in models.split(",") if name.strip()],
        order=options["order"],
        metric=options["metric"],
        cv=CvSpec(folds=options["folds"], repeats=options["repeats"], holdout=options["holdout"]),
        limits=LimitSpec(job_seconds=options["job_seconds"]),
        seed=options["seed"],
        publish=PublishSpec(model=options["model"], alias=options["alias"], when=options["publish"]),
    )


def _reference(text: str, target: str | None, drop: list[str]) -> DatasetRef:
    name, _, version = text.partition("@")
    if version and not version.removeprefix("v").isdigit():
        raise click.UsageError(f"{text!r}: expected a dataset's name, or name@version")
    return DatasetRef(name=name, version=int(version.removeprefix("v")) if version else None, target=target, drop=drop)
