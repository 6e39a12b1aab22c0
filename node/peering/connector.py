"""Connections of the peer client: mutual TLS, and the server's identity checked before a byte of a request is sent."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from consensus.state import NodeId

CONNECTIONS = 8
"""To one peer at once: four transfers, and room for the small calls."""


class WrongPeer(Exception):
    """Not the node that was meant: another one (an address was taken over), a revoked one, or a stranger."""


class PeerConnector(aiohttp.TCPConnector):
    """Connects to one node and to no other. A host name proves nothing here; the key in the certificate does.

    aiohttp offers no hook between handshake and request, so the one method through which it makes a connection
    is overridden; `tests/unit/node/peering/test_peers.py` fails if a release stops calling it.
    """

    def __init__(
        self, context: ssl.SSLContext, identify: Callable[[bytes | None], NodeId], expected: NodeId | None
    ) -> None:
        super().__init__(ssl=context, limit=CONNECTIONS, use_dns_cache=False)
        self._identify = identify
        self._expected = expected
        self.met: NodeId | None = None
        """Who answered the newest connection."""

    def pin(self) -> None:
        """From here on it connects to nobody but whom it has met."""
        self._expected = self.met

    async def _wrap_create_connection(self, *args: Any, **kwargs: Any) -> tuple[asyncio.Transport, ResponseHandler]:
        transport, protocol = await super()._wrap_create_connection(*args, **kwargs)
        try:
            self.met = self._check(transport)
        except BaseException:
            transport.abort()
            raise
        return transport, protocol

    def _check(self, transport: asyncio.Transport) -> NodeId:
        tls = transport.get_extra_info("ssl_object")
        if tls is None:
            raise WrongPeer("the connection is not encrypted")
        try:
            met = self._identify(tls.getpeercert(binary_form=True))
        except PermissionError as error:
            raise WrongPeer(str(error)) from error
        if self._expected is not None and met != self._expected:
            raise WrongPeer(f"node {met} answered where node {self._expected} was expected")
        return met
