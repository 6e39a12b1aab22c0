"""Datasets as they are kept: Parquet parts on several nodes, shown, given back as one file, deleted."""

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
from aiohttp import web

from consensus import state as facts
from consensus.messages import DeleteDataset
from consensus.queries import current_version
from node.blobs.room import Purpose
from node.http import views
from node.http.errors import Refusal, unknown
from node.http.params import version_of
from node.http.routes import Route, answer, commit, ports_of, route, was_done
from node.http.uploads import TABLE, work_folder
from parvada import schema
from parvada.contract.kinds import Freshness, said
from parvada.contract.operation import Answer

PREVIEW = "training.export:preview"
TO_CSV, TO_PARQUET = "training.export:to_csv", "training.export:to_parquet"
CHUNK_BYTES = 1024 * 1024
_GIVEN = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


def _found(request: web.Request) -> facts.DatasetVersion:
    name, state = request.match_info["dataset"], ports_of(request).log.state
    if name not in state.datasets:
        raise unknown("dataset", name, state.datasets)
    number = version_of(request) if "version" in request.match_info else None
    version = current_version(state, name, number)
    if version is None:
        raise unknown("version", str(number), map(str, state.datasets[name].versions))
    return version


@route("GET", "/v1/datasets", Answer(schema.DatasetList), tag="Datasets")
async def list_datasets(request: web.Request) -> web.Response:
    """The newest version of each dataset."""
    state = ports_of(request).log.state
    newest = (current_version(state, name) for name in sorted(state.datasets))
    shown = [views.dataset(state, version) for version in newest if version is not None]
    return answer(schema.DatasetList(datasets=shown))


@route("GET", "/v1/datasets/{dataset}", Answer(schema.Dataset), tag="Datasets")
async def get(request: web.Request) -> web.Response:
    """One version of a dataset, without a number the newest: its columns, and what was noted of them."""
    return answer(views.dataset(ports_of(request).log.state, _found(request)))


class PreviewQuery(Freshness, frozen=True, kw_only=True):
    rows: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20
    """So many at most."""


@route(
    "GET",
    "/v1/datasets/{dataset}/preview",
    Answer(schema.Preview),
    tag="Datasets",
    query=PreviewQuery,
    refuses=(429,),
)
async def preview(request: web.Request, query: PreviewQuery) -> web.Response:
    """The first rows, as objects."""
    version, ports = _found(request), ports_of(request)
    first = await ports.fetcher.make_present(version.parts[0].digest)
    shown: bytes = await ports.workshop.run(PREVIEW, str(first), query.rows)
    return web.Response(body=shown, content_type="application/json", charset="utf-8")


class ContentQuery(Freshness, frozen=True, kw_only=True):
    format: Annotated[str, said(enum=tuple(_GIVEN))] = "csv"


@route(
    "GET",
    "/v1/datasets/{dataset}/content",
    Answer(bytes, media=("text/csv", "application/vnd.apache.parquet"), example=TABLE),
    tag="Datasets",
    query=ContentQuery,
    refuses=(415, 429),
)
async def content(request: web.Request, query: ContentQuery) -> web.StreamResponse:
    """The whole dataset, as one file."""
    wanted = query.format
    if wanted not in _GIVEN:
        known = " and ".join(_GIVEN)
        raise Refusal(415, "unsupported_format", f"format {wanted!r} cannot be given; {known} can", {"field": "format"})
    version, ports = _found(request), ports_of(request)
    response = web.StreamResponse(
        headers={
            "Content-Type": _GIVEN[wanted],
            "Content-Disposition": f'attachment; filename="{version.name}-{version.version}.{wanted}"',
        }
    )
    async with work_folder(ports.settings.tmp) as folder:
        if wanted == "parquet":
            paths = [str(await ports.fetcher.make_present(part.digest)) for part in version.parts]
            with ports.blobs.room.claim(version.bytes, Purpose.MAKE):
                await ports.workshop.run(TO_PARQUET, paths, str(folder / "all.parquet"))
                await response.prepare(request)
                await _send(response, folder / "all.parquet")
            return response
        for number, part in enumerate(version.parts):
            parquet, out = await ports.fetcher.make_present(part.digest), folder / f"{number}.csv"
            await ports.workshop.run(TO_CSV, str(parquet), str(out), number == 0)
            if not response.prepared:
                await response.prepare(request)
            await _send(response, out)
    return response


async def _send(response: web.StreamResponse, path: Path) -> None:
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            await response.write(chunk)
    await asyncio.to_thread(path.unlink)


@route("DELETE", "/v1/datasets/{dataset}", Answer(schema.DatasetDeleted), tag="Datasets", role="operator")
async def delete(request: web.Request) -> web.Response:
    """Delete a dataset with all its versions, unless a running job uses it."""
    name = request.match_info["dataset"] if was_done(request) else _found(request).name
    done = await commit(request, DeleteDataset(name))
    return answer(schema.DatasetDeleted(name=name), index=done.index)


_VERSION = "/v1/datasets/{dataset}/versions/{version}"
ROUTES: tuple[Route, ...] = (
    list_datasets,
    get,
    get.at(_VERSION),
    preview,
    preview.at(f"{_VERSION}/preview"),
    content,
    content.at(f"{_VERSION}/content"),
    delete,
)
