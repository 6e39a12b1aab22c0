"""From a blank start to membership: looks, asks `discovery.formation` what to do, does it, and keeps the record."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec

from consensus.state import NodeId
from discovery import formation
from discovery.formation import Form, FormationView, Genesis, How, Join, Propose, Refuse, Resume, Wait
from node import logs
from node.config import Config
from node.files import write_atomically
from node.joining.promises import Promises
from node.joining.slot import GenesisRecord, claim_genesis, read_genesis
from node.peering.client import PeerClient
from node.peering.greeter import Greeter
from node.peering.words import Grant, PeerError

RECORD = "cluster.json"
"""A file in the slot: see `ClusterRecord`."""
LOG_BEGUN = "raft.begun"
"""A file in the slot: a Raft log has been started here."""
RECOVERING = "recovering"
"""A file in the slot while `node.recover` rewrites it."""
BOUND_SECONDS = 15.0
"""So long a node looks for the cluster in favour of which its own has ended, which may have ended, too; then it goes by
the rules for all."""
LOOK_SECONDS = 1.0
"""Before a shared volume is asked to arbitrate, a cluster that exists already gets this long to be seen."""

_log = logs.get("joining")


class CannotStart(Exception):
    """Nothing that this node can do alone is safe; the message says what an operator should do."""


class ClusterRecord(msgspec.Struct, frozen=True):
    """What a node keeps of the cluster it belongs to, in `RECORD` of its slot."""

    cluster_id: str
    genesis: NodeId
    name: str
    formation: str


def read_record(slot: Path) -> ClusterRecord | None:
    path = slot / RECORD
    return msgspec.json.decode(path.read_bytes(), type=ClusterRecord) if path.exists() else None


def require_log(slot: Path) -> None:
    """A node that had a log and has lost it has forgotten how it voted: it must not vote again under its old id, nor
    form its cluster a second time. Call before the log is started, `note_log` after.

    Raises:
        CannotStart: says how to come back as a new node.
    """
    if (slot / RECOVERING).exists():
        raise CannotStart(f"a recovery of {slot} was interrupted: run `parvada cluster recover` again")
    if (slot / LOG_BEGUN).exists() and not (slot / "raft" / "journal").exists():
        raise CannotStart(
            f"the Raft journal of {slot} is gone: restore it, or move the slot's folder away, and the node comes back "
            "as a new one"
        )


def note_log(slot: Path) -> None:
    """From here on the log has promised things."""
    if not (slot / LOG_BEGUN).exists():
        write_atomically(slot / LOG_BEGUN, b"")


class Joiner:
    """Runs the formation rules until this node belongs to a cluster."""

    def __init__(
        self,
        me: NodeId,
        config: Config,
        slot: Path,
        greeter: Greeter,
        client: PeerClient,
        heard: Callable[[], frozenset[NodeId]],
        promises: Promises,
        left: str = "",
        bound_for: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`left`, `bound_for`: see `FormationView`."""
        self._me = me
        self._config = config
        self._slot = slot
        self._greeter = greeter
        self._client = client
        self._heard = heard
        self._promises = promises
        self._left, self._bound_for = left, bound_for
        self._said = ""
        self._refused_since: float | None = None
        self._clock = clock
        self._begun = clock()

    async def settle(self) -> ClusterRecord:
        """The record of the cluster that this node belongs to from now on.

        Raises:
            CannotStart: the rules refuse; the reason is for the operator.
        """
        await self._look_around()
        while True:
            decision = self._patiently(formation.decide(self._view()))
            match decision:
                case Resume():
                    record = read_record(self._slot)
                    if record is None:
                        raise CannotStart(f"{self._slot} has a Raft log but no {RECORD}: restore it or empty the slot")
                    return record
                case Join(peer):
                    record = await self._join(NodeId(peer.id))
                    if record is not None:
                        return self._keep(record)
                    await asyncio.sleep(formation.RECHECK_SECONDS)
                case Form(how):
                    if how is not How.DEVELOPMENT or await self._all_still_blank():
                        return self._keep(self._form(how))
                    await self._wait(formation.RECHECK_SECONDS, "not all nodes in sight have answered once more")
                case Propose():
                    record = await self._propose()
                    if record is not None:
                        return self._keep(record)
                case Refuse():
                    raise CannotStart(decision.reason)
                case Wait(seconds, reason):
                    await self._wait(seconds, reason)

    def _patiently(self, decision: formation.Decision) -> formation.Decision:
        """A refusal counts once it has lasted for as long as it says."""
        if not isinstance(decision, Refuse):
            self._refused_since = None
            return decision
        now = self._clock()
        self._refused_since = now if self._refused_since is None else self._refused_since
        if now - self._refused_since >= decision.after:
            return decision
        return Wait(formation.RECHECK_SECONDS, decision.reason)

    async def _wait(self, seconds: float, reason: str) -> None:
        if reason != self._said:
            _log.info("formation.waiting", reason=reason)
            self._said = reason
        self._greeter.news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, formation.RECHECK_SECONDS)):
                await self._greeter.news.wait()

    async def _all_still_blank(self) -> bool:
        """A last look where nothing arbitrates: what a peer said may be seconds old, and it may have formed since."""
        answered = await asyncio.gather(*(self._greeter.greet_at(peer) for peer in [*self._greeter.met.values()]))
        return all(answered) and isinstance(formation.decide(self._view()), Form)

    async def _propose(self) -> ClusterRecord | None:
        """Rule 2: one round of promises. The decision is durable on a majority, and so is its cluster id."""
        founding = await self._promises.propose(sorted(self._greeter.met))
        if founding is None:
            await self._wait(0.0, "a majority of the expected nodes has not promised yet")
            return None
        if founding.node_id != self._me:
            await self._wait(formation.RECHECK_SECONDS, f"node {founding.node_id} forms, a majority has promised")
            return None
        return ClusterRecord(founding.cluster_id, self._me, founding.name, How.EXPECTED.value)

    async def _look_around(self) -> None:
        """Before the volume arbitrates, a cluster that exists already (on other hosts) gets a moment to be seen."""
        arbitrates = self._config.storage.shared and read_genesis(self._config.storage.data) is None
        while arbitrates and not self._members_in_sight() and self._clock() - self._begun < LOOK_SECONDS:  # noqa: ASYNC110  two conditions and a deadline, no one event
            await asyncio.sleep(0.1)

    def _members_in_sight(self) -> bool:
        return any(peer.state == "member" for peer in self._greeter.met.values())

    def _view(self) -> FormationView:
        quiet = self._clock() - max(self._greeter.newest, self._begun)
        return FormationView(
            me=self._me,
            has_log=read_record(self._slot) is not None,
            peers=tuple(self._greeter.met[node] for node in sorted(self._greeter.met)),
            confirmed=frozenset(self._heard()),
            genesis=self._genesis(),
            expect=self._config.cluster.expect,
            quiet=quiet,
            quiet_needed=self._config.cluster.quiet,
            named=self._promises.named,
            left=self._left,
            bound_for=self._bound_for if self._clock() - self._begun < BOUND_SECONDS else "",
        )

    def _genesis(self) -> Genesis | None:
        """The volume's word on who forms; claimed for this node if nobody has and no cluster is in sight."""
        if not self._config.storage.shared:
            return None
        record = read_genesis(self._config.storage.data)
        if record is None:
            if self._members_in_sight():
                return None
            mine = GenesisRecord(cluster_id=str(uuid.uuid4()), node_id=self._me, name=self._config.cluster.name)
            record = claim_genesis(self._config.storage.data, mine)
        return Genesis(node_id=record.node_id, cluster_id=record.cluster_id)

    async def _join(self, node: NodeId) -> ClusterRecord | None:
        try:
            grant: Grant = await self._client.join(node, self._greeter.me())
        except (PeerError, ValueError) as error:
            _log.info("join.failed", peer=node, reason=str(error))
            return None
        if grant.leader is not None and not await self._greeter.greet_at(grant.leader):
            # Not in vain: this node greets on, and once the leader knows it, its registration is committed.
            _log.info("join.leader_not_reached", leader=grant.leader.id)
        return ClusterRecord(grant.cluster_id, NodeId(grant.genesis), grant.name, "joined")

    def _form(self, how: How) -> ClusterRecord:
        cluster = read_genesis(self._config.storage.data) if how is How.VOLUME else None
        if how is How.DEVELOPMENT:
            _log.warning(
                "formation.development",
                note="nothing arbitrated: nodes that start apart would form two clusters; let them share a volume",
            )
        cluster_id = cluster.cluster_id if cluster else str(uuid.uuid4())
        name = cluster.name if cluster else self._config.cluster.name
        return ClusterRecord(cluster_id, self._me, name, how.value)

    def _keep(self, record: ClusterRecord) -> ClusterRecord:
        write_atomically(self._slot / RECORD, msgspec.json.encode(record))
        _log.info("cluster.belongs", cluster=record.cluster_id, genesis=record.genesis, formation=record.formation)
        return record
