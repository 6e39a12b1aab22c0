"""Jobs over HTTP: everything wrong with one is found when it is submitted; progress and leaderboard while it runs."""

from typing import Any

import pytest
import pytest_asyncio

from consensus.messages import BeginEpoch, FoldDone, RecordFolds, StartFolds
from consensus.state import CandidateId, JobId, Json
from tests.unit.node.fabric import Node
from tests.unit.node.http.facts import dataset, run, submit
from tests.unit.node.http.world import World
from training.ports import CurvePoint, FitNews, LiveReport

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _data(api: World) -> None:
    await dataset(api, "data")
    await dataset(api, "more", seed=3)


async def test_a_job_is_accepted_and_shown(api: World) -> None:
    spec = {"name": "spring", "datasets": ["data"], "models": ["GaussianNB"], "cv": {"folds": 3}, "seed": 7}
    answer = await api.call("POST", "/v1/jobs", json=spec)
    assert answer.status == 202
    job = answer.json
    assert (job["name"], job["state"], job["created_by"], job["resumed"]) == ("spring", "queued", "admin", 0)
    assert job["spec"]["seed"] == 7
    assert job["spec"]["search"]["method"] == "none"
    assert (job["progress"]["trials_total"], job["progress"]["fraction"]) == (3, 0.0)
    assert [(unit["dataset"], unit["state"]) for unit in job["per_dataset"]] == [("data", "queued")]
    assert int(answer.headers["x-parvada-index"]) == api.state.index
    assert await api.get(f"/v1/jobs/{job['id']}") == job
    assert (await api.get("/v1/jobs?state=queued&limit=1"))["jobs"] == [job]
    assert job["id"] not in [each["id"] for each in (await api.get("/v1/jobs?state=succeeded"))["jobs"]]


async def test_several_datasets_make_several_units(api: World) -> None:
    spec: dict[str, Any] = {
        "datasets": ["data", {"name": "more", "version": 1, "drop": ["width"]}],
        "models": [{"estimator": "LogisticRegression", "params": {"C": 0.5}}, "DummyClassifier"],
        "order": "sequential",
    }
    job = (await api.call("POST", "/v1/jobs", json=spec)).json
    assert job["name"] == "data+more"
    assert [(unit["dataset"], unit["version"]) for unit in job["per_dataset"]] == [("data", 1), ("more", 1)]
    rows = (await api.get(f"/v1/jobs/{job['id']}/leaderboard?dataset=more"))["rows"]
    assert [(row["dataset"], row["state"]) for row in rows] == [("more", "pending")] * 2
    assert rows[0]["params"]["C"] == 0.5
    wrong = await api.call("GET", f"/v1/jobs/{job['id']}/leaderboard?dataset=mor")
    assert wrong.problem == (404, "unknown_dataset")
    assert "did you mean 'more'" in wrong.json["error"]


async def test_progress_and_leaderboard_while_it_runs_and_after(api: World) -> None:
    job = await submit(api, "data")
    epoch = api.state.epoch.number + 1
    await api.log.propose(BeginEpoch(epoch, api.flock.first.id), actor="test")
    await api.log.propose(StartFolds(epoch, job, ((CandidateId("0.0"), 0),)), actor="trainer")
    shown = await api.get(f"/v1/jobs/{job}")
    assert (shown["state"], shown["progress"]["trials_running"], shown["epochs"]) == ("running", 1, [epoch])
    assert [row["state"] for row in (await api.get(f"/v1/jobs/{job}/leaderboard"))["rows"]] == ["running", "pending"]

    await run(api, job)
    shown = await api.get(f"/v1/jobs/{job}")
    assert (shown["state"], shown["resumed"], shown["progress"]["fraction"]) == ("succeeded", 1, 1.0)
    assert (shown["progress"]["trials_done"], shown["progress"]["trials_failed"]) == (2, 2)
    assert shown["per_dataset"][0]["best_estimator"] == "LogisticRegression"
    assert shown["per_dataset"][0]["model"] == "data"
    best, failed = (await api.get(f"/v1/jobs/{job}/leaderboard"))["rows"]
    assert (best["rank"], best["cv_mean"], best["folds"], best["pareto"]) == (1, pytest.approx(0.85), [0.8, 0.9], True)
    assert (best["holdout"], best["model"]) == ({"roc_auc": 0.85}, "data")
    assert (failed["rank"], failed["state"], failed["reason"]) == (None, "failed", "ValueError: it did not converge")


