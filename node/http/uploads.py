"""Datasets as they come: a file is received, parsed in the workshop, made durable on several nodes, and committed."""

import asyncio
import contextlib
import errno
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, get_args

import msgspec
from aiohttp import web

from consensus.messages import AddDatasetVersion, HeldBlob
from consensus.queries import current_version
from consensus.state import Json, Part
from node.blobs.room import Claim, DiskFull, Purpose
from node.http import views
from node.http.context import Ports
from node.http.errors import Refusal
from node.http.routes import Route, answer, commit, key_reused, ports_of, route, value_of
from parvada import schema
from parvada.contract.kinds import Freshness, said
from parvada.contract.operation import Answer, Body, Example
from training.upload import FORMATS, IngestOptions, IngestResult, PartFile

INGEST = "training.ingest_worker:ingest"
UPLOADS = 4
"""At once on one node: each may take the memory of a few batches and the disk of two copies."""
PARTS_AT_ONCE = 4
INGEST_SECONDS, SLOWEST_BYTES_PER_SECOND = 600.0, 1024 * 1024
"""Time to parse an upload: so much, and what its size needs on a slow machine."""
CHUNK_BYTES = 1024 * 1024
STALL_SECONDS = 60.0
GZIP = ("gzip", "x-gzip")
_FORMATS = {
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
}
"""By content type; any other (a browser's guess, octet-stream) is found out from the content."""

_uploads = asyncio.Semaphore(UPLOADS)


TABLE = """sepal_length,sepal_width,petal_length,petal_width,species
5.1,3.5,1.4,0.2,setosa
4.9,3.0,1.4,0.2,setosa
4.7,3.2,1.3,0.2,setosa
4.6,3.1,1.5,0.2,setosa
7.0,3.2,4.7,1.4,versicolor
6.4,3.2,4.5,1.5,versicolor
6.9,3.1,4.9,1.5,versicolor
5.5,2.3,4.0,1.3,versicolor
6.3,3.3,6.0,2.5,virginica
5.8,2.7,5.1,1.9,virginica
7.1,3.0,5.9,2.1,virginica
6.3,2.9,5.6,1.8,virginica
"""
_TYPED = rf"^[\s\S]+:({'|'.join(get_args(schema.ColumnType))})(\[[^\]]*\])?$"


class UploadQuery(Freshness, frozen=True, kw_only=True):
    """What the uploader knows; what is left out is found out, and noted where it was not certain."""

    target: str = ""
    """Column to predict; by default the last one."""
    task: Annotated[str, said(enum=("", *get_args(schema.Task)))] = ""
    """By default what the target's values suggest."""
    weight: str = ""
    """Column of the rows' weights."""
    group: str = ""
    """Column whose equal values must not be parted by a fold."""
    drop: tuple[str, ...] = ()
    """Column to leave out; repeat it for several."""
    format: Annotated[str, said(enum=("", *FORMATS))] = ""
    """By default by `Content-Type` or content."""
    types: tuple[Annotated[str, said(pattern=_TYPED)], ...] = ()
    """`column:type`, as in `zip:category` or `when:datetime[%d/%m/%Y]`; repeat it for several."""
    missing: tuple[str, ...] | None = None
    """The texts that stand for a missing value, in the place of NA and its like; repeat it for several."""
    decimal: Annotated[str, said(enum=("", ".", ","))] = ""
    """What stands before the fraction of a number."""
    separator: Annotated[str, said(maxLength=1)] = ""
    """The character between two cells."""
    encoding: str = ""
    """Of a text file; by default UTF-8."""
    header: Annotated[str, said(enum=("", "first", "none"))] = ""
    """`none`: the first line is data. `first`: it names the columns."""


@route(
    "PUT",
    "/v1/datasets/{dataset}",
    Answer(schema.Dataset, 201, text="A new version, durable on two nodes."),
    Answer(schema.Dataset, 200, text="That content is the newest version already, durable on two nodes."),
    tag="Datasets",
    role="operator",
    makes="dataset",
    query=UploadQuery,
    takes=Body(
        bytes,
        media=(*_FORMATS, "application/x-ndjson", "application/octet-stream"),
        examples=(Example("Measures of flowers, and their species", TABLE, "text/csv"),),
    ),
    refuses=(408, 422, 429),
)
async def put(request: web.Request, query: UploadQuery) -> web.Response:
    """Upload a file as a new version of a dataset.

    CSV, TSV, Parquet, JSON lines, JSON records or Arrow IPC, also gzipped: by `format`, `Content-Type` or content.
    """
    name, ports = request.match_info["dataset"], ports_of(request)
    _check_length(request, ports.settings.max_upload_bytes)
    _check_encoding(request)
    if _uploads.locked():
        raise Refusal(429, "busy", f"{UPLOADS} uploads are under way on this node; try again, or another node")
    async with _uploads, _room_or_refusal(ports), work_folder(ports.settings.tmp) as folder:
        with ports.blobs.room.claim(request.content_length or 0, Purpose.MAKE) as claim:
            await _receive(request, folder / "upload", ports, claim)
        result = await _ingest(request, query, folder, ports)
        held = await _keep_all(ports, result.parts)
    return await _commit(request, name, result, held)


def _check_length(request: web.Request, limit: int) -> None:
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)


def _check_encoding(request: web.Request) -> None:
    """A gzipped body is stored as it comes, and unpacked in the workshop: not by the agent's event loop."""
    asked = request.headers.get("Content-Encoding", "identity").lower()
    if asked not in ("identity", *GZIP):
        message = f"the Content-Encoding {asked!r} is not known; gzip is"
        raise Refusal(415, "unsupported_encoding", message, {"field": "Content-Encoding", "value": asked})


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "too_large", f"an upload has at most {limit // (1024 * 1024)} MB (PARVADA_MAX_UPLOAD_MB)")


