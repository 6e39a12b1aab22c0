"""What this node goes by among its peers follows the log: its peer table, whom Raft may reach, whose word counts."""

from consensus.log.raft import RaftLog
from node.identity.keyring import Keyring
from node.membership.removal import Removal
from node.peering.build import Peering


class Roster:
    """`run` it as a root task. What greetings tell of peers goes to the log from the start."""

    def __init__(self, log: RaftLog, keyring: Keyring, peers: Peering, removal: Removal) -> None:
        self._log, self._keyring, self._peers, self._removal = log, keyring, peers, removal
        peers.table.on_news(self._tell_log)
        self._tell_log()

    def _tell_log(self) -> None:
        self._log.set_peers(self._peers.table.raft_peers())

    async def run(self) -> None:
        members = None
        async for item in self._log.subscribe():
            self._keyring.revoke(item.state.revoked)
            if item.state.members is not members:
                members = item.state.members
                self._peers.table.follow(item.state, self._keyring.identity.fingerprint)
                self._tell_log()
            await self._removal.follow(item.state, self._log, self._peers.server, self._peers.client)