async def test_a_leaderboard_has_the_notes_of_its_data(api: World) -> None:
    spec = {"datasets": ["data", "more"], "models": ["GaussianNB"]}
    job = (await api.call("POST", "/v1/jobs", json=spec)).json
    note = (
        "metric roc_auc, which does not depend on the balance of the classes: "
        "the largest class has 30 rows, the other 30"
    )
    assert [unit["notes"] for unit in job["per_dataset"]] == [[note], [note]]
    board = await api.get(f"/v1/jobs/{job['id']}/leaderboard")
    assert board["notes"] == [f"data: {note}", f"more: {note}"]
    assert (await api.get(f"/v1/jobs/{job['id']}/leaderboard?dataset=more"))["notes"] == [f"more: {note}"]


async def test_a_job_in_which_nothing_beats_the_baseline_says_so(api: World) -> None:
    job = await submit(api, "data", ("LogisticRegression", "DummyClassifier", "GaussianNB"))
    epoch = api.state.epoch.number + 1
    await api.log.propose(BeginEpoch(epoch, api.flock.first.id), actor="test")
    folds = tuple((CandidateId("0.1"), fold) for fold in range(2))
    await api.log.propose(StartFolds(epoch, job, folds), actor="trainer")
    done = tuple(FoldDone(name, fold, Json(b'{"roc_auc": 0.9}'), 0.5, 3.0) for name, fold in folds)
    await api.log.propose(RecordFolds(epoch, job, done), actor="trainer")
    assert len((await api.get(f"/v1/jobs/{job}"))["per_dataset"][0]["notes"]) == 1, "it is not over yet"
    await run(api, job, failing="0.2")
    shown = (await api.get(f"/v1/jobs/{job}"))["per_dataset"][0]
    assert (shown["best_estimator"], shown["best_score"], shown["state"]) == (
        "LogisticRegression",
        pytest.approx(0.85),
        "done",
    )
    said = "no model beats the baseline in roc_auc: DummyClassifier has 0.9000, LogisticRegression 0.8500"
    assert shown["notes"][-1] == said
    board = await api.get(f"/v1/jobs/{job}/leaderboard")
    assert [row["estimator"] for row in board["rows"]][:2] == ["DummyClassifier", "LogisticRegression"]
    assert board["notes"][-1] == said


async def test_cancelled_and_tried_again(api: World) -> None:
    job = await submit(api, "data")
    assert (await api.call("POST", f"/v1/jobs/{job}/cancel")).json["state"] == "cancelled"
    again = await api.call("POST", f"/v1/jobs/{job}/cancel")
    assert again.problem == (409, "conflict")
    retried = await api.call("POST", f"/v1/jobs/{job}/retry")
    assert (retried.status, retried.json["state"], retried.json["ended_at"]) == (200, "queued", None)
    assert (await api.call("POST", f"/v1/jobs/{job}/retry")).problem == (409, "conflict")


async def test_ids_sort_by_time(api: World) -> None:
    ids = [await submit(api, "data", ("DummyClassifier",)) for _ in range(3)]
    assert len({*ids}) == 3
    assert [len(job) for job in ids] == [12] * 3
    assert [job[:8] for job in ids] == sorted(job[:8] for job in ids)


def _spec(**changes: Any) -> dict[str, Any]:
    return {"datasets": ["data"], "models": ["GaussianNB"], **changes}


