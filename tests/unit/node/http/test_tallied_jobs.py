"""Tallied jobs over HTTP: pages, sealing, leaderboards from a results file, deletion, retention."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from msgspec.structs import replace

from consensus.levels import LEVEL
from consensus.messages import (
    BeginEpoch,
    CancelJob,
    FoldTally,
    HeldBlob,
    RecordFolds,
    RetryJob,
    SealJob,
    StartFolds,
)
from consensus.queries import referenced_digests
from consensus.shares import cpu_shares
from consensus.state import Candidate, CandidateId, Digest, JobId
from node.http import views
from node.jobs import results
from node.jobs.archivist import FOLLOWED_SECONDS, RETRY_SECONDS, Archivist
from node.peering.words import PeerUnreachable
from tests.support.clock import Clock
from tests.unit.node.http.facts import dataset, propose_candidates, record, run, submit, to_level
from tests.unit.node.http.world import World, world
from training import archive

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = [{"estimator": "LogisticRegression", "search": {"C": [round(0.1 * n, 1) for n in range(1, 31)]}}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(clock: Clock, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with world(tmp_path_factory.mktemp("tallied")) as made:
        await to_level(made, LEVEL)
        await dataset(made, "data")
        yield made


def archivist(api: World, kept: int = 1000, later: float = FOLLOWED_SECONDS + 1) -> Archivist:
    """That of a leader who looks so many seconds later."""
    node = api.flock.first
    return Archivist(
        api.log,
        node.blobs,
        api.flock.distributors[node.id],
        api.ports.fetcher.make_present,
        api.ports.workshop,
        api.tmp,
        kept,
        clock=asyncio.get_running_loop().time,
        now=lambda: time.time() + later,
    )


async def large(api: World) -> JobId:
    """A job of 30 candidates that has ended: the later ones are the better ones, the last one failed."""
    spec = {"datasets": ["data"], "models": MANY, "cv": {"folds": 2}, "publish": {"when": "never"}}
    job = JobId((await api.call("POST", "/v1/jobs", json=spec)).json["id"])
    await api.log.propose(BeginEpoch(api.state.epoch.number + 1, api.flock.first.id), actor="test")
    await propose_candidates(api, job)
    for number in range(29):
        await record(api, job, CandidateId(f"0.{number}"), 0.5 + number / 100, 0.6 + number / 100)
    await api.log.propose(CancelJob(job), actor="test")
    return job


async def test_a_job_is_submitted_as_its_spec_and_runs_as_before(api: World) -> None:
    job = await submit(api, "data")
    found = api.state.jobs[job]
    assert not found.candidates
    assert (await api.get(f"/v1/jobs/{job}"))["progress"]["fits_total"] == 4
    assert (await api.get(f"/v1/jobs/{job}/leaderboard"))["rows"] == []
    await run(api, job)
    shown = await api.get(f"/v1/jobs/{job}")
    progress = shown["progress"]
    assert (shown["state"], progress["fits_done"], progress["fits_failed"]) == ("succeeded", 2, 2)
    assert (progress["trials_total"], progress["trials_done"]) == (4, 2), "the earlier names"
    unit = shown["per_dataset"][0]
    assert (unit["best_estimator"], unit["best_score"], unit["model"]) == (
        "LogisticRegression", pytest.approx(0.85), "data",
    )  # fmt: skip
    best, failed = (await api.get(f"/v1/jobs/{job}/leaderboard"))["rows"]
    assert (best["rank"], best["folds"], best["fit_seconds"], best["predict_us_per_row"]) == (1, [0.8, 0.9], 0.5, 3.0)
    assert (failed["state"], failed["reason"]) == ("failed", "ValueError: it did not converge")


async def test_no_more_fits_run_than_there_are_cpus_for(api: World) -> None:
    """Of those that the state calls running, some have ended, and their results are on their way."""
    spec = {"datasets": ["data"], "models": MANY, "cv": {"folds": 2}}
    job = JobId((await api.call("POST", "/v1/jobs", json=spec)).json["id"])
    await api.log.propose(BeginEpoch(api.state.epoch.number + 1, api.flock.first.id), actor="test")
    await propose_candidates(api, job)
    await record(api, job, CandidateId("0.29"), 0.5, 0.6)
    started = tuple((CandidateId(f"0.{number}"), fold) for number in range(20) for fold in range(2))
    await api.log.propose(StartFolds(api.state.epoch.number, job, started), actor="trainer")
    cpus = sum(cpu_shares(api.state.members.values()).values())
    progress = (await api.get(f"/v1/jobs/{job}"))["progress"]
    assert (progress["fits_running"], cpus) == (6, 6)
    assert progress["eta_seconds"] == pytest.approx(58 * 0.5 / 6, abs=0.1)


async def test_pages_have_each_job_once_newest_first(api: World) -> None:
    made = [await submit(api, "data", ("DummyClassifier",)) for _ in range(5)]
    seen: list[str] = []
    query = "/v1/jobs?limit=2"
    after: str | None = ""
    while after is not None:
        page = await api.get(query + (f"&after={after}" if after else ""))
        assert len(page["jobs"]) <= 2
        seen += [job["id"] for job in page["jobs"]]
        after = page["next"]
        if len(seen) == 2:
            await submit(api, "data", ("DummyClassifier",))  # a newer one is on no later page
    assert [job for job in seen if job in made] == made[::-1]
    assert len(seen) == len(set(seen)) == len(api.state.jobs) - 1
    found = await api.get(f"/v1/jobs?prefix={made[0][:10]}")
    assert made[0] in [job["id"] for job in found["jobs"]]
    assert all(job["id"].startswith(made[0][:10]) for job in found["jobs"])
    assert (await api.get(f"/v1/jobs?after={made[1]}&limit=1"))["jobs"][0]["id"] == made[0]


async def test_a_page_goes_on_after_a_job_that_was_deleted_since(api: World) -> None:
    first, second = [await submit(api, "data", ("DummyClassifier",)) for _ in range(2)]
    page = await api.get("/v1/jobs?limit=1")
    assert page["jobs"][0]["id"] == second
    await api.call("POST", f"/v1/jobs/{second}/cancel")
    assert (await api.call("DELETE", f"/v1/jobs/{second}")).json == {"id": second, "deleted": True}
    assert (await api.get(f"/v1/jobs?limit=1&after={page['next']}"))["jobs"][0]["id"] == first


@pytest.mark.parametrize("query", ["after=x", "after=1,5~j", "after=~", "limit=0", "before=1"])
async def test_what_is_no_page(api: World, query: str) -> None:
    assert (await api.call("GET", f"/v1/jobs?{query}")).problem[0] == 400


async def test_what_a_list_tells_of_a_job_is_what_the_job_tells(api: World) -> None:
    job = await submit(api, "data")
    await run(api, job)
    (listed,) = [each for each in (await api.get("/v1/jobs?limit=1000"))["jobs"] if each["id"] == job]
    assert listed == await api.get(f"/v1/jobs/{job}")


class Watched(dict[CandidateId, Candidate]):
    """Counts how often all candidates were looked at."""

    looks = 0

    def values(self) -> Any:
        self.looks += 1
        return super().values()


async def test_a_look_at_a_job_costs_one_look_at_its_candidates_and_no_ranking_while_it_runs(
    api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await large(api)
    await api.log.propose(RetryJob(job), actor="test")
    running = api.state.jobs[job]
    shown = await api.get(f"/v1/jobs/{job}")
    candidates = Watched(running.candidates.items())
    many = replace(running, units=running.units * 100, candidates=candidates)
    views.job(api.state, many)
    views.leaderboard(api.state, many)
    assert candidates.looks == 2, "not one for each unit"
    monkeypatch.setattr(views, "ranked", None)
    assert msgspec.to_builtins(views.job(api.state, running)) == shown
    assert shown["per_dataset"][0]["best"] == "0.28"
    await api.log.propose(CancelJob(job), actor="test")


# ---------------------------------------------------------------- sealing
async def test_a_sealed_job_has_the_same_leaderboard_from_a_file(api: World) -> None:
    job = await large(api)
    board, shown = await api.get(f"/v1/jobs/{job}/leaderboard"), await api.get(f"/v1/jobs/{job}")
    assert [row["candidate"] for row in board["rows"]][:2] == ["0.28", "0.27"]
    assert len(board["rows"]) == 30
    await archivist(api)._round()
    found = api.state.jobs[job]
    assert found.sealed
    assert len(found.candidates) == 20
    assert not found.segments
    assert set(api.state.blobs) == referenced_digests(api.state)
    assert len(api.flock.nodes_with(found.results)) == 2, "on two nodes before it is told"
    assert await api.get(f"/v1/jobs/{job}/leaderboard") == board
    assert await api.get(f"/v1/jobs/{job}") == shown | {"sealed": True}
    calls = api.ports.workshop.calls  # type: ignore[attr-defined]
    before = len(calls)
    assert await api.get(f"/v1/jobs/{job}/leaderboard") == board
    assert len(calls) == before, "read once"
    assert not list(api.tmp.iterdir())


async def test_a_large_file_is_read_in_pieces(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop unpacks what comes from the workshop, and nothing else happens meanwhile."""
    monkeypatch.setattr(archive, "BATCH_ROWS", 8)
    monkeypatch.setattr(results, "_PIECE", 8)
    job = await large(api)
    board = await api.get(f"/v1/jobs/{job}/leaderboard")
    await archivist(api)._round()
    calls: list[str] = api.ports.workshop.calls  # type: ignore[attr-defined]
    before = len(calls)
    assert await api.get(f"/v1/jobs/{job}/leaderboard") == board
    assert calls[before:] == [results.READ] * 4


