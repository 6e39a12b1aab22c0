"""The room's parts, built in one line: who votes, who leads, who is gone, and which secret all go by."""

from consensus.log.raft import RaftLog
from node.config import Cluster
from node.identity.keyring import Keyring
from node.membership.leadership import Leadership
from node.membership.manager import Membership
from node.membership.removal import Removal
from node.membership.roster import Roster
from node.membership.rotation import Rotator
from node.membership.voters import Limits
from node.peering.build import Peering
from node.tasks import Tasks


class Members:
    """Of a member, with its log."""

    def __init__(self, config: Cluster, log: RaftLog, keyring: Keyring, peers: Peering, removal: Removal) -> None:
        limits = Limits(config.max_voters, config.promote_after, config.away_after)
        self.manager = Membership(log, limits)
        self.leadership = Leadership(peers.client, log, self.manager)
        self.rotation = Rotator(keyring.identity.id, keyring, peers.client, log, log, peers.present, config.handover)
        self._roster = Roster(log, keyring, peers, removal)
        peers.server.mount([*self.leadership.routes(), *self.rotation.routes()])

    def start(self, tasks: Tasks) -> None:
        tasks.start(self._roster.run(), "members")
        tasks.start(self.rotation.run(), "rotation")
        tasks.start(self.manager.run(), "membership")
