"""The client and the server agree: every call of `parvada.AsyncClient` but for predictions, against the real API."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from consensus.messages import DropBlobs, HoldBlobs
from consensus.state import JobId
from parvada import AsyncClient, errors, job_spec
from tests.unit.node.http.facts import flowers, run
from tests.unit.node.http.world import ADMIN, World

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def client(api: World) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(api.url, token=ADMIN, patience=0.0) as made:
        yield made


async def test_from_an_upload_to_an_alias(api: World, client: AsyncClient) -> None:
    data = await client.upload("iris", flowers().encode(), target="kind", drop=["colour"])
    assert (data.version, data.rows, len(data.columns)) == (1, 60, 3)
    assert "iris" in [found.name for found in await client.datasets()]
    assert await client.dataset("iris", 1) == data

    job = await client.submit(job_spec("iris", models=["LogisticRegression", "GaussianNB"], folds=2), key="mine")
    assert (
        await client.submit(job_spec("iris", models=["LogisticRegression", "GaussianNB"], folds=2), key="mine")
    ) == job
    assert job.id in [found.id for found in await client.jobs("queued")]
    await run(api, JobId(job.id))
    job = await client.job(job.id)
    assert (job.state, job.progress.fraction, job.per_dataset[0].model) == ("succeeded", 1.0, "iris")
    board = await client.leaderboard(job.id)
    assert [(row.rank, row.state) for row in board.rows] == [(1, "ok"), (None, "failed")]

    assert [model.name for model in await client.models()] == ["iris"]
    assert (await client.model("iris")).aliases == {"production": 1}
    assert (await client.model_version("iris", 1)).metrics == {"roc_auc": 0.85}
    moved = await client.promote("iris", 1, "canary")
    assert (moved.alias, moved.version, moved.previous) == ("canary", 1, 0)
    assert [step.alias for step in await client.alias_history("iris", "canary")] == ["canary"]
    with pytest.raises(errors.Conflict):
        await client.rollback("iris", "canary")
    await client.delete_alias("iris", "canary")
    await client.delete_dataset("iris")
    with pytest.raises(errors.NotFound, match="there is no dataset 'iris'"):
        await client.dataset("iris")


async def test_a_job_is_cancelled_and_tried_again(client: AsyncClient) -> None:
    await client.upload("stopped", flowers().encode())
    job = await client.submit(job_spec("stopped", models=["GaussianNB"]))
    with pytest.raises(errors.Conflict, match=job.id):
        await client.delete_dataset("stopped")
    assert (await client.cancel(job.id)).state == "cancelled"
    assert (await client.retry(job.id)).state == "queued"


async def test_the_cluster_and_who_may_change_it(api: World, client: AsyncClient) -> None:
    cluster = await client.status(linearizable=True)
    assert (cluster.leader, cluster.quorum, len(await client.nodes())) == (api.flock.first.id, True, 3)
    await client.drain("node-1")
    await client.undrain("node-1")
    await client.transfer(api.flock.first.id)
    assert len((await client.stats()).nodes) == 3
    token = await client.create_token("ci", "viewer")
    assert token.token
    assert token.id in [found.id for found in await client.tokens()]
    async with AsyncClient(api.url, token=token.token, patience=0.0) as viewer:
        with pytest.raises(errors.Forbidden, match="viewer"):
            await viewer.drain("node-1")
    await client.revoke_token(token.id)
    assert (await client.audit())[0].call == "RevokeToken"
    await client.upload("kept", flowers(seed=7).encode())
    ids = [node.id for node in api.flock.nodes]
    kept = tuple(part.digest for part in api.state.datasets["kept"].versions[1].parts)
    await api.log.propose(HoldBlobs(ids[2], kept), actor="test")
    for other in ids[:2]:
        await api.log.propose(DropBlobs(other, kept), actor="test")
    with pytest.raises(errors.Conflict, match="dataset kept 1"):
        await client.remove_node("node-2")


async def test_bad_input_is_said_as_it_was(client: AsyncClient) -> None:
    with pytest.raises(errors.ApiError, match="did you mean 'length'") as caught:
        await client.upload("bad", flowers().encode(), target="lenght")
    assert (caught.value.status, caught.value.code) == (422, "target_missing")
    assert caught.value.details["column"] == "lenght"


async def test_events(api: World, client: AsyncClient) -> None:
    start = api.state.index
    await client.upload("told", flowers().encode())
    async with asyncio.timeout(30):
        async for event in client.events(since=start):
            assert (event.kind, event.subject, event.index) == ("dataset.added", "told", api.state.index)
            break
