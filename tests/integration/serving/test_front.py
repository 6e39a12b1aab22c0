"""A real front process on a real port: predicts, refuses, passes on, outlives its agent, shares its port, stops."""

import contextlib
import gzip
import hashlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from serving.view import ServingView
from tests.integration.serving.socket_agent import SocketAgent
from tests.support.http import Answer, request
from tests.support.wait import wait_for
from tests.unit.serving.builders import IRIS_INPUTS, MIXED_ROW, iris_model, mixed_model, model_of, view_of

pytestmark = pytest.mark.timeout(240)

NAMES = [field.name for field in IRIS_INPUTS]
FLOWER = dict(zip(NAMES, [5.1, 3.5, 1.4, 0.2], strict=True))
NODE = "b" * 32


class Fronts:
    """Fronts of one node: processes on one port, beside one agent."""

    def __init__(self, agent: SocketAgent, directory: Path, port: int) -> None:
        self.agent = agent
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.directory = directory
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, **settings: str) -> subprocess.Popen[bytes]:
        env = os.environ | {
            "PARVADA_LOCAL_SOCKET": str(self.agent.path),
            "PARVADA_NODE_ID": NODE,
            "PARVADA_HOST": "127.0.0.1",
            "PARVADA_PORT": str(self.port),
            "PARVADA_MAX_PREDICT_MB": "2",
            "PARVADA_MAX_PREDICT_VALUES": "20000",
        }
        with (self.directory / f"front{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-m", "serving.front"], env=env | settings, stderr=log)
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(30)

    def get(self, path: str, **more: Any) -> Answer:
        return request("GET", self.url + path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> Answer:
        return request("POST", self.url + path, body, **more)

    def wait_until_ready(self) -> None:
        wait_for("the front to be ready", lambda: self.get("/readyz").status == 200, timeout=90)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> tuple[ServingView, dict[str, Path]]:
    directory = tmp_path_factory.mktemp("models")
    first_path, first = iris_model(directory, number=1)
    second_path, second = iris_model(directory, number=2)
    mixed_path, mixed = mixed_model(directory)
    view = view_of(
        model_of(first, second, aliases={"production": 1}),
        model_of(mixed, name="members", aliases={"production": 1}),
        tokens=[("look", "viewer"), ("ask", "predictor")],
    )
    return view, {first.digest: first_path, second.digest: second_path, mixed.digest: mixed_path}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def make_node(
    registry: tuple[ServingView, dict[str, Path]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Fronts]]:
    nodes: list[Fronts] = []
    with tempfile.TemporaryDirectory() as sockets:

        def make() -> Fronts:
            agent = SocketAgent(Path(sockets) / f"{len(nodes)}.sock", *registry)
            agent.__enter__()
            nodes.append(Fronts(agent, tmp_path_factory.mktemp("logs"), free_port()))
            return nodes[-1]

        yield make
        for node in nodes:
            node.stop()
            node.agent.__exit__(None, None, None)


@pytest.fixture(scope="module")
def front(make_node: Callable[[], Fronts]) -> Fronts:
    node = make_node()
    node.start()
    node.wait_until_ready()
    return node


def test_predicts_by_alias_and_by_version(front: Fronts) -> None:
    by_alias = front.post("/v1/models/iris/predict", {"rows": [FLOWER]})
    assert (by_alias.status, by_alias.body["predictions"], by_alias.body["version"]) == (200, [0], 1)
    assert by_alias.headers["x-parvada-node"] == NODE
    assert "x-parvada-stale" not in by_alias.headers
    by_version = front.post("/v1/models/iris/versions/2/predict", {"columns": NAMES, "data": [list(FLOWER.values())]})
    assert (by_version.status, by_version.body["version"]) == (200, 2)
    table = "\n".join([",".join(NAMES), "5.1,3.5,1.4,0.2", "6.7,3.0,5.2,2.3"]).encode()
    by_csv = front.post("/v1/models/iris/predict", table, headers={"Content-Type": "text/csv"})
    assert by_csv.body["predictions"] == [0, 2]


def test_packed_bodies_are_taken_and_bombs_are_not(front: Fronts) -> None:
    packed = gzip.compress(json.dumps({"rows": [FLOWER] * 2000}).encode())
    gzipped = {"Content-Encoding": "gzip"}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", front.port, timeout=30)) as connection:
        connection.request("POST", "/v1/models/iris/predict", packed, headers=gzipped | {"Accept-Encoding": "gzip"})
        taken = connection.getresponse()
        assert (taken.status, taken.headers["content-encoding"]) == (200, "gzip")
        assert json.loads(gzip.decompress(taken.read()))["predictions"] == [0] * 2000
    bomb = gzip.compress(b'{"rows": [' + b" " * 50_000_000 + b"]}")
    refused = front.post("/v1/models/iris/predict", bomb, headers=gzipped)
    assert (refused.status, refused.body["code"]) == (413, "too_large")
    broken = front.post("/v1/models/iris/predict", packed[:100], headers=gzipped)
    assert (broken.status, broken.body["code"]) == (400, "invalid_input")


def test_bodies_that_never_end_take_bounded_memory_and_keep_nobody_out(front: Fronts) -> None:
    head = b"POST /v1/models/iris/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n"
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", front.port), 10)) for _ in range(6)]
        for connection in slow:
            with contextlib.suppress(OSError):  # it may be refused while it is being sent
                connection.sendall(head + b" " * 1_900_000)
        refused = wait_for("a refusal", lambda: select.select(slow, [], [], 1.0)[0], timeout=20)
        assert refused[0].recv(12) == b"HTTP/1.1 429"
        answer = front.post("/v1/models/iris/predict", {"rows": [FLOWER]})
        assert (answer.status, answer.body["predictions"]) == (200, [0])
    large = {"rows": [FLOWER] * 5000}
    wait_for("memory to be free again", lambda: front.post("/v1/models/iris/predict", large).status == 200)


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "code"),
    [
        ("POST", "/v1/models/iris/predict", {"rows": []}, {}, 400, "invalid_input"),
        ("POST", "/v1/models/iris/predict", b"{", {}, 400, "invalid_input"),
        ("POST", "/v1/models/irs/predict", {"rows": [FLOWER]}, {}, 404, "unknown_model"),
        ("POST", "/v1/models/iris/versions/9/predict", {"rows": [FLOWER]}, {}, 404, "unknown_model"),
        ("POST", "/v1/models/iris/versions/x/predict", {"rows": [FLOWER]}, {}, 404, "unknown_model"),
        ("POST", "/v1/models/iris/predict", b" " * 3_000_000, {}, 413, "too_large"),
        ("POST", "/v1/models/iris/predict", {"rows": [FLOWER] * 5001}, {}, 413, "too_large"),
        ("POST", "/v1/models/iris/predict", b"x", {"Content-Type": "image/png"}, 415, "unsupported_format"),
        ("POST", "/v1/models/iris/predict", b"x", {"Content-Encoding": "zip"}, 415, "unsupported_format"),
        ("GET", "/v1/models/iris/predict", None, {}, 405, "method_not_allowed"),
        ("GET", "/v2/nothing", None, {}, 404, "unknown_path"),
        ("DELETE", "/v2/models/iris", None, {}, 405, "method_not_allowed"),
        ("GET", "/v2/models/irs", None, {}, 404, "unknown_model"),
        ("GET", "/v2/models/iris/versions/7/ready", None, {}, 404, "unknown_model"),
        ("POST", "/v2/models/iris/infer", {"inputs": []}, {}, 400, "invalid_input"),
        ("POST", "/v2/models/iris/infer", b"{}", {"Inference-Header-Content-Length": "2"}, 415, "unsupported_format"),
        ("POST", "/v2/repository/index", b"[", {}, 400, "invalid_input"),
        ("GET", "/local/view", None, {}, 404, "unknown_path"),
        ("POST", "/%6cocal/propose", b"x", {}, 404, "unknown_path"),
        ("POST", "/v1/..%2flocal/propose", b"x", {}, 404, "unknown_path"),
    ],
)
def test_every_refusal_is_a_problem(
    front: Fronts, method: str, path: str, body: Any, headers: dict[str, str], status: int, code: str
) -> None:
    answer = request(method, front.url + path, body, headers=headers)
    assert (answer.status, answer.body["code"]) == (status, code)
    assert answer.body["error"]
    assert answer.headers["x-parvada-node"] == NODE


