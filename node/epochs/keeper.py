"""Keeps this node's share of the current epoch: the leader begins epochs, every node follows, the head has the trainer.

What to do next is `training.epoch.decide`; here it meets the log, the runtime and the trainer's process. An epoch is
committed before anything is started in it.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping

from consensus.messages import AnnounceHead, BeginEpoch
from consensus.ports import CommandRejected, Log, LogError, LogStatus
from consensus.rules.rotation import digest_in_force
from consensus.shares import takes_part
from consensus.state import ClusterState, Epoch, MemberStatus, NodeId
from node import logs
from node.epochs.runtimes import Runtime
from node.processes.children import Child, ChildError, Supervisor
from training.epoch import Announce, JoinHead, RayRole, StartHead, Stay, Stop, decide
from training.ray_cluster import RayStartError

TICK_SECONDS = 0.25
HEAD_GRACE_SECONDS = 1.0
"""A head that Raft has lost for longer than this is given up: long enough for a connection to be made anew."""
BACKOFF_FIRST, BACKOFF_MOST = 0.5, 10.0

_log = logs.get("epochs")


def head_to_begin_with(state: ClusterState, status: LogStatus, unseen: Mapping[NodeId, float]) -> NodeId | None:
    """The head of a new epoch, if this node leads and the present one has none that lives; pure.

    `unseen`: seconds since each member was last connected. If the leader changes but the head lives, nothing does,
    unless the epoch's credentials follow from a cluster secret that is being replaced: who knows it could take part.
    """
    if status.leader != status.me or not status.quorum or status.me not in state.members:
        return None
    head = state.members.get(state.epoch.head)
    if head is not None and head.status is MemberStatus.ACTIVE:
        away = 0.0 if head.id == status.me else unseen.get(head.id, 0.0)
        if away < HEAD_GRACE_SECONDS:
            return None if state.epoch.secret == digest_in_force(state.rotation) else head.id
    if state.members[status.me].status is MemberStatus.ACTIVE:
        return status.me
    others = [
        member.id
        for member in state.members.values()
        if member.status is MemberStatus.ACTIVE and member.id in status.connected
    ]
    return min(others, default=None)


class EpochKeeper:
    """Reconciles until stopped. `trainer_environment` is what every trainer needs whatever the epoch."""

    def __init__(
        self,
        log: Log,
        runtime: Runtime,
        supervisor: Supervisor,
        unseen: Callable[[], Mapping[NodeId, float]],
        trainer_environment: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._runtime = runtime
        self._supervisor = supervisor
        self._unseen = unseen
        self._trainer_environment = trainer_environment
        self._clock = clock
        self._trainer: Child | None = None
        self._trainer_of = (0, "")
        self._up = 0
        self._backoff = 0.0
        self._not_before = 0.0

    @property
    def ray_epoch(self) -> int:
        """The epoch in which this node's share of Ray is up; 0 for none."""
        here = self._runtime.status
        return here.epoch if here.alive and here.epoch == self._up else 0

    async def run(self) -> None:
        """Leading and following do not wait for one another: to join a head that has died takes long to fail, and
        meanwhile this node may have become the one to begin a new epoch."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._lead(), name="epochs.lead")
            group.create_task(self._follow(), name="epochs.follow")

    async def stop(self) -> None:
        await self._stop_trainer()
        await self._runtime.stop()

    async def _lead(self) -> None:
        """Every quarter of a second: an epoch is rare, and a missed event costs nothing."""
        while True:
            state = self._log.state
            head = head_to_begin_with(state, self._log.status, self._unseen())
            if head is not None:
                await self._begin(state.epoch.number + 1, head)
            await asyncio.sleep(TICK_SECONDS)

    async def _begin(self, number: int, head: NodeId) -> None:
        try:
            await self._log.propose(BeginEpoch(number, head), actor="leader", timeout=3.0)
        except CommandRejected as error:
            _log.info("epoch.overtaken", reason=error.reason)
        except LogError as error:
            _log.warning("epoch.not_begun", reason=str(error))

    async def _follow(self) -> None:
        while True:
            await self._step()
            await asyncio.sleep(TICK_SECONDS)

    async def _step(self) -> None:
        """One decision, given up as soon as the epoch that it was for is over."""
        state = self._log.state
        step = asyncio.create_task(self._reconcile(state), name="epochs.step")
        try:
            while not step.done() and self._log.state.epoch == state.epoch:
                await asyncio.wait([step], timeout=TICK_SECONDS)
            if not step.done() and not self._announced_by_us(state.epoch):
                step.cancel()
                _log.info("epoch.step_given_up", epoch=state.epoch.number)
            await asyncio.wait([step])
        finally:
            step.cancel()
        if not step.cancelled():
            step.result()

    def _announced_by_us(self, before: Epoch) -> bool:
        """Our own announcement changes the epoch too: nothing to give up."""
        now = self._log.state.epoch
        return now.number == before.number and now.head == self._log.status.me

    async def _reconcile(self, state: ClusterState) -> None:
        if not takes_part(state, self._log.status.me):
            await self.stop()
            return
        decision = decide(self._log.status.me, state.epoch, self._runtime.status)
        if not isinstance(decision, Stay) and self._clock() < self._not_before:
            return
        try:
            await self._carry_out(decision)
        except (RayStartError, ChildError) as error:
            self._retreat()
            _log.error("ray.not_started", reason=str(error), retry_in=self._backoff)
        except LogError as error:
            _log.warning("epoch.not_announced", reason=str(error))
        await self._keep_trainer()

    async def _carry_out(self, decision: Stay | Stop | StartHead | Announce | JoinHead) -> None:
        match decision:
            case Stop(reason):
                _log.info("ray.stopping", reason=reason)
                if self._runtime.status.reason:
                    self._retreat()
                self._up = 0
                await self._stop_trainer()
                await self._runtime.stop()
            case StartHead(epoch):
                _log.info("ray.head_starting", epoch=epoch)
                await self._runtime.start_head(epoch)
                self._backoff, self._up = 0.0, epoch
                await self._announce(epoch, self._runtime.status.address)
            case Announce(epoch, address):
                await self._announce(epoch, address)
            case JoinHead(epoch, address):
                _log.info("ray.joining", epoch=epoch, head=address)
                await self._runtime.join(epoch, address)
                self._backoff, self._up = 0.0, epoch
                _log.info("ray.joined", epoch=epoch, head=address)
            case Stay():
                pass

    async def _announce(self, epoch: int, address: str) -> None:
        try:
            await self._log.propose(AnnounceHead(epoch, address), actor="head", timeout=5.0)
        except CommandRejected as error:  # a newer epoch has begun: the next round stops this one
            _log.info("epoch.overtaken", reason=error.reason)
            return
        _log.info("ray.head_up", epoch=epoch, address=address)

    def _retreat(self) -> None:
        """Wait longer after every failure, so that a broken Ray does not take the node's processor."""
        self._backoff = min(max(self._backoff * 2, BACKOFF_FIRST), BACKOFF_MOST)
        self._not_before = self._clock() + self._backoff

    async def _keep_trainer(self) -> None:
        """The trainer lives on the head, from the announcement of its epoch to the end of it."""
        epoch, here = self._log.state.epoch, self._runtime.status
        leads = (
            here.role is RayRole.HEAD and here.alive and here.epoch == epoch.number and here.address == epoch.address
        )
        wanted = (epoch.number, epoch.address) if leads else (0, "")
        if wanted == self._trainer_of:
            return
        await self._stop_trainer()
        if leads:
            environment = {
                **self._trainer_environment,
                **self._runtime.environment,
                "PARVADA_EPOCH": str(epoch.number),
            }
            argv = [sys.executable, "-m", "training.trainer"]
            self._trainer = self._supervisor.spawn(argv, environment, "trainer", grace=0.0)
            self._trainer_of = wanted

    async def _stop_trainer(self) -> None:
        trainer, self._trainer, self._trainer_of = self._trainer, None, (0, "")
        if trainer is not None:
            await trainer.stop()
