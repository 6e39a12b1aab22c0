"""`PeerSource`, the port behind which every way of finding peers sits, and `StaticSource`: seeds from configuration."""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import msgspec

from discovery import tasks
from discovery.peer import Hint, check_address, check_port

log = logging.getLogger(__name__)

RESOLVE_SECONDS = 5.0
"""Between two resolutions of the DNS names: a scaled-up Compose service shows new addresses at once."""
RESOLVE_TIMEOUT = 3.0
MAX_ADDRESSES_PER_NAME = 256

OnPeers = Callable[[str, frozenset[Hint]], None]
"""Called in the event loop with a source's name and all that it knows now, whenever that changes."""
Resolve = Callable[[str], Coroutine[Any, Any, Sequence[str]]]
"""The IPv4 addresses of a host name, or OSError."""


class DiscoveryError(Exception):
    """Root of the errors of this package."""


class DuplicateIdentity(DiscoveryError):
    """Another process answers under this node's id: a data folder was copied, or is used twice. Not to be ignored."""


class PeerSource(Protocol):
    """One way of finding peers. A source that finds nothing is silent; trouble of the network is logged, not raised."""

    @property
    def name(self) -> str: ...

    async def start(self, on_peers: OnPeers) -> None:
        """Begin to report. Raises DuplicateIdentity."""
        ...

    async def stop(self) -> None:
        """Stop, and take back what was announced. Never raises."""
        ...


class Seed(msgspec.Struct, frozen=True):
    """`host` is an IPv4 address or a DNS name."""

    host: str
    port: int


def parse_seed(text: str, default_port: int) -> Seed:
    """`host` or `host:port`. Raises ValueError, naming the seed."""
    host, colon, port = text.strip().rpartition(":")
    if not colon:
        host, port = port, str(default_port)
    if not host or not host.isascii() or len(host) > 253 or any(c in host for c in " :/[]@"):
        raise ValueError(f"seed {text!r}: give an IPv4 address or a DNS name, with or without :PORT")
    if not (port.isascii() and port.isdigit()):
        raise ValueError(f"seed {text!r}: {port!r} is not a port")
    try:
        check_port(int(port[:6]))
        if host.replace(".", "").isdigit():
            check_address(host)
    except ValueError as error:
        raise ValueError(f"seed {text!r}: {error}") from error
    return Seed(host, int(port))


async def resolve_ipv4(host: str) -> Sequence[str]:
    """By the system's resolver, in a thread of its own: one that hangs must not delay the end of the process, as the
    event loop's thread pool would."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Sequence[str]] = loop.create_future()

    def settle(addresses: Sequence[str], error: OSError | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(addresses)

    def work() -> None:
        try:
            found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
            result: tuple[Sequence[str], OSError | None] = ([str(address[0]) for *_, address in found], None)
        except OSError as error:
            result = ([], error)
        # The loop may have been closed while the resolver was thinking.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, *result)

    threading.Thread(target=work, name=f"resolve-{host}", daemon=True).start()
    return await answer


class StaticSource:
    """Seeds: addresses are hints as they stand, each address of a DNS name is one, looked up again every 5 s.

    A name that does not resolve keeps the addresses that it had: DNS may fail just when nodes do.
    """

    name = "seeds"

    def __init__(
        self, seeds: Sequence[Seed], *, every: float = RESOLVE_SECONDS, resolve: Resolve = resolve_ipv4
    ) -> None:
        self._seeds = tuple(seeds)
        self._every = every
        self._resolve = resolve
        self._known: dict[Seed, frozenset[Hint]] = {}
        self._lookups: dict[Seed, asyncio.Task[Sequence[str]]] = {}
        self._failing: set[Seed] = set()
        self._published: frozenset[Hint] | None = None
        self._on_peers: OnPeers | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, on_peers: OnPeers) -> None:
        self._on_peers = on_peers
        names = [seed for seed in self._seeds if not _is_address(seed.host)]
        for seed in set(self._seeds).difference(names):
            self._known[seed] = frozenset([Hint(seed.host, seed.port)])
        self._publish()
        if names:
            self._task = tasks.start(self._run(names), "discovery.seeds")

    async def stop(self) -> None:
        if self._task is not None:
            await tasks.stop([self._task])
        await tasks.stop(self._lookups.values())
        self._lookups.clear()

    async def _run(self, names: Sequence[Seed]) -> None:
        while True:
            await asyncio.gather(*(self._look_up(seed) for seed in names))
            self._publish()
            await asyncio.sleep(self._every)

    async def _look_up(self, seed: Seed) -> None:
        # One lookup a name at a time, kept when it is late: a resolver that hangs must not eat the thread pool.
        task = self._lookups.get(seed)
        if task is None:
            task = asyncio.create_task(self._resolve(seed.host), name=f"discovery.resolve.{seed.host}")
            self._lookups[seed] = task
        done, _ = await asyncio.wait([task], timeout=RESOLVE_TIMEOUT)
        if not done:
            self._note(seed, f"no answer in {RESOLVE_TIMEOUT:g} s")
            return
        del self._lookups[seed]
        try:
            addresses = [check_address(address) for address in task.result()[:MAX_ADDRESSES_PER_NAME]]
        except (OSError, ValueError) as error:
            self._note(seed, str(error))
            return
        self._failing.discard(seed)
        self._known[seed] = frozenset(Hint(address, seed.port) for address in addresses)

    def _note(self, seed: Seed, reason: str) -> None:
        """Said once for each time that a name begins to fail."""
        if seed not in self._failing:
            self._failing.add(seed)
            log.info("seed.unresolved", extra={"parvada_keys": {"host": seed.host, "reason": reason}})

    def _publish(self) -> None:
        hints = frozenset[Hint]().union(*self._known.values())
        if hints != self._published and self._on_peers is not None:
            self._published = hints
            self._on_peers(self.name, hints)


def _is_address(host: str) -> bool:
    return host.replace(".", "").isdigit()
