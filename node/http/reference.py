"""The API's own description: the OpenAPI document, and a page that shows it. Open to everybody, as health is: they
tell the shape of the API, nothing of the cluster but whether reading needs a token."""

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from aiohttp import web

import parvada
from node.http.routes import Route, route
from parvada.contract import page
from parvada.contract.openapi import document
from parvada.contract.operation import Answer, Operation


class Reference:
    """Made once, when it is first asked for, in a thread."""

    def __init__(self, operations: Sequence[Operation], auth: Literal["writes", "all"]) -> None:
        self._operations, self._auth = operations, auth
        self._one = asyncio.Lock()
        self._made: tuple[bytes, bytes] | None = None

    async def made(self) -> tuple[bytes, bytes]:
        """The document and the page."""
        async with self._one:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
            return self._made

    def _make(self) -> tuple[bytes, bytes]:
        described = document(self._operations, parvada.__version__, self._auth)
        return msgspec.json.encode(described), page.render(described).encode()


REFERENCE = web.AppKey("reference", Reference)


@route("GET", "/openapi.json", Answer(dict[str, Any]), tag="Observation", role=None)
async def openapi(request: web.Request) -> web.Response:
    """This description of the API, as an OpenAPI 3.1 document."""
    described, _ = await request.app[REFERENCE].made()
    return web.Response(body=described, content_type="application/json", charset="utf-8")


@route("GET", "/docs", Answer(bytes, media=("text/html",)), tag="Observation", role=None)
async def docs(request: web.Request) -> web.Response:
    """This description of the API, as a page that needs nothing else."""
    _, shown = await request.app[REFERENCE].made()
    return web.Response(body=shown, content_type="text/html", charset="utf-8", headers=page.headers())


ROUTES: tuple[Route, ...] = (openapi, docs)