def test_bad_input_names_column_row_and_value(front: Fronts) -> None:
    rows = [MIXED_ROW, MIXED_ROW | {"age": "old"}]
    answer = front.post("/v1/models/members/predict", {"rows": rows})
    assert answer.status == 400
    assert {key: answer.body["details"][key] for key in ("column", "row", "value")} == {
        "column": "age",
        "row": 2,
        "value": "old",
    }


def test_inference_protocol(front: Fronts) -> None:
    assert front.get("/v2").body == front.get("/v2/").body
    assert front.get("/v2").body["name"] == "parvada"
    assert front.get("/v2/health/live").body == {"live": True}
    assert front.get("/v2/health/ready").body == {"ready": True}
    assert front.get("/v2/models").body == {"models": ["iris", "members"]}
    metadata = front.get("/v2/models/members").body
    assert [column["name"] for column in metadata["inputs"]] == list(MIXED_ROW)
    assert metadata["versions"] == ["1"]
    assert front.get("/v2/models/iris/versions/2/ready").body == {"name": "iris", "ready": True}
    config = front.get("/v2/models/iris/config").body
    assert (config["max_batch_size"], config["input"][0]["data_type"]) == (5000, "TYPE_FP64")
    index = front.post("/v2/repository/index").body
    assert [(entry["name"], entry["version"]) for entry in index] == [("iris", "1"), ("iris", "2"), ("members", "1")]
    assert {entry["state"] for entry in index} <= {"READY", "UNKNOWN"}