async def test_a_node_without_the_file_fetches_it(api: World) -> None:
    """As any node does: here the copy is lost, and another node has one."""
    job = await large(api)
    board = await api.get(f"/v1/jobs/{job}/leaderboard")
    await archivist(api)._round()
    await api.flock.first.blobs.remove(api.state.jobs[job].results)
    assert await api.get(f"/v1/jobs/{job}/leaderboard") == board


async def test_a_job_that_is_sealed_while_someone_reads_it_is_read_again(
    api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader has a state in which the job has another file, whose blob is gone when it is asked for."""
    job = await large(api)
    await archivist(api)._round()
    for _ in range(2):
        await api.log.propose(RetryJob(job), actor="test")
        await propose_candidates(api, job)
        await api.log.propose(CancelJob(job), actor="test")
        await archivist(api)._round()
    old = api.state.jobs[job]
    board = await api.get(f"/v1/jobs/{job}/leaderboard")
    whole = api.ports.results.whole

    async def late(asked: Any) -> Any:
        if asked is old:
            await api.log.propose(RetryJob(job), actor="test")
            await propose_candidates(api, job)
            await record(api, job, CandidateId("0.29"), 0.99, 0.99)
            await api.log.propose(CancelJob(job), actor="test")
            await archivist(api)._round()
            raise PeerUnreachable("nobody has it any more")
        return await whole(asked)

    monkeypatch.setattr(api.ports.results, "whole", late)
    again = await api.get(f"/v1/jobs/{job}/leaderboard")
    assert again != board
    assert again["rows"][0]["candidate"] == "0.29"


async def test_a_job_that_is_deleted_while_someone_reads_it_is_gone(
    api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await large(api)
    await archivist(api)._round()

    async def late(asked: Any) -> Any:
        assert (await api.call("DELETE", f"/v1/jobs/{job}")).status == 200
        raise PeerUnreachable("nobody has it any more")

    monkeypatch.setattr(api.ports.results, "whole", late)
    assert (await api.call("GET", f"/v1/jobs/{job}/leaderboard")).problem == (404, "unknown_job")


async def test_a_segment_that_nobody_reaches_delays_the_seal_and_one_that_is_gone_does_not(
    api: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await large(api)
    lost = api.state.jobs[job].segments[3]
    fetch = api.ports.fetcher.make_present

    async def broken(digest: Digest) -> Path:
        if digest == lost:
            raise PeerUnreachable("its holders are away")
        return await fetch(digest)

    keeper = archivist(api)
    keeper._make_present = broken
    await keeper._round()
    assert not api.state.jobs[job].sealed
    await keeper._round()
    assert not api.state.jobs[job].sealed, "not before it may have come back"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.jobs.archivist.holders", lambda state, digest: ())
        keeper._not_before.clear()
        await keeper._round()
    assert api.state.jobs[job].sealed
    rows = (await api.get(f"/v1/jobs/{job}/leaderboard"))["rows"]
    assert len(rows) == 30, "the tally is all that a row needs"
    assert RETRY_SECONDS > 1


async def keep(api: World, content: bytes) -> HeldBlob:
    return HeldBlob(await api.flock.first.keep(content), len(content), (api.flock.first.id,))


async def test_a_segment_that_can_be_read_by_nobody_does_not_keep_its_job_from_being_sealed(api: World) -> None:
    job = await large(api)
    await api.log.propose(RetryJob(job), actor="test")
    epoch, garbage = api.state.epoch.number, await keep(api, b"no segment")
    tally = FoldTally(CandidateId("0.29"), 0, 0.9, 1.0, 1.0)
    await api.log.propose(RecordFolds(epoch, job, tallies=(tally,), segment=garbage), actor="trainer")
    await api.log.propose(CancelJob(job), actor="test")
    await archivist(api)._round()
    found = api.state.jobs[job]
    assert found.sealed
    costs = archive.read_costs(str(await api.ports.fetcher.make_present(found.results)))
    assert costs[CandidateId("0.29"), 0] == (0.9, 1.0, 1.0), "of the tally"
    assert len(costs) == 59


async def test_a_results_file_that_can_be_read_by_nobody_is_named(api: World) -> None:
    job = await large(api)
    garbage = await keep(api, b"no results file")
    await api.log.propose(SealJob(job, api.state.jobs[job].ended_at, garbage, ()), actor="leader")
    answer = await api.call("GET", f"/v1/jobs/{job}/leaderboard")
    assert answer.problem == (500, "unreadable_results")
    assert job in answer.json["error"]
    await api.log.propose(RetryJob(job), actor="test")
    await api.log.propose(CancelJob(job), actor="test")
    await archivist(api)._round()
    assert api.state.jobs[job].sealed
    assert (await api.get(f"/v1/jobs/{job}/leaderboard"))["rows"] == []


async def test_whatever_is_wrong_with_a_job_the_next_one_is_sealed(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that fell over a job would be followed by one that does, and so on."""
    wrong, sound = await large(api), await large(api)
    run = api.ports.workshop.run

    async def fails(function: str, *args: Any, **more: Any) -> Any:
        if args[0].id == wrong:
            raise KeyError("nobody has thought of this")
        return await run(function, *args, **more)

    monkeypatch.setattr(api.ports.workshop, "run", fails)
    await archivist(api)._round()
    assert (api.state.jobs[wrong].sealed, api.state.jobs[sound].sealed) == (False, True)


async def test_a_leader_that_dies_before_its_seal_is_committed_leaves_nothing(api: World) -> None:
    job = await large(api)
    keeper = archivist(api)

    async def dies(command: object) -> bool:
        assert isinstance(command, SealJob)
        return False

    keeper._propose = dies  # type: ignore[method-assign]
    await keeper._round()
    assert not api.state.jobs[job].sealed
    await archivist(api)._round()
    assert api.state.jobs[job].sealed


async def test_a_job_under_way_is_not_sealed(api: World) -> None:
    job = await submit(api, "data")
    await api.log.propose(BeginEpoch(api.state.epoch.number + 1, api.flock.first.id), actor="test")
    await propose_candidates(api, job)
    await api.log.propose(StartFolds(api.state.epoch.number, job, ((CandidateId("0.0"), 0),)), actor="trainer")
    await archivist(api)._round()
    assert not api.state.jobs[job].sealed


# ---------------------------------------------------------------- deletion and retention
async def test_a_job_is_deleted_once_it_has_ended(api: World) -> None:
    job = await submit(api, "data")
    assert (await api.call("DELETE", f"/v1/jobs/{job}")).problem == (409, "in_use")
    await run(api, job)
    headers = {"Idempotency-Key": "away"}
    for _ in range(2):
        assert (await api.call("DELETE", f"/v1/jobs/{job}", headers=headers)).status == 200
    assert (await api.call("DELETE", f"/v1/jobs/{job}")).problem == (404, "unknown_job")
    assert (await api.call("GET", f"/v1/jobs/{job}/leaderboard")).problem == (404, "unknown_job")
    assert "data" in api.state.models


async def test_a_submission_that_is_repeated_after_its_job_was_deleted_is_told_so(api: World) -> None:
    spec = {"datasets": ["data"], "models": ["DummyClassifier"]}
    headers = {"Idempotency-Key": "once"}
    job = (await api.call("POST", "/v1/jobs", json=spec, headers=headers)).json["id"]
    await api.log.propose(CancelJob(job), actor="test")
    assert (await api.call("DELETE", f"/v1/jobs/{job}")).status == 200
    again = await api.call("POST", "/v1/jobs", json=spec, headers=headers)
    assert again.problem == (409, "conflict")
    assert "deleted" in again.json["error"]
    assert job not in api.state.jobs


@pytest.mark.parametrize("call", ["cancel", "retry"])
async def test_a_call_that_is_repeated_after_its_job_was_deleted_is_told_so(api: World, call: str) -> None:
    job = await submit(api, "data", ("DummyClassifier",))
    if call == "retry":
        await api.log.propose(CancelJob(job), actor="test")
    headers = {"Idempotency-Key": f"{call} once"}
    assert (await api.call("POST", f"/v1/jobs/{job}/{call}", headers=headers)).status == 200
    if call == "retry":
        await api.log.propose(CancelJob(job), actor="test")
    assert (await api.call("DELETE", f"/v1/jobs/{job}")).status == 200
    assert (await api.call("POST", f"/v1/jobs/{job}/{call}", headers=headers)).problem == (404, "unknown_job")


async def test_the_oldest_go_by_themselves_but_for_those_that_an_alias_names(fresh: World) -> None:
    await to_level(fresh, LEVEL)
    await dataset(fresh, "data")
    named = await submit(fresh, "data")
    await run(fresh, named)
    others = [await submit(fresh, "data", ("DummyClassifier",)) for _ in range(4)]
    for job in others:
        await fresh.log.propose(CancelJob(job), actor="test")
    running = await submit(fresh, "data")
    await archivist(fresh, kept=0, later=0.0)._round()
    assert set(fresh.state.jobs) == {named, *others, running}, "whoever follows a job sees how it ended"
    await archivist(fresh, kept=2)._round()
    assert set(fresh.state.jobs) == {named, *others[2:], running}