@contextlib.asynccontextmanager
async def work_folder(tmp: Path) -> AsyncIterator[Path]:
    """Gone at the end, however the upload ends."""
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="upload-", dir=tmp))
    try:
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def _room_or_refusal(ports: Ports) -> AsyncIterator[None]:
    """Whoever found the disk full, the answer says which node's, and by how much."""
    try:
        yield
    except (DiskFull, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        room, need = ports.blobs.room, getattr(error, "need", 0)
        me = ports.log.state.members.get(ports.settings.node)
        name, free = me.name if me is not None else ports.settings.node, room.free_bytes()
        room.note_refusal(need or free + 1)
        wanted = f"{need} bytes are needed and " if need else ""
        message = f"{name} has no room for this upload: {wanted}{free} bytes are free there; try another node"
        raise Refusal(503, "disk_full", message, {"node": name, "need": need, "free": free}) from error


async def _receive(request: web.Request, path: Path, ports: Ports, claim: Claim) -> None:
    size, limit = 0, ports.settings.max_upload_bytes
    with await asyncio.to_thread(path.open, "wb") as file:
        buffer = bytearray()
        while chunk := await _next_chunk(request):
            if size == 0 and request.headers.get("Content-Encoding", "").lower() in GZIP and chunk[:1] != b"\x1f":
                raise Refusal(422, "not_a_table", "the body is not gzipped, as its Content-Encoding says")
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            buffer += chunk
            if len(buffer) >= CHUNK_BYTES:
                await asyncio.to_thread(file.write, bytes(buffer))
                claim.wrote(len(buffer))
                ports.blobs.room.check(0 if claim.left else CHUNK_BYTES, Purpose.MAKE)
                buffer.clear()
        await asyncio.to_thread(file.write, bytes(buffer))
    if size == 0:
        raise Refusal(422, "empty_file", "the file is empty: a header line and rows of data are needed")


async def _next_chunk(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(STALL_SECONDS):
            return await request.content.readany()
    except TimeoutError as error:
        raise Refusal(408, "stalled", f"nothing of the upload has come for {STALL_SECONDS:g} s") from error


async def _ingest(request: web.Request, query: UploadQuery, folder: Path, ports: Ports) -> IngestResult:
    parts = folder / "parts"
    await asyncio.to_thread(parts.mkdir)
    options = IngestOptions(
        out_dir=str(parts),
        target=query.target,
        task=query.task,
        weight=query.weight,
        group=query.group,
        drop=tuple(filter(None, query.drop)),
        format=query.format or _FORMATS.get(request.content_type, ""),
        types=tuple(filter(None, query.types)),
        missing=tuple(filter(None, query.missing)) if query.missing is not None else None,
        decimal=query.decimal,
        separator=query.separator,
        encoding=query.encoding,
        header=query.header,
        max_bytes=ports.settings.max_upload_bytes,
        room=ports.blobs.room.free_bytes(),
    )
    size = await asyncio.to_thread(lambda: (folder / "upload").stat().st_size)
    seconds = INGEST_SECONDS + size / SLOWEST_BYTES_PER_SECOND
    result: IngestResult = await ports.workshop.run(INGEST, str(folder / "upload"), options, seconds=seconds)
    return result


async def _keep_all(ports: Ports, parts: Sequence[PartFile]) -> list[tuple[Part, HeldBlob]]:
    """In order. Twice, as the first parts of a large upload may have waited for the last ones for longer than holders
    keep what nothing refers to: the second round only asks for what is there."""
    turn = asyncio.Semaphore(PARTS_AT_ONCE)

    async def keep(part: PartFile) -> tuple[Part, HeldBlob]:
        async with turn:
            return await _keep(ports, part)

    tasks = [asyncio.create_task(keep(part), name=f"keep.{part.digest[:12]}") for part in parts]
    try:
        held = await asyncio.gather(*tasks)
    finally:  # the folder with the parts is about to go
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return [(part, await _held(ports, part)) for part, _ in held] if len(held) > PARTS_AT_ONCE else held


async def _held(ports: Ports, part: Part) -> HeldBlob:
    return HeldBlob(part.digest, part.bytes, await ports.distributor.store_durably(part.digest))


async def _keep(ports: Ports, part: PartFile) -> tuple[Part, HeldBlob]:
    """The part in the store, durable on enough nodes."""
    stored = await ports.blobs.adopt(Path(part.path))
    kept = Part(stored.digest, part.rows, stored.bytes)
    return kept, await _held(ports, kept)


async def _commit(
    request: web.Request, name: str, result: IngestResult, held: list[tuple[Part, HeldBlob]]
) -> web.Response:
    command = AddDatasetVersion(
        name=name,
        digest=result.digest,
        rows=result.rows,
        bytes=result.bytes,
        parts=tuple(part for part, _ in held),
        target=result.target,
        task=result.task,
        detail=Json(msgspec.json.encode(result.detail)),
        blobs=tuple(blob for _, blob in held),
    )
    done = await commit(request, command)
    outcome, state = value_of(done), ports_of(request).log.state
    version = current_version(state, name, outcome["version"])
    if version is None:
        raise Refusal(409, "conflict", f"dataset {name!r} was deleted after this upload", {"name": name})
    if (version.digest, version.target, version.task) != (result.digest, result.target, result.task):
        raise key_reused(f"uploaded version {version.version} with other content or another target")
    return answer(views.dataset(state, version), 201 if outcome["created"] else 200, done.index)


ROUTES: tuple[Route, ...] = (put,)
