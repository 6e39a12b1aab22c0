"""The listening side of the transport: a bounded number of TLS handshakes at once, in all and per address."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

import msgspec

log = logging.getLogger(__name__)

ACCEPT_PAUSE = 0.1
"""Seconds without accepting when the process is out of file descriptors."""


class HandshakeLimits(msgspec.Struct, frozen=True):
    """What strangers can occupy before they have shown a certificate."""

    seconds: float = 5.0
    at_once: int = 64
    """Further connections wait in the listen queue."""
    per_address: int = 16
    """Further connections of one address are closed."""


class Acceptor:
    """Accepts connections and hands those whose TLS handshake succeeded to a protocol of `make_protocol`."""

    def __init__(
        self, context: ssl.SSLContext, make_protocol: Callable[[], asyncio.BaseProtocol], limits: HandshakeLimits
    ) -> None:
        self._context, self._make_protocol, self._limits = context, make_protocol, limits
        self._slots = asyncio.Semaphore(limits.at_once)
        self._handshakes: dict[asyncio.Task[None], str] = {}
        self._listener: socket.socket | None = None
        self.task: asyncio.Task[None] | None = None

    def start(self, host: str, port: int) -> int:
        """Listen; the port, chosen by the system if it was 0. Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=128)
        self._listener.setblocking(False)
        self.task = asyncio.create_task(self._accept_all(self._listener), name="raft-accept")
        return int(self._listener.getsockname()[1])

    async def stop(self) -> None:
        tasks = [*self._handshakes] if self.task is None else [self.task, *self._handshakes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()

    async def _accept_all(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._slots.acquire()
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as error:
                self._slots.release()
                log.warning("raft.accept_failed error=%s", error)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            task = asyncio.create_task(self._handshake(connection, address[0]), name="raft-handshake")
            self._handshakes[task] = address[0]
            task.add_done_callback(self._handshake_done)

    def _handshake_done(self, task: asyncio.Task[None]) -> None:
        del self._handshakes[task]
        self._slots.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("raft.handshake_crashed", exc_info=error)

    async def _handshake(self, connection: socket.socket, address: str) -> None:
        if sum(other == address for other in self._handshakes.values()) > self._limits.per_address:
            connection.close()
            return
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make_protocol, connection, ssl=self._context, ssl_handshake_timeout=self._limits.seconds
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            connection.close()
            log.info("raft.handshake_failed address=%s error=%s", address, error)
