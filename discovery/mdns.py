"""Finds peers on the local network by multicast DNS and announces this node. The only module that imports zeroconf.

Records are hints of strangers: parsed strictly, bounded in number and in rate, never a sign of life or death
(a killed node's record stays for minutes).
"""

import asyncio
import contextlib
import logging
import secrets
import socket
import struct
import time
from collections.abc import Sequence, Set

from zeroconf import DNSQuestionType, Error, IPVersion, NonUniqueNameException, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from discovery import tasks
from discovery.peer import Hint, Peer, from_txt, to_txt
from discovery.sources import DuplicateIdentity, OnPeers
from parvada.identifiers import is_node_id

log = logging.getLogger(__name__)

SERVICE = "_parvada._tcp.local."
REBROWSE_SECONDS = 30.0
"""Everything is asked for and checked again: answers may be lost, and old records go by themselves only after hours."""
MAX_RECORDS = 256
READERS = 4
READ_PAUSE = 0.02
"""Seconds between two records of one reader: at most 200 records a second, whatever is shouted."""
READ_TIMEOUT_MS = 1500
STOP_TIMEOUT = 3.0
LEAVE_SECONDS = 2.0
"""How long a process that had this identity before may still answer while it stops."""
LISTEN_SECONDS = 1.2
"""Before the record is announced: who has answered lately keeps silent for a second, also to "is this name taken"."""
MULTICAST_ANSWERS = DNSQuestionType.QM
"""A unicast answer reaches only one of the processes that share port 5353 of a host: other nodes, or its own Avahi."""
GROUP = "224.0.0.251"
_TXT, _IN = 16, 1


