"""One work item of the plan, from its task to what is committed of its outcome."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from consensus.messages import Command, PublishVersion, RecordFinal
from consensus.state import DatasetVersion, Json
from parvada.local import Proposed
from training.errors import EpochLost, TaskFailed, TrainingError, WorkerLost
from training.ledger import Ledger, fold_result
from training.live import LiveFeed
from training.plan import REFIT, Work
from training.ports import Executor
from training.recipes import Assignment, Publication, assignment, final_result, publication
from training.recorder import Recorder
from training.tasks import FoldOutcome, RefitOutcome
from training.trainer_link import TrainerLink, held

log = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
MAX_LOSSES = 3
"""A task whose worker died so often is taken for the cause."""


class Runner:
    """`commit` gives None for what makes no sense any more. `computed` is told of a fold whose CPU is free, while its
    result is on its way into the log."""

    def __init__(
        self,
        epoch: int,
        link: TrainerLink,
        executor: Executor,
        ledger: Ledger,
        recorder: Recorder,
        live: LiveFeed,
        commit: Callable[[Command], Awaitable[Proposed | None]],
        computed: Callable[[Work], None],
    ) -> None:
        self._epoch = epoch
        self._link, self._executor = link, executor
        self._ledger, self._recorder, self._live = ledger, recorder, live
        self._commit, self._computed = commit, computed
        self._parts: dict[str, list[Path]] = {}

    async def run(self, work: Work) -> None:
        """Until its outcome is in the replicated state, or is wanted no more. Raises EpochLost."""
        try:
            given = assignment(self._link.state, work)
            await (self._refit(work, given) if work.fold == REFIT else self._fold(work, given))
        except EpochLost:
            raise
        except TrainingError as error:
            # Nothing is wrong with the task itself (a blob whose holders are away, say): the plan starts it again.
            log.warning("task.delayed: %s: %s", work, error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _fold(self, work: Work, given: Assignment) -> None:
        outcome = await self._outcome(work, given)
        if isinstance(outcome, str):
            outcome = FoldOutcome(failed=outcome)
        if not isinstance(outcome, FoldOutcome):
            raise TypeError(f"a fold gave {type(outcome).__name__}")
        self._computed(work)
        result = fold_result(given.unit, given.candidate, work.fold, outcome, self._epoch)
        await self._recorder.record(work.job, result)

    async def _refit(self, work: Work, given: Assignment) -> None:
        scores = await self._ledger.scores(given.job, given.candidate)
        outcome = await self._outcome(work, given)
        if isinstance(outcome, str):
            outcome = RefitOutcome(failed=outcome)
        if not isinstance(outcome, RefitOutcome):
            raise TypeError(f"a refit gave {type(outcome).__name__}")
        if outcome.not_stored:
            raise TrainingError(outcome.not_stored)
        published = None if outcome.failed else publication(self._link.state, given, outcome, scores)
        if published is None:
            await self._commit(RecordFinal(self._epoch, work.job, work.candidate, final_result(outcome)))
        else:
            await self._publish(work, given, outcome, published)

    async def _publish(self, work: Work, given: Assignment, outcome: RefitOutcome, published: Publication) -> None:
        if outcome.stored is None:
            raise TypeError("a refit that is published gave no file")
        blob = held(outcome.stored)
        command = PublishVersion(
            epoch=self._epoch,
            job=work.job,
            candidate=work.candidate,
            model=published.model,
            digest=blob.digest,
            bytes=blob.bytes,
            task=given.unit.task,
            estimator=given.candidate.estimator,
            engine="sklearn",
            detail=Json(msgspec.json.encode(published.detail)),
            blob=blob,
            alias=published.alias,
            move_alias=published.move_alias,
            final=final_result(outcome, published.model),
        )
        committed = await self._commit(command)
        version = committed.values().get("version") if committed else None
        if isinstance(version, int):
            final = final_result(outcome, published.model, version)
            await self._commit(RecordFinal(self._epoch, work.job, work.candidate, final))

    async def _outcome(self, work: Work, given: Assignment) -> object:
        """The task's result, or the reason (str) why it cannot have one."""
        reason = ""
        for _ in range(MAX_LOSSES):
            try:
                await self._executor.share(given.dataset.digest, await self._local_parts(given.dataset))
                return await self._executor.run(given.task, self._live.of(work))
            except TaskFailed as failed:
                return failed.reason
            except WorkerLost as lost:
                reason = str(lost)
                log.warning("task.lost: %s: %s", given.task.label, lost)
            finally:
                self._live.ended(work)
        return f"its worker process ended {MAX_LOSSES} times: {reason}"

    async def _local_parts(self, dataset: DatasetVersion) -> list[Path]:
        if dataset.digest not in self._parts:
            self._parts[dataset.digest] = [await self._link.blob(part.digest) for part in dataset.parts]
        return self._parts[dataset.digest]