def test_infer(front: Fronts) -> None:
    tensor = {"name": "input-0", "shape": [2, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2, 6.7, 3, 5.2, 2.3]}
    plain = front.post("/v2/models/iris/infer", {"id": "q1", "inputs": [tensor]})
    assert plain.status == 200
    assert plain.body == {
        "model_name": "iris",
        "model_version": "1",
        "id": "q1",
        "outputs": [{"name": "predict", "shape": [2], "datatype": "INT64", "data": [0, 2]}],
    }
    both = [{"name": "predict_proba", "parameters": {"binary_data": False}}, {"name": "predict"}]
    asked = front.post("/v2/models/iris/versions/2/infer", {"inputs": [tensor], "outputs": both}).body
    assert [(out["name"], out["shape"]) for out in asked["outputs"]] == [("predict_proba", [2, 3]), ("predict", [2])]
    refused = front.post("/v2/models/iris/infer", {"inputs": [tensor], "outputs": [{"name": "transform"}]})
    assert (refused.status, refused.body["details"]["output"]) == (400, "transform")


def test_statistics_count_what_happened(front: Fronts) -> None:
    def success(path: str) -> tuple[int, int]:
        (row,) = front.get(path).body["model_stats"]
        return row["inference_stats"]["success"]["count"], row["inference_count"]

    path = "/v2/models/iris/versions/1/stats"
    requests, rows = success(path)
    front.post("/v1/models/iris/predict", {"rows": [FLOWER] * 3})
    assert success(path) == (requests + 1, rows + 3)
    assert len(front.get("/v2/models/stats").body["model_stats"]) == 3
    assert front.get("/v2/models/iris/versions/8/stats").status == 404
    pid = front.processes[0].pid
    wait_for("a report", lambda: pid in front.agent.reports and front.agent.reports[pid].models)


