"""The room's parts, built in one line: where peers are, how they are called, and what they may call here."""

from collections.abc import Callable

from discovery.peer import Peer
from discovery.watcher import Watcher
from node.config import Peers
from node.identity.pki import Identity
from node.peering.client import PeerClient
from node.peering.gate import BlankGate, Gate, Presence
from node.peering.greeter import Greeter
from node.peering.server import PeerApi
from node.peering.sources import multicast, seeds
from node.peering.table import PeerTable


class Peering:
    """Of a node that is `blank` until it becomes a member; `greeter.run` is a root task."""

    def __init__(self, config: Peers, identity: Identity, blank: Peer, on_removed: Callable[[str], None]) -> None:
        self._config, self._identity = config, identity
        self.table = PeerTable(identity.id)
        self.client = PeerClient(identity, self.table)
        self.blank = BlankGate(blank, self.table)
        self.presence = Presence(self.blank)
        self.server = PeerApi(identity, self.table, self.presence)
        self._mdns = multicast(config, blank, identity)
        self._watcher = Watcher([*seeds(config), *([self._mdns] if self._mdns is not None else [])])
        hello, connected = self.presence.hello, self.presence.connected
        self.greeter = Greeter(self.client, self.table, self._watcher, hello, connected, on_removed)

    async def start(self) -> None:
        """Peers may greet this node from here on, whatever it turns out to be."""
        await self.server.start(self._config.host, self._config.port)
        await self._watcher.start()

    def become(self, gate: Gate) -> None:
        """This node is a member from here on."""
        self.presence.become(gate)

    async def present(self) -> None:
        """This node presents, or trusts, other certificates than before."""
        await self.client.renew()
        if self._mdns is not None:
            self._mdns.trust(self._identity.fingerprints)
        await self.announce()

    async def announce(self) -> None:
        """By multicast, where that is on."""
        if self._mdns is not None:
            await self._mdns.update(self.presence.hello())

    async def withdraw(self) -> None:
        """Look for nobody any more, and be announced no more."""
        await self._watcher.stop()

    async def stop(self) -> None:
        await self.server.stop()
        await self.client.close()