BAD: list[tuple[str, Any, int, str, str]] = [
    ("dataset", _spec(datasets=["dat"]), 404, "unknown_dataset", "did you mean 'data'"),
    ("version", _spec(datasets=[{"name": "data", "version": 9}]), 404, "unknown_version", "it has 1"),
    ("version-0", _spec(datasets=[{"name": "data", "version": 0}]), 404, "unknown_version", "version 0"),
    ("no-dataset", _spec(datasets=[]), 400, "no_datasets", "at least one"),
    ("target", _spec(datasets=[{"name": "data", "target": "knid"}]), 400, "unknown_column", "did you mean 'kind'"),
    ("estimator", _spec(models=["GausianNB"]), 400, "", "did you mean 'GaussianNB'"),
    ("regressor", _spec(models=["LinearRegression"]), 400, "", "LinearRegression"),
    ("param", _spec(models=[{"estimator": "LogisticRegression", "params": {"c": 1}}]), 400, "", "did you mean 'C'"),
    ("value", _spec(models=[{"estimator": "LogisticRegression", "params": {"C": "x"}}]), 400, "", "C"),
    ("metric", _spec(metric="acuracy"), 400, "", "did you mean 'accuracy'"),
    ("no-models", _spec(models=[]), 400, "no_models", "models"),
    ("folds", _spec(cv={"folds": 1}), 400, "invalid_value", "cv.folds is 1"),
    ("holdout", _spec(cv={"holdout": 0.9}), 400, "invalid_value", "cv.holdout is 0.9"),
    ("seed", _spec(seed=-1), 400, "invalid_value", "seed is -1"),
    ("alias", _spec(publish={"alias": "a b"}), 400, "invalid_name", "'a b'"),
    ("field", _spec(publsh={}), 400, "invalid", "did you mean 'publish'"),
    ("inner-field", _spec(cv={"fold": 3}), 400, "invalid", "did you mean 'folds'"),
    ("type", _spec(seed="seven"), 400, "invalid", "seed"),
    ("choice", _spec(order="random"), 400, "invalid", "random"),
    ("missing", {"models": ["GaussianNB"]}, 400, "invalid", "datasets"),
    ("not-an-object", [1, 2], 400, "invalid", "object"),
    ("too-many", _spec(models=["GaussianNB"] * 3000), 400, "too_many_candidates", "3000"),
]


@pytest.mark.parametrize(("spec", "status", "code", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
async def test_what_cannot_run_is_refused_and_nothing_is_changed(
    api: World, spec: Any, status: int, code: str, said: str
) -> None:
    before = api.trace()
    answer = await api.call("POST", "/v1/jobs", json=spec)
    found = answer.problem
    assert found == (status, code or found[1]), answer.raw
    assert said in answer.json["error"]
    assert api.trace() == before


@pytest.mark.parametrize(
    ("spec", "details"),
    [
        (_spec(seed="seven"), {"field": "seed", "value": "seven"}),
        (_spec(cv={"folds": 2.5}), {"field": "cv.folds", "value": 2.5}),
        (_spec(datasets=["data", {"name": 3}]), {"field": "datasets[1].name", "value": 3}),
        (_spec(cv={"fold": 3}), {"field": "cv.fold", "value": 3}),
    ],
)
async def test_the_field_and_its_value_are_named(api: World, spec: Any, details: dict[str, Any]) -> None:
    assert (await api.call("POST", "/v1/jobs", json=spec)).json["details"] == details


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b'{"datasets": ["data"], "seed": 1e}', b'{"seed": "x", "datasets": [', b"[" * 100_000],
)
async def test_a_body_that_is_no_json(api: World, body: bytes) -> None:
    before = api.trace()
    status, code = (await api.call("POST", "/v1/jobs", data=body)).problem
    assert (status, code in ("malformed", "invalid")) == (400, True)
    assert api.trace() == before


@pytest.mark.parametrize("depth", [200, 400, 600, 800, 900, 950, 990, 1500, 100_000])
async def test_a_body_nested_too_deeply(api: World, depth: int) -> None:
    before = api.trace()
    value = b'{"C": %b1%b}' % (b"[" * depth, b"]" * depth)
    body = b'{"datasets": ["data"], "models": [{"estimator": "LogisticRegression", "params": %b}]}' % value
    assert (await api.call("POST", "/v1/jobs", data=body)).problem[0] == 400
    assert api.trace() == before


async def test_a_body_beyond_the_limit(api: World) -> None:
    body = b'{"datasets": ["%b"]}' % (b"x" * (4 * 1024 * 1024))
    async with api.session.post(
        api.url + "/v1/jobs", data=iter_bytes(body), headers={"Authorization": "Bearer pvd_admin"}
    ) as response:
        assert response.status == 413
        assert (await response.json())["code"] == "too_large"


async def iter_bytes(body: bytes) -> Any:
    yield body


@pytest.mark.parametrize(
    ("method", "path", "problem"),
    [
        ("GET", "/v1/jobs/none", (404, "unknown_job")),
        ("GET", "/v1/jobs/none/leaderboard", (404, "unknown_job")),
        ("GET", "/v1/jobs/none/events", (404, "unknown_job")),
        ("POST", "/v1/jobs/none/cancel", (404, "unknown_job")),
        ("POST", "/v1/jobs/none/retry", (404, "unknown_job")),
        ("GET", "/v1/jobs?state=done", (400, "invalid")),
        ("GET", "/v1/jobs?limit=-1", (400, "invalid")),
        ("GET", "/v1/jobs/none/curves", (404, "unknown_path")),
        ("PATCH", "/v1/jobs", (405, "method_not_allowed")),
    ],
)
async def test_what_is_not_there(api: World, method: str, path: str, problem: tuple[int, str]) -> None:
    assert (await api.call(method, path)).problem == problem


