"""Both clients against real servers: fail-over, idempotency, tokens, uploads, events; and that they are alike."""

import asyncio
import inspect
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from parvada import AsyncClient, Client, errors, job_spec
from parvada._protocol import REST_SECONDS
from tests.support.clock import Clock
from tests.unit.parvada import canned
from tests.unit.parvada.scripted import Answer, ScriptedNode, Seen, event_block, free_port, from_table, problem

Use = Callable[[Any], Any]


def sync_use(
    urls: list[str],
    use: str,
    *args: Any,
    token: Any = None,
    timeout: float = 20.0,
    patience: float = 20.0,
    **kwargs: Any,
) -> Any:
    with Client(urls, token, timeout=timeout, patience=patience) as client:
        return getattr(client, use)(*args, **kwargs)


def async_use(
    urls: list[str],
    use: str,
    *args: Any,
    token: Any = None,
    timeout: float = 20.0,
    patience: float = 20.0,
    **kwargs: Any,
) -> Any:
    async def run() -> Any:
        async with AsyncClient(urls, token, timeout=timeout, patience=patience) as client:
            return await getattr(client, use)(*args, **kwargs)

    return asyncio.run(run())


@pytest.fixture(params=[sync_use, async_use], ids=["Client", "AsyncClient"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call one method of either client: `call(urls, "method", …)`."""
    found: Callable[..., Any] = request.param
    return found


@pytest.fixture
def node() -> Iterator[ScriptedNode]:
    with ScriptedNode(from_table({"GET /v1/cluster": canned.cluster()})) as running:
        yield running


def test_the_clients_are_alike() -> None:
    def surface(kind: type) -> dict[str, list[str]]:
        members = inspect.getmembers(kind, callable)
        return {name: list(inspect.signature(f).parameters) for name, f in members if not name.startswith("_")}

    def documented(kind: type) -> set[str]:
        return {name for name in surface(kind) if inspect.getdoc(getattr(kind, name))}

    assert surface(Client) == surface(AsyncClient)
    assert len(surface(Client)) > 30
    assert documented(Client) == set(surface(Client))


def test_goes_to_the_next_node_when_one_is_dead(call: Callable[..., Any], node: ScriptedNode) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    assert call([dead, node.url], "status").name == "parvada"


def test_goes_to_the_next_node_when_one_hangs(call: Callable[..., Any], node: ScriptedNode) -> None:
    with ScriptedNode(lambda _: Answer(stall=True)) as paused:
        assert call([paused.url, node.url], "status", timeout=0.1).term == 7


def test_a_write_that_broke_in_mid_air_is_repeated_under_the_same_key(call: Callable[..., Any]) -> None:
    submitted = canned.job()
    with (
        ScriptedNode(lambda _: Answer(drop=True)) as first,
        ScriptedNode(from_table({"POST /v1/jobs": Answer(202, submitted)})) as second,
    ):
        job = call([first.url, second.url], "submit", job_spec("iris", folds=3, seed=1))
        assert job.id == submitted["id"]
        keys = {seen.headers["idempotency-key"] for seen in first.seen + second.seen}
        assert len(keys) == 1, "both attempts are one command"
        assert len(next(iter(keys))) >= 16
        assert b'"folds":3' in second.seen[0].body


def test_two_writes_have_two_keys_unless_the_caller_gives_one(call: Callable[..., Any]) -> None:
    with ScriptedNode(from_table({"POST /v1/jobs": canned.job()})) as node:
        call([node.url], "submit", job_spec("iris"))
        call([node.url], "submit", job_spec("iris"))
        call([node.url], "submit", job_spec("iris"), key="mine")
        first, second, third = (seen.headers["idempotency-key"] for seen in node.seen)
    assert first != second
    assert third == "mine"


def test_waits_out_an_election(call: Callable[..., Any]) -> None:
    answers = iter([problem(503, "no_quorum"), problem(503, "no_quorum")])
    script = from_table({"POST /v1/jobs": lambda _: next(answers, Answer(202, canned.job()))})

    def hurried(seen: Seen) -> Answer:
        answer = script(seen)
        return Answer(answer.status, answer.value, {"Retry-After": "0.05"}) if answer.status == 503 else answer

    with ScriptedNode(hurried) as node:
        assert call([node.url], "submit", job_spec("iris")).id == "01kabc"
        assert len(node.seen) == 3


def test_a_lost_quorum_is_told_within_the_patience(call: Callable[..., Any]) -> None:
    refusal = problem(503, "no_quorum", "1 of 3 voters is alive")
    with ScriptedNode(lambda _: Answer(503, refusal.value, {"Retry-After": "0.05"})) as node:
        with pytest.raises(errors.NoQuorum, match="1 of 3 voters"):
            call([node.url], "submit", job_spec("iris"), patience=0.2)
        assert 1 <= len(node.seen) <= 4, "each after the pause that the node asked for, and none after the patience"
        node.seen.clear()
        with pytest.raises(errors.NoQuorum, match="1 of 3 voters"):
            call([node.url], "submit", job_spec("iris"), patience=0.05)
        assert len(node.seen) == 1, "a pause as long as the patience is not waited for"


def test_a_blocking_client_is_patient_in_its_own_time() -> None:
    now = 0.0
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        pauses.append(seconds)

    with ScriptedNode(lambda _: problem(503, "no_quorum")) as node:
        with Client(node.url, patience=60.0, clock=lambda: now, sleep=sleep) as client:
            with pytest.raises(errors.NoQuorum):
                client.submit(job_spec("iris"))
        assert len(node.seen) == 60 / REST_SECONDS
    assert (now, set(pauses)) == (60 - REST_SECONDS, {0.0, REST_SECONDS})


async def test_an_asynchronous_client_is_patient_in_the_time_of_its_loop(clock: Clock) -> None:
    clock.hold()
    with ScriptedNode(lambda _: problem(503, "no_quorum")) as node:
        async with AsyncClient(node.url, patience=3.5) as client:
            resting = client._route._resting
            submitted = asyncio.create_task(client.submit(job_spec("iris")))
            for _ in range(3):
                await clock.outside("its pause", lambda: resting.get(node.url, 0.0) > clock())
                await clock.advance(REST_SECONDS)
            with pytest.raises(errors.NoQuorum):
                await submitted
        assert len(node.seen) == 4


def test_nobody_there(call: Callable[..., Any]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(errors.Unreachable, match=url):
        call([url], "status", patience=0.0)


def test_an_error_of_the_caller_is_not_retried(call: Callable[..., Any]) -> None:
    answer = problem(422, "ragged_row", "row 7 has 3 fields, expected 5", row=7)
    with ScriptedNode(lambda _: answer) as node, ScriptedNode(lambda _: answer) as other:
        with pytest.raises(errors.Invalid) as caught:
            call([node.url, other.url], "upload", "iris", b"a,b\n1\n")
        assert caught.value.details == {"row": 7}
        assert (len(node.seen), len(other.seen)) == (1, 0)


def test_something_else_on_the_port_is_said_to_be_something_else(call: Callable[..., Any]) -> None:
    with ScriptedNode(lambda _: Answer(200, b"<html>router login</html>")) as node:
        with pytest.raises(errors.BadAnswer, match="not Parvada's"):
            call([node.url], "status")


def test_the_token_goes_out_with_writes_and_where_reads_demand_it(call: Callable[..., Any]) -> None:
    def guarded(seen: Seen) -> Answer:
        if seen.headers.get("authorization") != "Bearer t1":
            return problem(401, "unauthorized")
        return Answer(200, canned.cluster())

    asked: list[int] = []

    def provider() -> str:
        asked.append(1)
        return "t1"

    with ScriptedNode(guarded) as node:
        assert call([node.url], "status", token=provider).term == 7
        assert [seen.headers.get("authorization") for seen in node.seen] == [None, "Bearer t1"]
        with pytest.raises(errors.Unauthorized):
            call([node.url], "status")
    assert len(asked) == 1


@pytest.mark.parametrize("kind", ["path", "bytes", "file", "pipe", "frame"])
def test_uploads_whole_and_says_how_far_it_is(call: Callable[..., Any], kind: str, tmp_path: Path) -> None:
    content = b"a,species\n" + b"1,x\n" * 200_000
    path = tmp_path / "big.csv"
    path.write_bytes(content)
    steps: list[tuple[int, int]] = []
    answer = canned.dataset()
    with ScriptedNode(
        from_table({"PUT /v1/datasets/my%20iris": Answer(201, answer), "PUT /v1/datasets/my iris": Answer(201, answer)})
    ) as node:
        source = _source(kind, path)
        try:
            made = call(
                [node.url],
                "upload",
                "my iris",
                source,
                target="species",
                drop=["id", "x, y"],
                types=["a:b:category"],
                missing=[],
                decimal=",",
                progress=lambda sent, size: steps.append((sent, size)),
            )
        finally:
            if hasattr(source, "close"):
                source.close()
        seen = node.seen[0]
    assert made.rows == 150
    assert seen.pairs == (
        ("target", "species"),
        ("decimal", ","),
        ("drop", "id"),
        ("drop", "x, y"),
        ("types", "a:b:category"),
        ("missing", ""),
    )
    assert int(seen.headers["content-length"]) == len(seen.body)
    assert steps[-1] == (len(seen.body), len(seen.body))
    if kind == "frame":
        assert seen.headers["content-type"] == "application/vnd.apache.parquet"
        assert len(pd.read_parquet(io.BytesIO(seen.body))) == 200_000
    else:
        assert seen.body == content
        assert len(steps) > 2
        assert seen.headers["content-type"] == ("application/octet-stream" if kind in ("bytes", "pipe") else "text/csv")


def _source(kind: str, path: Path) -> Any:
    if kind == "path":
        return path
    if kind == "bytes":
        return path.read_bytes()
    if kind == "file":
        return path.open("rb")
    if kind == "pipe":
        return _Pipe(path.read_bytes())
    return pd.read_csv(path)


class _Pipe(io.RawIOBase):
    """A stream that cannot seek, as standard input."""

    def __init__(self, content: bytes) -> None:
        self._rest = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._rest.readinto(buffer)


def test_an_upload_starts_again_at_another_node(call: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b\n" * 100_000)
    with (
        ScriptedNode(lambda _: Answer(drop=True)) as first,
        ScriptedNode(lambda _: Answer(201, canned.dataset())) as second,
    ):
        call([first.url, second.url], "upload", "x", path)
        assert second.seen[0].body == path.read_bytes()


def test_a_download_is_there_once_it_is_whole(call: Callable[..., Any], tmp_path: Path) -> None:
    """A node that dies in its middle leaves nothing of it; another one gives all."""
    content = bytes(range(256)) * 4_000

    def half(seen: Seen) -> Answer:
        return Answer(200, content[:100_000], {"Content-Length": str(len(content))}, drop_after=True)

    to = tmp_path / "iris.parquet"
    with ScriptedNode(half) as first, ScriptedNode(lambda _: Answer(200, content)) as second:
        assert call([first.url, second.url], "download", "iris", to, version=2) == to
        assert to.read_bytes() == content
        assert first.seen
        assert second.seen[0].path == "/v1/datasets/iris/versions/2/content"
        assert second.seen[0].query == {"format": "parquet"}
    with ScriptedNode(lambda _: problem(404, "unknown_dataset")) as node:
        with pytest.raises(errors.NotFound):
            call([node.url], "download", "none", tmp_path / "none.csv", format="csv")
    assert [path.name for path in tmp_path.iterdir()] == ["iris.parquet"]


def test_predicts_from_rows_and_frames_with_gaps(call: Callable[..., Any]) -> None:
    with ScriptedNode(lambda _: Answer(200, canned.PREDICTION)) as node:
        rows = [{"petal": 1.5, "when": pd.Timestamp("2026-01-02"), "gone": None}]
        assert call([node.url], "predict", "iris", rows).predictions == ["setosa"]
        frame = pd.DataFrame({"petal": [1.5, None], "when": [pd.Timestamp("2026-01-02"), pd.NaT], "n": [1, 2]})
        call([node.url], "predict", "iris", frame, version=3)
        call([node.url], "predict", "iris", b"petal\n1.5\n")
    first, second, third = node.seen
    assert first.body == b'{"rows":[{"petal":1.5,"when":"2026-01-02T00:00:00","gone":null}]}'
    assert second.path == "/v1/models/iris/versions/3/predict"
    assert second.body == (b'{"columns":["petal","when","n"],"data":[[1.5,"2026-01-02T00:00:00",1],[null,null,2]]}')
    assert (third.body, third.headers["content-type"]) == (b"petal\n1.5\n", "text/csv")


def test_waits_for_a_job_and_sees_it_move() -> None:
    states = iter([canned.job(fraction=0.2), canned.job(fraction=0.2), canned.job(fraction=0.8)])
    end = canned.job(fraction=1.0, state="succeeded")
    with ScriptedNode(from_table({"GET /v1/jobs/01kabc": lambda _: next(states, end)})) as node:
        with Client(node.url) as client:
            seen = [job.progress.fraction for job in client.wait_for_job("01kabc", every=0.01)]
    assert seen == [0.2, 0.8, 1.0]


async def test_a_wait_has_an_end() -> None:
    with ScriptedNode(from_table({"GET /v1/jobs/01kabc": canned.job()})) as node:
        async with AsyncClient(node.url) as client:
            with pytest.raises(errors.JobTimeout, match="it runs on"):
                async for _ in client.wait_for_job("01kabc", timeout=0.05, every=0.02):
                    pass


async def test_events_go_on_at_another_node_without_gap_or_repeat() -> None:
    table = from_table({"GET /v1/events": None})
    with ScriptedNode(table, "n1") as first, ScriptedNode(table, "n2") as second:
        first.events = [event_block(1), b": keepalive\n\n", event_block(3)]
        second.events = [event_block(1), b": keepalive\n\n", event_block(3), event_block(4)]
        async with AsyncClient([first.url, second.url], patience=30.0) as client:
            seen: list[int] = []
            async with asyncio.timeout(30):
                async for event in client.events():
                    seen.append(event.index)
                    if event.index == 3:
                        await asyncio.to_thread(first.stop)
                    if event.index == 4:
                        break
        assert seen == [1, 3, 4]
        assert second.calls("GET", "/v1/events")[0].query["since"] == "3"


def test_events_reach_the_blocking_client_as_they_happen() -> None:
    with ScriptedNode(from_table({"GET /v1/events": None})) as node:
        node.events = [event_block(1), event_block(2, "model.published", "iris")]
        with Client(node.url) as client:
            events = client.events()
            assert [next(events).kind, next(events).kind] == ["job.submitted", "model.published"]
            events.close()  # type: ignore[attr-defined]


def test_threads_share_a_client() -> None:
    with ScriptedNode(from_table({"GET /v1/cluster": canned.cluster()})) as node, Client(node.url) as client:
        terms: list[int] = []
        threads = [
            threading.Thread(target=lambda: terms.extend(client.status().term for _ in range(20))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert terms == [7] * 160


def test_a_connection_that_the_node_closed_in_between_is_not_a_failure() -> None:
    port = free_port()
    table = from_table({"GET /v1/cluster": canned.cluster()})
    with Client(f"http://127.0.0.1:{port}", patience=0.0) as client:
        with ScriptedNode(table, port=port):
            assert client.status().term == 7
        with ScriptedNode(table, port=port):
            assert client.status().term == 7
