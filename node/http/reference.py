"""The API's own description. Open to everybody, as health is: it tells the shape of the API, nothing of the cluster
but whether reading needs a token."""

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from aiohttp import web

import parvada
from node.http.routes import Route, route
from parvada.contract.openapi import document
from parvada.contract.operation import Answer, Operation


class Reference:
    """Made once, when it is first asked for, in a thread."""

    def __init__(self, operations: Sequence[Operation], auth: Literal["writes", "all"]) -> None:
        self._operations, self._auth = operations, auth
        self._one = asyncio.Lock()
        self._made: bytes | None = None

    async def document(self) -> bytes:
        async with self._one:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
            return self._made

    def _make(self) -> bytes:
        return msgspec.json.encode(document(self._operations, parvada.__version__, self._auth))


REFERENCE = web.AppKey("reference", Reference)


@route("GET", "/openapi.json", Answer(dict[str, Any]), tag="Observation", role=None)
async def openapi(request: web.Request) -> web.Response:
    """This description of the API, as an OpenAPI 3.1 document."""
    described = await request.app[REFERENCE].document()
    return web.Response(body=described, content_type="application/json", charset="utf-8")


ROUTES: tuple[Route, ...] = (openapi,)
