"""`data`: datasets in and out."""

import sys
from pathlib import Path

import click

from parvada._calls import DownloadFormat
from parvada.cli import render
from parvada.cli.groups import CommandGroup
from parvada.cli.progress import uploading
from parvada.cli.settings import Settings, as_json_option, connected
from parvada.names import folded
from parvada.schema import Column, Dataset

COLUMNS = ("name", "version", "rows", "columns", "size", "target", "task", "copies", "made")
RANGE_WIDTH = 40
CATEGORIES = RANGE_WIDTH // 2
"""As many as fit: a letter and a comma each."""


@click.group(cls=CommandGroup, short_help="Push, list, show and delete datasets.")
def data() -> None:
    """Push, list, show and delete datasets."""


@data.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True))
@click.option("--name", help="Name of the dataset; by default the file's, without its ending.")
@click.option("--target", help="Column to predict; by default the last one.")
@click.option("--task", type=click.Choice(["binary", "multiclass", "regression"]), help="By default as the target is.")
@click.option("--weight", help="Column with row weights.")
@click.option("--group", help="Column whose equal rows stay in one fold.")
@click.option("--drop", multiple=True, metavar="COLUMN", help="Leave this column out; may be repeated.")
@click.option("--format", "kind", help="csv, tsv, parquet, jsonl, json or arrow; by default as the file looks.")
@click.option(
    "--type", "types", multiple=True, metavar="COLUMN:TYPE", help="E.g. zip:category, when:datetime[%d/%m/%Y]."
)
@click.option("--missing", multiple=True, metavar="TEXT", help="Stands for a missing value, not NA and its like.")
@click.option("--decimal", type=click.Choice([".", ","]), help="By default as the numbers look.")
@click.option("--separator", help="The character between two cells; by default as the file looks.")
@click.option("--encoding", help="Of a text file that is not in UTF-8, e.g. latin-1.")
@click.option("--header", type=click.Choice(["first", "none"]), help="none: the first line is data.")
@connected
@as_json_option
def push(
    settings: Settings,
    as_json: bool,
    file: Path,
    name: str | None,
    target: str | None,
    task: str | None,
    weight: str | None,
    group: str | None,
    drop: tuple[str, ...],
    kind: str | None,
    types: tuple[str, ...],
    missing: tuple[str, ...],
    decimal: str | None,
    separator: str | None,
    encoding: str | None,
    header: str | None,
) -> None:
    """Send FILE (- for standard input) as a new version of a dataset. Equal content makes no new version."""
    if str(file) == "-" and not name:
        raise click.UsageError("data from standard input needs a --name")
    name = name or file.name.partition(".")[0]
    source = sys.stdin.buffer if str(file) == "-" else file
    with settings.client() as client, uploading(name) as progress:
        made = client.upload(
            name, source, target=target, task=task, weight=weight, group=group, drop=drop, format=kind, types=types,
            missing=[text for text in missing if text] if missing else None, decimal=decimal, separator=separator,
            encoding=encoding, header=header, progress=progress,
        )  # fmt: skip
    if as_json:
        render.print_json(made)
        return
    click.echo(f"{made.name} v{made.version}: {made.rows} rows, target {made.target!r} ({made.task})")
    if made.dropped_rows:
        click.echo(f"left out {made.dropped_rows} rows without a target", err=True)
    _print_notes(made)
    click.echo(f"next: parvada train {made.name}", err=True)


@data.command("ls")
@connected
@as_json_option
def data_ls(settings: Settings, as_json: bool) -> None:
    """List the datasets."""
    with settings.client() as client:
        found = client.datasets()
    if as_json:
        render.print_json(found)
    else:
        empty = "no datasets yet: `parvada data push FILE`"
        render.print_table(COLUMNS, [_row(one) for one in found], empty)


def _row(one: Dataset) -> list[str]:
    copies = min((len(holders) for holders in one.holders.values()), default=0)
    shape = [str(one.version), str(one.rows), str(len(one.columns)), render.size(one.bytes)]
    return [one.name, *shape, folded(one.target), one.task, str(copies), render.age(one.created_at)]


@data.command()
@click.argument("name")
@click.option("--version", type=int)
@connected
@as_json_option
def show(settings: Settings, as_json: bool, name: str, version: int | None) -> None:
    """Show a dataset and its columns."""
    with settings.client() as client:
        one = client.dataset(name, version)
    if as_json:
        render.print_json(one)
        return
    render.print_facts(
        [
            ("dataset", f"{one.name} v{one.version} (known: {_numbers(one.versions or [one.version])})"),
            ("digest", one.digest),
            ("rows", f"{one.rows} ({render.size(one.bytes)}, in parts: {one.parts})"),
            ("target", f"{one.target} ({one.task})"),
            ("made", f"{render.age(one.created_at)} by {one.created_by}"),
        ]
    )
    click.echo()
    rows = [
        [folded(col.name), col.type, str(col.missing), str(col.distinct), _range(col), _text(col.mean, "number")]
        for col in one.columns
    ]
    render.print_table(("column", "type", "missing", "distinct", "range", "mean"), rows)
    _print_notes(one)


def _print_notes(one: Dataset) -> None:
    for note in one.notes:
        click.echo(f"note: {note.message}", err=True)


def _numbers(versions: list[int]) -> str:
    return ", ".join(map(str, versions))


def _range(column: Column) -> str:
    """From the least value to the greatest, or the first categories."""
    if column.min is not None:
        low, high = _text(column.min, column.type), _text(column.max, column.type)
        return low if low == high else f"{low} … {high}"
    first = (str(one).lower() if isinstance(one, bool) else str(one) for one in (column.categories or [])[:CATEGORIES])
    shown = folded(", ".join(first)) or "–"
    return shown if len(shown) <= RANGE_WIDTH else f"{shown[: RANGE_WIDTH - 1]}…"


def _text(value: float | str | None, kind: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):  # a time in UTC
        return value.removesuffix("+00:00").removesuffix("T00:00:00").replace("T", " ")
    return f"{value:.0f}" if kind == "integer" else f"{value:g}"


@data.command("get")
@click.argument("name")
@click.option("--version", type=int, help="By default the newest.")
@click.option("--format", "kind", type=click.Choice(["parquet", "csv"]), default="parquet", show_default=True)
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="By default NAME.parquet here.")
@click.option("--force", is_flag=True, help="Overwrite the file if it is there.")
@connected
def get(
    settings: Settings, name: str, version: int | None, kind: DownloadFormat, output: Path | None, force: bool
) -> None:
    """Write a dataset to a file. Parquet keeps every type; in CSV texts are quoted, and nothing else is."""
    to = output or Path(f"{name}.{kind}")
    if to.exists() and not force:
        raise click.UsageError(f"{to} is there already: --force overwrites it, --output names another file")
    with settings.client() as client:
        client.download(name, to, version=version, format=kind)
    click.echo(f"{to}: {render.size(to.stat().st_size)}", err=True)


@data.command("rm")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected
def remove(settings: Settings, name: str, yes: bool) -> None:
    """Delete all versions of a dataset."""
    if not yes:
        click.confirm(f"Delete all versions of {name}?", abort=True, err=True)
    with settings.client() as client:
        client.delete_dataset(name)