class MdnsSource:
    """The hints of all records of this cluster's service, without our own.

    `interfaces` are the IPv4 addresses of the interfaces to use. Where multicast is impossible the source says so
    once, finds nothing, and tries again with every browsing.
    """

    name = "mdns"

    def __init__(
        self,
        me: Peer,
        interfaces: Sequence[str],
        *,
        rebrowse: float = REBROWSE_SECONDS,
        listen: float = LISTEN_SECONDS,
        leave: float = LEAVE_SECONDS,
    ) -> None:
        self._me = me
        self._trusted = frozenset({me.fingerprint})
        self._interfaces = list(interfaces)
        self._rebrowse, self._listen, self._leave = rebrowse, listen, leave
        self._name = f"{me.id}.{SERVICE}"
        # In our own record: one under our name without it is another process's.
        self._run_mark = b"run=" + secrets.token_hex(8).encode()
        self._records: dict[str, frozenset[Hint]] = {}
        self._unread: asyncio.Queue[str] = asyncio.Queue(MAX_RECORDS)
        self._queued: set[str] = set()
        self._on_peers: OnPeers | None = None
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._announced: AsyncServiceInfo | None = None
        self._told = me
        self._news = asyncio.Event()
        self._unavailable = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, on_peers: OnPeers) -> None:
        """Browse, and announce if nobody answers under our name: peers are seen from the first moment, this node
        after 2 s, and the call returns after 2.5 s.

        Raises DuplicateIdentity if somebody does, still 2 s later.
        """
        self._on_peers = on_peers
        self._tasks = [tasks.start(self._read_records(), f"discovery.mdns.reader.{n}") for n in range(READERS)]
        try:
            await self._open()
        except DuplicateIdentity:
            log.info("mdns.waiting", extra={"parvada_keys": {"reason": "this node's id is still answered for"}})
            await asyncio.sleep(self._leave)
            await self._open()
        self._tasks.append(tasks.start(self._run(), "discovery.mdns"))

    async def stop(self) -> None:
        """Take the record back and close."""
        await tasks.stop(self._tasks)
        self._tasks.clear()
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                if self._zeroconf is not None and self._announced is not None:
                    await (await self._zeroconf.async_unregister_service(self._announced))
        except (TimeoutError, OSError, Error) as error:
            self._say_unavailable(error)
        await self._close()

    def trust(self, fingerprints: Set[str]) -> None:
        """Whose records are ours: those of both CAs while the cluster's secret is rotated."""
        self._trusted = frozenset(fingerprints)

    async def update(self, me: Peer) -> None:
        """Announce another state or other addresses of this node (its id stays). Does not wait for the network."""
        self._me = me
        self._news.set()

    async def _open(self) -> None:
        try:
            for interface in self._interfaces:
                check_multicast(interface)
            self._zeroconf = AsyncZeroconf(interfaces=self._interfaces, ip_version=IPVersion.V4Only)
            await self._zeroconf.zeroconf.async_wait_for_start()
            self._browse(self._zeroconf)
            await asyncio.sleep(self._listen)
            me, info = self._me, self._info()
            await (await self._zeroconf.async_register_service(info))
            self._announced, self._told = info, me
            self._require_single(self._zeroconf)
            self._unavailable = False
        except NonUniqueNameException as error:
            await self._close()
            raise DuplicateIdentity(
                f"another process answers on the network as node {self._me.id}: its data folder was copied or is used "
                "twice; stop it, or give this node an empty slot"
            ) from error
        except (OSError, Error) as error:
            await self._close()
            self._say_unavailable(error)
        except BaseException:
            await self._close()
            raise

    def _require_single(self, zeroconf: AsyncZeroconf) -> None:
        if self._is_doubled(zeroconf):
            # Forgotten, not unregistered: our goodbye would take the other's record off the network.
            zeroconf.zeroconf.registry.async_remove(self._info())
            raise NonUniqueNameException

    def _is_doubled(self, zeroconf: AsyncZeroconf) -> bool:
        """Whether somebody else's record stands under our name: two that start at once do not hear each other ask."""
        texts = zeroconf.zeroconf.cache.get_all_by_details(self._name, _TXT, _IN)
        return any(self._run_mark not in getattr(text, "text", b"") for text in texts)

    async def _close(self) -> None:
        await self._stop_browsing()
        if self._zeroconf is not None:
            await self._zeroconf.async_close()
            self._zeroconf = None
        self._announced = None

    async def _stop_browsing(self) -> None:
        browser, self._browser = self._browser, None
        if browser is not None:
            await browser.async_cancel()

    def _browse(self, zeroconf: AsyncZeroconf) -> None:
        self._browser = AsyncServiceBrowser(
            zeroconf.zeroconf, SERVICE, handlers=[self._on_change], question_type=MULTICAST_ANSWERS
        )

    async def _run(self) -> None:
        browse_at = time.monotonic() + self._rebrowse
        while True:
            if self._zeroconf is not None and self._told != self._me:
                await self._tell(self._zeroconf)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), browse_at - time.monotonic())
            self._news.clear()
            if time.monotonic() >= browse_at:
                await self._browse_again()
                browse_at = time.monotonic() + self._rebrowse

    async def _browse_again(self) -> None:
        if self._zeroconf is None:
            await self._reopen()
            return
        await self._stop_browsing()
        self._browse(self._zeroconf)
        for name in list(self._records):
            self._enqueue(name)

    async def _tell(self, zeroconf: AsyncZeroconf) -> None:
        """Announce what has changed of this node."""
        me, info = self._me, self._info()
        try:
            await (await zeroconf.async_update_service(info))
        except (OSError, Error) as error:
            self._say_unavailable(error)
        self._announced, self._told = info, me

    async def _reopen(self) -> None:
        try:
            await self._open()
        except DuplicateIdentity:
            self._say_doubled()

    def _on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if name == self._name:
            if self._announced is not None and self._zeroconf is not None and self._is_doubled(self._zeroconf):
                self._say_doubled()
        elif state_change is ServiceStateChange.Removed:
            self._keep(name, frozenset())
        else:
            self._enqueue(name)

    def _enqueue(self, name: str) -> None:
        """What does not fit is dropped: it is seen again at the next browsing."""
        node, _, service = name.partition(".")
        full = len(self._records) >= MAX_RECORDS and name not in self._records
        if service != SERVICE or not is_node_id(node) or name == self._name or full:
            return
        if name not in self._queued and not self._unread.full():
            self._queued.add(name)
            self._unread.put_nowait(name)

    async def _read_records(self) -> None:
        while True:
            name = await self._unread.get()
            self._queued.discard(name)
            if (zeroconf := self._zeroconf) is not None:
                self._keep(name, await self._read(zeroconf, name))
            await asyncio.sleep(READ_PAUSE)

    async def _read(self, zeroconf: AsyncZeroconf, name: str) -> frozenset[Hint]:
        """The hints of one record: none if it is gone, not of our cluster, or not as we write it."""
        info = AsyncServiceInfo(SERVICE, name)
        try:
            known = info.load_from_cache(zeroconf.zeroconf)
            if not known and not await info.async_request(zeroconf.zeroconf, READ_TIMEOUT_MS, MULTICAST_ANSWERS):
                return frozenset()
            peer = from_txt(info.properties, info.parsed_addresses(IPVersion.V4Only))
        except (ValueError, OSError, Error) as error:
            log.debug("mdns.ignored", extra={"parvada_keys": {"record": name, "reason": str(error)}})
            return frozenset()
        if f"{peer.id}.{SERVICE}" != name or peer.fingerprint not in self._trusted:
            return frozenset()
        return frozenset(peer.hints)

    def _keep(self, name: str, hints: frozenset[Hint]) -> None:
        if hints == self._records.get(name, frozenset()):
            return
        if not hints:
            del self._records[name]
        elif name in self._records or len(self._records) < MAX_RECORDS:
            self._records[name] = hints
        if self._on_peers is not None:
            self._on_peers(self.name, frozenset[Hint]().union(*self._records.values()))

    def _info(self) -> AsyncServiceInfo:
        return AsyncServiceInfo(
            SERVICE,
            self._name,
            addresses=[socket.inet_aton(address) for address in self._me.addresses],
            port=self._me.peer_port,
            properties={**to_txt(self._me), "run": self._run_mark.removeprefix(b"run=").decode()},
            server=f"{self._me.id}.local.",
        )

    def _say_doubled(self) -> None:
        # The node is at work by now, and its peers judge it by its key, not by what a stranger may have announced.
        log.error("mdns.duplicate", extra={"parvada_keys": {"node": self._me.id}})

    def _say_unavailable(self, error: BaseException) -> None:
        if not self._unavailable:
            self._unavailable = True
            keys = {"interfaces": ",".join(self._interfaces), "reason": str(error) or type(error).__name__}
            log.warning("mdns.unavailable", extra={"parvada_keys": keys})


def check_multicast(interface: str) -> None:
    """Raise OSError unless the interface with this IPv4 address can take part in multicast DNS. Tried beforehand
    because zeroconf leaves its sockets open when one of its interfaces fails."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((interface, 0))
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
        member = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton(interface))
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
