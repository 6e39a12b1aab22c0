"""Main of the trainer process: plans from the replicated state, commits what it starts, runs it, commits the results.

It runs only on the node that holds the epoch. Everything it commits carries that epoch; when the epoch is over the
process ends with code 3, and whoever holds the next one goes on from the state.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Literal

from consensus.messages import Command, FinishUnit, StartFolds
from consensus.ports import CommandRejected
from consensus.shares import epoch_shares
from consensus.state import CandidateId, JobId, NodeId
from parvada.local import Proposed
from training.errors import EpochLost, TrainingError
from training.inline import InlineExecutor
from training.ledger import Ledger, Proposer, is_whole, to_restore
from training.live import LiveFeed
from training.plan import REFIT, Finish, Propose, Start, Stop, Work, plan
from training.ports import Executor, TrainerReport
from training.recorder import Recorder
from training.runner import Runner
from training.trainer_link import TrainerLink

log = logging.getLogger("training.trainer")

EPOCH_LOST = 3
"""Exit code: this epoch, its agent or its Ray is gone."""
_TICK_SECONDS = 1.0
_REPORT_SECONDS = 1.0
_RETRY_SECONDS = 2.0
_MAX_RECORDING = 8
"""Times as many results as there are slots may wait for the log; then no more folds are started."""


class Trainer:
    """Runs jobs of one epoch with one executor. `tmp`: a folder on the file system of the blob store."""

    def __init__(
        self, link: TrainerLink, executor: Executor, epoch: int, tmp: Path, mode: Literal["ray", "inline"]
    ) -> None:
        self._link = link
        self._executor = executor
        self._epoch = epoch
        self._mode = mode
        self._ledger = Ledger(link, tmp)
        self._recorder = Recorder(epoch, self._ledger, self._is_busy)
        self._proposer = Proposer(epoch)
        self._restored: set[JobId] = set()
        self._live = LiveFeed(epoch)
        self._restoring: dict[JobId, asyncio.Task[None]] = {}
        self._works: dict[Work, asyncio.Task[None]] = {}
        self._recording: set[Work] = set()
        """Those of `_works` whose result is on its way into the log: their CPUs are free."""
        self._stopping: set[Work] = set()
        self._runner = Runner(
            epoch, link, executor, self._ledger, self._recorder, self._live, self._commit, self._computed
        )
        self._failure: BaseException | None = None

    async def run(self) -> None:
        """Runs until cancelled. Raises EpochLost."""
        await self._executor.start()
        background = [
            self._guarded(self._recorder.run(), "record-folds"),
            self._guarded(self._report(), "report"),
            self._guarded(self._live.run(self._link.report_live), "live"),
        ]
        try:
            while True:
                self._link.changed.clear()
                await self._step()
                await self._wait_for_change()
        finally:
            tasks = [*background, *self._restoring.values(), *self._works.values()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=10)
            await self._executor.stop()

    async def _wait_for_change(self) -> None:
        try:
            async with asyncio.timeout(_TICK_SECONDS):
                await self._link.changed.wait()
        except TimeoutError:
            return  # the clock moved on: limits of time are looked at again

    async def _step(self) -> None:
        self._link.check()
        if self._failure is not None:
            raise self._failure
        state = self._link.state
        if state.epoch.number > self._epoch:
            raise EpochLost(f"epoch {self._epoch} is over: {state.epoch.number} is current")
        if state.epoch.number < self._epoch:
            return
        self._executor.allot(epoch_shares(state))
        unready = self._unready()
        recording = min(len(self._recording), _MAX_RECORDING * self._slots())
        slots = self._slots() + recording
        for decision in plan(self._link.state, self._works.keys(), slots, time.time(), unready):
            match decision:
                case Propose(job, unit):
                    await self._propose(job, unit)
                case Stop(work):
                    self._stop(work)
                case Finish(job, unit, best, error):
                    await self._commit(FinishUnit(self._epoch, job, unit, best, error))
                case Start(work):
                    await self._start(work)

    def _slots(self) -> int:
        cpus = int(self._executor.capacity().cpus)
        # One or a few wait at the executor, so that no CPU idles while a result is being committed.
        return cpus + max(1, cpus // 4) if cpus else 0

    def _is_busy(self) -> bool:
        return len(self._works) > len(self._recording)

    def _stop(self, works: tuple[Work, ...]) -> None:
        for work in works:
            if work not in self._stopping:
                self._stopping.add(work)
                self._works[work].cancel()

    async def _start(self, works: tuple[Work, ...]) -> None:
        folds = tuple((work.candidate, work.fold) for work in works if work.fold != REFIT)
        if folds and await self._commit(StartFolds(self._epoch, works[0].job, folds)) is None:
            return
        for work in works:
            task = self._works[work] = self._guarded(self._runner.run(work), f"{work.job}/{work.candidate}/{work.fold}")
            task.add_done_callback(partial(self._ended, work))

    def _computed(self, work: Work) -> None:
        self._recording.add(work)
        self._recorder.look()
        self._link.changed.set()  # the CPU is free for the next fold

    def _ended(self, work: Work, _: asyncio.Task[None]) -> None:
        self._works.pop(work, None)
        self._stopping.discard(work)
        self._recording.discard(work)
        self._recorder.look()
        self._link.changed.set()

    async def _propose(self, job: JobId, unit: int) -> None:
        found = self._link.state.jobs.get(job)
        command = await self._proposer.next(found, unit) if found is not None else None
        if command is None:
            return
        try:
            await self._ledger.commit(command)
        except CommandRejected as refused:
            log.warning("candidates.refused: %s: %s", job, refused.reason)
            if refused.code in ("conflict", "not_found"):
                return  # the state has moved on, and tells what is to be proposed now
            error = f"its candidates were refused: {refused.reason}"
            await self._commit(FinishUnit(self._epoch, job, unit, CandidateId(""), error))

    def _unready(self) -> set[JobId]:
        """Jobs that were sealed and are tried again, until they have their finished folds back: they are in a file,
        which may be long in coming, and are not to be run again."""
        unready = {job.id for job in to_restore(self._link.state) if not (job.id in self._restored and is_whole(job))}
        for job in unready - self._restoring.keys():
            task = self._restoring[job] = self._guarded(self._restore(job), f"restore-{job}")
            task.add_done_callback(partial(self._restore_ended, job))
        return unready

    async def _restore(self, job: JobId) -> None:
        self._restored.discard(job)
        try:
            if await self._ledger.restore(job, self._proposer, self._epoch):
                self._restored.add(job)
                return
        except TrainingError as error:
            if isinstance(error, EpochLost):
                raise
            log.warning("job.not_restored: %s: %s", job, error)
        await asyncio.sleep(_RETRY_SECONDS)

    def _restore_ended(self, job: JobId, _: asyncio.Task[None]) -> None:
        self._restoring.pop(job, None)
        self._link.changed.set()

    # ---------------------------------------------------------------- commands
    async def _commit(self, command: Command) -> Proposed | None:
        """None when the state has moved on and the command makes no sense any more (its job was cancelled)."""
        try:
            return await self._ledger.commit(command)
        except CommandRejected as rejected:
            log.warning("command.rejected: %s: %s", type(command).__name__, rejected.reason)
            return None

    async def _report(self) -> None:
        while True:
            now = self._executor.capacity()
            await self._link.report(TrainerReport(self._epoch, now.nodes, now.cpus, now.cpus_used, self._mode))
            await asyncio.sleep(_REPORT_SECONDS)

    def _guarded(self, run: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A named task whose failure ends the trainer."""
        task = asyncio.create_task(run, name=name)
        task.add_done_callback(self._note_failure)
        return task

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and self._failure is None:
            self._failure = error
            self._link.changed.set()


