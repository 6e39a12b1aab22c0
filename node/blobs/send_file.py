"""Streams a file, or what a `Range` asks of it, as an HTTP answer.

Not `web.FileResponse`: over TLS it reads 16 KB at a time, each in a trip to a thread: a quarter of the speed.
"""

import asyncio
import contextlib
import re
from pathlib import Path

from aiohttp import web

CHUNK_BYTES = 512 * 1024
_FROM = re.compile(r"bytes=(\d{1,18})-\Z")


async def send_file(request: web.Request, path: Path, size: int) -> web.StreamResponse:
    """Answers GET and HEAD: 200 with the whole file, 206 for `Range: bytes=N-`, 416 if nothing is left from there.
    Other forms of ranges are answered with the whole, as HTTP allows."""
    start = _start(request)
    if start and start >= size:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
    response = web.StreamResponse(status=206 if start else 200, headers={"Accept-Ranges": "bytes"})
    if start:
        response.headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
    response.content_type = "application/octet-stream"
    response.content_length = size - start
    await response.prepare(request)
    if request.method != "HEAD":
        with contextlib.suppress(ConnectionResetError):  # the receiver has gone, which is its right: no room there, say
            await _send(response, path, start)
    return response


async def _send(response: web.StreamResponse, path: Path, start: int) -> None:
    file = await asyncio.to_thread(path.open, "rb", 0)
    try:
        await asyncio.to_thread(file.seek, start)
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            await response.write(chunk)
    finally:
        file.close()


def _start(request: web.Request) -> int:
    found = _FROM.match(request.headers.get("Range", ""))
    return int(found.group(1)) if found else 0