def test_other_calls_reach_the_agent_byte_for_byte(front: Fronts) -> None:
    body = gzip.compress(os.urandom(3_000_000))
    headers = {"Content-Encoding": "gzip", "Content-Type": "text/csv", "x-parvada-front": "forged", "x-hop": "1"}
    answer = request(
        "PUT", f"{front.url}/v1/datasets/a%20b?target=x+y&status=201", body, headers=headers | {"Connection": "x-hop"}
    )
    assert answer.status == 201
    assert (answer.body["method"], answer.body["path"]) == ("PUT", "/v1/datasets/a%20b?target=x+y&status=201")
    assert (answer.body["bytes"], answer.body["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    sent = answer.body["headers"]
    assert sent["content-encoding"] == "gzip"
    assert sent["x-parvada-front"] == str(front.processes[0].pid)
    assert "x-hop" not in sent
    assert answer.headers["x-parvada-index"] == "12"
    assert "x-secret-hop" not in answer.headers


def test_chunked_uploads_and_head_pass(front: Fronts) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=30)
    connection.request("PUT", "/v1/datasets/x", body=iter([b"a" * 70_000, b"b" * 70_000]), encode_chunked=True)
    assert json.loads(connection.getresponse().read())["bytes"] == 140_000
    connection.request("HEAD", "/v1/cluster")
    assert connection.getresponse().read() == b""
    connection.request("GET", "/v1/cluster")
    assert connection.getresponse().status == 200
    connection.close()


def test_half_an_answer_is_never_taken_for_a_whole_one(front: Fronts) -> None:
    with pytest.raises(ConnectionError):
        front.get("/v1/broken")


def test_memory_of_an_idle_front_and_of_one_with_models(make_node: Callable[[], Fronts], front: Fronts) -> None:
    node = make_node()
    node.agent.show(view_of())
    idle = node.start()
    node.wait_until_ready()
    assert psutil.Process(idle.pid).memory_info().rss < 50 * 2**20


def test_a_new_model_is_loaded_before_anybody_asks(
    make_node: Callable[[], Fronts], registry: tuple[ServingView, dict[str, Path]]
) -> None:
    """And goes on answering, marked stale, when the agent is gone; a new one is found when it is back."""
    node = make_node()
    agent = node.agent
    agent.show(view_of(ready=False, not_ready_reason="not a member yet"))
    process = node.start()
    wait_for("the front", lambda: node.get("/healthz").status == 200)
    waiting = node.get("/readyz")
    assert (waiting.status, waiting.body["error"]) == (503, "not a member yet")
    assert waiting.headers["retry-after"]

    agent.show(registry[0])
    node.wait_until_ready()
    index = node.post("/v2/repository/index", {"ready": True}).body
    assert [(entry["name"], entry["version"]) for entry in index] == [("iris", "1"), ("members", "1")]

    agent.stop()
    refused = node.get("/v1/cluster")
    assert (refused.status, refused.body["code"]) == (503, "agent_away")
    assert refused.headers["retry-after"]
    alone = node.post("/v1/models/iris/predict", {"rows": [FLOWER]})
    assert (alone.status, alone.body["predictions"]) == (200, [0])
    assert int(alone.headers["x-parvada-stale"]) >= 0
    unloaded = node.post("/v1/models/iris/versions/2/predict", {"rows": [FLOWER]})
    assert (unloaded.status, unloaded.body["code"]) == (503, "not_ready")

    agent.start()
    wait_for("the agent", lambda: "x-parvada-stale" not in node.post("/v2/repository/index").headers)
    assert node.post("/v1/models/iris/versions/2/predict", {"rows": [FLOWER]}).body["version"] == 2
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_a_model_that_cannot_be_loaded_is_said_and_the_others_serve(
    make_node: Callable[[], Fronts], registry: tuple[ServingView, dict[str, Path]], tmp_path: Path
) -> None:
    node = make_node()
    damaged = tmp_path / "damaged"
    digest = registry[0].models[1].versions[0].digest
    damaged.write_bytes(b"x" + registry[1][digest].read_bytes()[1:])
    node.agent.files = registry[1] | {digest: damaged}
    node.start()
    wait_for("iris", lambda: node.post("/v1/models/iris/predict", {"rows": [FLOWER]}).status == 200)
    wait_for("the verdict", lambda: "damaged" in node.get("/readyz").body.get("error", ""))
    ready = node.get("/v2/health/ready")
    assert (ready.status, ready.body["ready"]) == (503, False)
    assert "members" in ready.body["error"]
    refused = node.post("/v1/models/members/predict", {"rows": [MIXED_ROW]})
    assert (refused.status, refused.body["code"]) == (503, "model_not_loadable")
    model = node.get("/v2/models/members/ready")
    assert (model.status, model.body["ready"], model.body["name"]) == (503, False, "members")


def test_two_fronts_share_a_port_and_one_takes_over(make_node: Callable[[], Fronts]) -> None:
    """With every call wanting a token, too."""
    node = make_node()
    first, second = node.start(PARVADA_AUTH="all"), node.start(PARVADA_AUTH="all")

    def served_by() -> set[int]:
        answers = [node.get("/v1/x", token="look") for _ in range(20)]
        return {int(answer.body["headers"]["x-parvada-front"]) for answer in answers if answer.status == 200}

    wait_for("both to serve", lambda: served_by() == {first.pid, second.pid}, timeout=90)
    body = {"rows": [FLOWER]}
    assert node.post("/v1/models/iris/predict", body).status == 401
    assert node.post("/v1/models/iris/predict", body, token="other").status == 401
    assert node.post("/v1/models/iris/predict", body, token="look").status == 403
    assert node.get("/v2/models", token="look").status == 200
    for _ in range(6):
        assert node.post("/v1/models/iris/predict", body, token="ask").status == 200

    def counted() -> int:
        path = "/v2/models/iris/versions/1/stats"
        count: int = node.get(path, token="look").body["model_stats"][0]["inference_count"]
        return count

    wait_for("every front to know the node's counts", lambda: all(counted() == 6 for _ in range(8)))
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 0
    assert served_by() == {second.pid}


def test_stopping_finishes_what_is_in_flight_and_cuts_endless_streams(make_node: Callable[[], Fronts]) -> None:
    node = make_node()
    process = node.start()
    node.wait_until_ready()
    with contextlib.ExitStack() as stack:
        events = stack.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)))
        events.request("GET", "/v1/events")
        stream = stack.enter_context(events.getresponse())
        assert stream.readline() == b"id: 1\n"
        slow = stack.enter_context(socket.create_connection(("127.0.0.1", node.port), timeout=30))
        body = json.dumps({"rows": [FLOWER]}).encode()
        head = f"POST /v1/models/iris/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        slow.sendall(head + body[:10])
        wait_for("the request to have begun", lambda: node.get("/healthz").status == 200)
        process.send_signal(signal.SIGTERM)
        wait_for("the port to close", lambda: _refused(node.port))
        slow.sendall(body[10:])
        answer = stack.enter_context(http.client.HTTPResponse(slow))
        answer.begin()
        assert json.loads(answer.read())["predictions"] == [0]
        assert answer.headers["connection"] == "close"
        assert process.wait(30) == 0
    assert "front.cut" not in (node.directory / "front0.log").read_text(), "nothing ran into its deadline"


def _refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_port_that_cannot_be_had_ends_the_front(make_node: Callable[[], Fronts]) -> None:
    node = make_node()
    node.agent.show(view_of())
    assert node.start(PARVADA_HOST="192.0.2.1").wait(20) == 1
    assert "front.failed" in (node.directory / "front0.log").read_text()