# ---------------------------------------------------------------- once
async def test_the_same_key_submits_once_also_when_the_data_is_gone(api: World) -> None:
    await dataset(api, "fleeting")
    body, headers = {"datasets": ["fleeting"], "models": ["GaussianNB"]}, {"Idempotency-Key": "one"}
    first = await api.call("POST", "/v1/jobs", json=body, headers=headers)
    again = await api.call("POST", "/v1/jobs", json=body, headers=headers)
    assert (first.status, again.status) == (202, 202)
    assert first.json == again.json
    other = await api.call("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": "two"})
    assert other.json["id"] != first.json["id"]
    for job in (first.json["id"], other.json["id"]):
        await api.call("POST", f"/v1/jobs/{job}/cancel")
    assert (await api.call("DELETE", "/v1/datasets/fleeting")).status == 200
    late = await api.call("POST", "/v1/jobs", json=body, headers=headers)
    assert (late.status, late.json["id"]) == (202, first.json["id"])


async def test_the_same_key_for_another_job_is_a_conflict(api: World) -> None:
    headers = {"Idempotency-Key": "mine"}
    first = await api.call("POST", "/v1/jobs", json=_spec(), headers=headers)
    jobs = set(api.state.jobs)
    other = await api.call("POST", "/v1/jobs", json=_spec(seed=1), headers=headers)
    assert other.problem == (409, "conflict")
    assert first.json["id"] in other.json["error"]
    assert set(api.state.jobs) == jobs


async def test_keys_are_each_callers_own(api: World) -> None:
    headers = {"Idempotency-Key": "ours"}
    answers = [await api.call("POST", "/v1/jobs", json=_spec(), headers=headers, role=r) for r in ("operator", "admin")]
    assert len({answer.json["id"] for answer in answers}) == 2
    assert api.state.jobs[JobId(answers[0].json["id"])].created_by == "operator"


async def test_a_retried_cancel_is_the_same_cancel(api: World) -> None:
    job = await submit(api, "data")
    headers = {"Idempotency-Key": "stop"}
    first = await api.call("POST", f"/v1/jobs/{job}/cancel", headers=headers)
    again = await api.call("POST", f"/v1/jobs/{job}/cancel", headers=headers)
    assert (first.status, again.status, again.json) == (200, 200, first.json)
    assert first.headers["x-parvada-index"] == again.headers["x-parvada-index"]


@pytest.mark.parametrize(("key", "status"), [("x" * 200, 202), ("x" * 201, 400), ("", 202)])
async def test_the_length_of_a_key(api: World, key: str, status: int) -> None:
    answer = await api.call("POST", "/v1/jobs", json=_spec(), headers={"Idempotency-Key": key})
    assert answer.status == status


async def test_live_curves_are_those_of_the_node_that_trains_wherever_one_asks(api: World) -> None:
    job = await submit(api, "data")
    me, other, third = api.flock.nodes
    point = CurvePoint(3, "train", "loss", 0.25, 1.5)

    async def shown_by(head: Node) -> Any:
        epoch = api.state.epoch.number + 1
        await api.log.propose(BeginEpoch(epoch, head.id), actor="test")
        head.live.accept(LiveReport(epoch, (FitNews(job, "0.0", 1, (point,)), FitNews("other", "0.0", 0, (point,)))))
        found = await api.get(f"/v1/jobs/{job}/live")
        assert found["epoch"] == epoch
        return found["fits"]

    series = {"split": "train", "metric": "loss", "iteration": [3], "value": [0.25], "seconds": [1.5]}
    expected = [{"candidate": "0.0", "fold": 1, "series": [series]}]
    assert await shown_by(me) == expected
    assert await shown_by(other) == expected, "asked over the peer port"
    assert (await api.call("GET", "/v1/jobs/nothing/live")).problem == (404, "unknown_job")

    await api.log.propose(BeginEpoch(api.state.epoch.number + 1, third.id), actor="test")
    await third.stop()
    answer = await api.call("GET", f"/v1/jobs/{job}/live")
    assert answer.problem == (503, "head_unreachable")
    await third.start()
    assert (await api.get(f"/v1/jobs/{job}/live"))["fits"] == []
