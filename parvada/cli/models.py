"""`predict` and `models`: using what was trained."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from parvada.cli import render
from parvada.cli.groups import CommandGroup
from parvada.cli.settings import Settings, as_json_option, connected
from parvada.names import folded
from parvada.schema import InputField, Model, PredictResponse


@click.command(short_help="Predict with a model.")
@click.argument("model")
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True),
              help="CSV with a header, JSON rows or JSON lines; - for CSV from standard input.")  # fmt: skip
@click.option("--row", "rows", multiple=True, metavar="JSON", help="One row as a JSON object; may be repeated.")
@click.option("--version", type=int, help="By default what the production alias says, else the newest.")
@click.option("--probabilities", is_flag=True, help="Print the class probabilities beside each prediction.")
@connected
@as_json_option
def predict(
    settings: Settings,
    as_json: bool,
    model: str,
    file: Path | None,
    rows: tuple[str, ...],
    version: int | None,
    probabilities: bool,
) -> None:
    """Predict with MODEL: one prediction a line, in the order of the rows."""
    if (file is None) == (not rows):
        raise click.UsageError("give the rows either by --file or by --row")
    found = _read(file) if file is not None else [_row(text) for text in rows]
    with settings.client(timeout=120.0) as client:
        answer = client.predict(model, found, version=version)
    if as_json:
        render.print_json(answer)
        return
    _print(answer, probabilities)
    click.echo(f"{answer.model} v{answer.version} ({answer.engine})", err=True)


def _print(answer: PredictResponse, probabilities: bool) -> None:
    shares = answer.probabilities if probabilities else None
    for number, prediction in enumerate(answer.predictions):
        text = prediction if isinstance(prediction, str) else json.dumps(prediction)
        if shares is not None:
            text += "\t" + "\t".join(f"{name}={share:.4f}" for name, share in shares[number].items())
        click.echo(text)


def _read(file: Path) -> list[dict[str, Any]] | bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read()
    content = file.read_bytes()
    if file.suffix in (".jsonl", ".ndjson"):
        return [_row(line) for line in content.decode().splitlines() if line.strip()]
    if file.suffix == ".json":
        rows = json.loads(content)
        return rows if isinstance(rows, list) else [rows]
    return content


def _row(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"{text!r} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise click.UsageError(f'{text!r} is not a row; expected an object like {{"column": value}}')
    return row


@click.group(cls=CommandGroup, short_help="List, show, promote and roll back models.")
def models() -> None:
    """List, show, promote and roll back models."""


@models.command("ls")
@connected
@as_json_option
def models_ls(settings: Settings, as_json: bool) -> None:
    """List the models."""
    with settings.client() as client:
        found = client.models()
    if as_json:
        render.print_json(found)
        return
    columns = ("name", "latest", "aliases", "task", "estimator", "metrics")
    render.print_table(columns, [_model_row(one) for one in found], "no models yet: `parvada train DATASET`")


def _model_row(one: Model) -> list[str]:
    aliases = ", ".join(f"{alias}→{version}" for alias, version in sorted(one.aliases.items())) or "–"
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in list(one.metrics.items())[:2]) or "–"
    return [one.name, str(one.latest), aliases, one.task, one.estimator, metrics]


@models.command()
@click.argument("model")
@click.option("--version", type=int, help="By default what production says, else the newest.")
@connected
@as_json_option
def show(settings: Settings, as_json: bool, model: str, version: int | None) -> None:
    """Show one version of a model."""
    with settings.client() as client:
        found = client.model(model)
        one = client.model_version(model, version or found.aliases.get("production") or found.latest)
        moves = client.alias_history(model) if "production" in found.aliases and not as_json else []
    if as_json:
        render.print_json(one)
        return
    render.print_facts(
        [
            ("model", f"{one.model} v{one.version}, {', '.join(one.aliases) or 'no alias'}"),
            ("versions", ", ".join(map(str, found.versions))),
            ("estimator", f"{one.estimator} {one.params or ''}".rstrip()),
            ("task", one.task),
            ("data", f"{one.dataset.name} v{one.dataset.version}"),
            ("job", f"{one.job}, candidate {one.candidate}"),
            ("engine", f"{one.engine} ({one.engine_reason})" if one.engine_reason else one.engine),
            ("size", f"{render.size(one.bytes)} on {len(one.holders)} nodes"),
            ("metrics", ", ".join(f"{name} {value:.4f}" for name, value in one.metrics.items()) or "–"),
            ("inputs", ", ".join(map(_input, one.signature.inputs))),
            ("ignores", ", ".join(map(folded, one.signature.ignored)) or "–"),
        ]
    )
    for move in moves[:5]:
        click.echo(f"{render.clock(move.at)}  {move.alias} {move.previous or '–'} → {move.version or '–'} by {move.by}")


def _input(field: InputField) -> str:
    return f"{folded(field.name)} ({field.type}{'' if field.required else ', optional'})"


@models.command()
@click.argument("model")
@click.argument("version", type=int)
@click.option("--alias", default="production", show_default=True)
@click.option("--comment", default="", help="Kept in the history.")
@connected
def promote(settings: Settings, model: str, version: int, alias: str, comment: str) -> None:
    """Point an alias at a version, on every node at once."""
    with settings.client() as client:
        change = client.promote(model, version, alias, comment=comment)
    click.echo(f"{model}: {change.alias} {change.previous or '–'} → {change.version}")


@models.command()
@click.argument("model")
@click.option("--alias", default="production", show_default=True)
@connected
def rollback(settings: Settings, model: str, alias: str) -> None:
    """Point an alias back at the version before."""
    with settings.client() as client:
        change = client.rollback(model, alias)
    click.echo(f"{model}: {change.alias} {change.previous or '–'} → {change.version or '–'}")
