"""The end of a cluster that nobody has put anything in, in favour of another under the same secret.

The rules are in `discovery.merging`; here they meet the log, the slot and the peers. A node whose cluster has ended
notes so in its slot and starts again; the start puts the old log aside, and formation takes the node to the other one.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from consensus.messages import Dissolve
from consensus.ports import CommandRejected, Log, LogError
from discovery.merging import Standing, abandoned_for, ends_for
from discovery.peer import Hint
from node import logs
from node.files import fsync_folder, write_atomically
from node.joining.gate import MemberGate
from node.joining.joining import LOG_BEGUN, RECORD, read_record
from node.peering.greeter import Greeter
from node.peering.table import PeerTable

DEPARTURE = "departure.json"
"""A file in the slot, from the end of the node's cluster until it belongs to another."""
EXIT_AGAIN = 75
"""The agent's word that it is to be started again at once, in the same process; no exit code of a process."""
LOOK_SECONDS = 0.5
GRACE_SECONDS = 1.0
"""From the end of the cluster until this node goes: the others are to hear of it from the log."""
PROPOSE_SECONDS = 5.0

_log = logs.get("dissolution")


class Departure(msgspec.Struct, frozen=True):
    """From which cluster to which, and where peers were last."""

    left: str
    into: str
    hints: tuple[Hint, ...]


class Dissolution:
    """`run` it as a root task. `happened` says that this node's cluster has ended, and the node is to start again."""

    def __init__(
        self,
        slot: Path,
        cluster_id: str,
        log: Log,
        gate: MemberGate,
        greeter: Greeter,
        table: PeerTable,
        stop: Callable[[], None],
    ) -> None:
        """`cluster_id` as this node recorded it when it joined: its log may not have come so far."""
        self._slot, self._cluster_id, self._log, self._gate = slot, cluster_id, log, gate
        self._greeter, self._table, self._stop = greeter, table, stop
        self.happened = False

    async def run(self) -> None:
        while not self.happened:
            await self._look()
            await asyncio.sleep(LOOK_SECONDS)
        await asyncio.Event().wait()  # a root task must not end; the agent is stopping

    async def _look(self) -> None:
        state, own = self._log.state, self._gate.standing()
        if state.dissolved:
            await asyncio.sleep(GRACE_SECONDS)
            self._leave(state.dissolved, "the cluster has dissolved")
        elif own is not None and own.quorum and (into := ends_for(own, self._greeter.standings.values())):
            await self._propose(into)
        else:
            # A log that holds nothing at all has nothing to lose.
            own = own or Standing(self._cluster_id, dissolvable=True, quorum=False)
            elsewhere = {str(node): there for node, there in self._gate.split(self._greeter.met.values()).items()}
            if into := abandoned_for(own, frozenset(self._log.status.voters), elsewhere):
                self._leave(into, "most of its voters are there")

    async def _propose(self, into: str) -> None:
        _log.warning("cluster.dissolving", into=into, note="this cluster holds nothing: its nodes join the other")
        try:
            await self._log.propose(Dissolve(into), actor="merging", timeout=PROPOSE_SECONDS)
        except CommandRejected as error:
            _log.info("cluster.goes_on", reason=error.reason)
        except LogError as error:
            _log.info("cluster.dissolving_postponed", reason=str(error))

    def _leave(self, into: str, reason: str) -> None:
        hints = frozenset(hint for peer in (*self._table.peers(), *self._greeter.met.values()) for hint in peer.hints)
        departure = Departure(self._cluster_id, into, tuple(sorted(hints)))
        write_atomically(self._slot / DEPARTURE, msgspec.json.encode(departure))
        _log.warning("cluster.left", left=self._cluster_id, into=into, reason=reason)
        self.happened = True
        self._stop()


def carry_out(slot: Path) -> Departure | None:
    """What this node is on its way from and to; None if it is not on its way. The log of the cluster that has ended is
    put aside, so that the node starts blank. To be called first at each start, and safe to repeat after a crash."""
    path = slot / DEPARTURE
    if not path.exists():
        return None
    departure = msgspec.json.decode(path.read_bytes(), type=Departure)
    record = read_record(slot)
    if record is not None and record.cluster_id != departure.left:  # it has arrived
        path.unlink()
        return None
    if (raft := slot / "raft").exists():
        aside = raft.rename(slot / f"raft.dissolved-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}")
        _log.info("cluster.log_put_aside", folder=str(aside))
    (slot / LOG_BEGUN).unlink(missing_ok=True)
    (slot / RECORD).unlink(missing_ok=True)
    fsync_folder(slot)
    return departure