def make_executor(ray_address: str, cpus: int, node: NodeId) -> tuple[Executor, Literal["ray", "inline"]]:
    """Ray where there is an address, else processes of this machine: a stated mode, never a fallback."""
    if not ray_address:
        return InlineExecutor(cpus, node=node), "inline"
    from training.ray_tasks import RayExecutor

    return RayExecutor(ray_address), "ray"


async def serve() -> None:
    """Run with the settings of the environment (see the agent) until SIGTERM. Raises EpochLost."""
    loop = asyncio.get_running_loop()
    current = asyncio.current_task()
    if current is not None:
        loop.add_signal_handler(signal.SIGTERM, current.cancel)
    cpus = int(float(os.environ.get("PARVADA_CPUS") or 0)) or os.cpu_count() or 1
    link = TrainerLink(os.environ["PARVADA_LOCAL_SOCKET"])
    try:
        await link.start()
        node = NodeId(os.environ["PARVADA_NODE_ID"])
        executor, mode = make_executor(os.environ.get("PARVADA_RAY_ADDRESS", ""), cpus, node)
        epoch = int(os.environ["PARVADA_EPOCH"])
        await Trainer(link, executor, epoch, Path(os.environ["PARVADA_TMP"]), mode).run()
    finally:
        await link.stop()


def main() -> int:
    logging.basicConfig(level=os.environ.get("PARVADA_LOG_LEVEL", "INFO").upper(), stream=sys.stderr)
    try:
        asyncio.run(serve())
    except asyncio.CancelledError:
        return 0
    except EpochLost as lost:
        log.warning("epoch.lost: %s", lost)
        return EPOCH_LOST
    return 1


if __name__ == "__main__":
    sys.exit(main())
