"""The cluster secret is replaced while clients write and predict, and a node is killed twice."""

import base64
import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from node.identity.pki import Authority, Identity, NodeKey
from node.identity.secret import admin_token, load_secret
from parvada.client import Client
from tests.support.band import BandNode
from tests.support.data import iris_csv
from tests.support.http import request
from tests.support.rotating import HANDOVER, Rotating, rotating
from tests.support.wait import wait_for
from tests.support.writers import Writers, missing, writing

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
PAGES = ("/v1/audit?limit=1000", "/v1/cluster", "/v1/cluster/secret", "/v1/tokens")
HELLO = b"GET /peer/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Rotating]:
    with rotating(tmp_path) as made:
        yield made


class Predictions(threading.Thread):
    """Asked of each of `nodes` in turn until stopped; every answer but 200 is kept."""

    def __init__(self, cluster: Rotating, nodes: list[BandNode]) -> None:
        super().__init__(name="predictions")
        self._cluster, self._nodes = cluster, nodes
        self._stopping = threading.Event()
        self.count = 0
        self.failed: list[object] = []

    def run(self) -> None:
        while not self._stopping.wait(0.02):
            node = self._nodes[self.count % len(self._nodes)]
            self.count += 1
            try:
                answer = self._cluster.ask(node, "POST", "/v1/models/iris/predict", {"rows": [ROW]}, timeout=60.0)
            except OSError as error:
                self.failed.append((node.name, error))
            else:
                self.failed += [] if answer.status == 200 else [(node.name, answer)]

    def stop(self) -> None:
        self._stopping.set()
        self.join(30)


def test_a_rotation_under_load_survives_a_node_that_is_killed_twice(cluster: Rotating, tmp_path: Path) -> None:
    old = load_secret(cluster.data / "secret")
    leader = cluster.by_id(cluster.wait_for_leader())
    survivor, victim = [node for node in cluster.nodes[:3] if node is not leader]
    serve_iris(cluster)
    predictions = Predictions(cluster, [leader, survivor])
    with writing(cluster) as writers:
        predictions.start()
        victim.kill()
        command = _rotate(cluster, survivor)
        cluster.wait_until_held("prepare", victim)
        assert "rotation" in {alarm["code"] for alarm in cluster.view(survivor)["alarms"]}
        go_on(writers, predictions)
        cluster.settings[victim.number] = {HANDOVER: "3600"}
        victim.start()
        cluster.wait_until_held("retire", victim)
        victim.kill()
        go_on(writers, predictions)
        assert cluster.phase() == "retire"
        del cluster.settings[victim.number]
        victim.start()
        said, told = command.communicate(timeout=180)
        wait_for("every node to have only the new one", lambda: cluster.settled(2), 60)
        go_on(writers, predictions)
        predictions.stop()
    assert command.returncode == 0, told
    assert json.loads(said)["generation"] == 2
    assert "waiting for" in told
    assert (writers.odd, predictions.failed) == ([], [])
    assert sum(missing(cluster, writers).values()) == 0

    new = load_secret(cluster.data / "secret")
    assert new != old
    for node in (leader, survivor, victim):
        node.kill()
    for node in (leader, survivor, victim):
        node.start()
    cluster.settle(3, 3)
    assert not any(alarm["code"] == "rotation" for alarm in cluster.view(leader)["alarms"])
    refuses_the_old_one(cluster, [leader, survivor, victim], old, new, tmp_path)
    newcomers(cluster, old)
    says_nothing(cluster, old, new)


def go_on(writers: Writers, predictions: Predictions) -> None:
    """Writes are acknowledged, and predictions made, that were begun from here on."""
    before = predictions.count
    writers.go_on()
    wait_for("further predictions", lambda: predictions.count > before + 5, 60)


def serve_iris(cluster: Rotating) -> None:
    cluster.push(cluster.living[0], "iris", iris_csv(), "?target=species")
    job = cluster.submit(cluster.living[0], {"datasets": ["iris"], "models": ["GaussianNB"], "seed": 1})
    assert cluster.wait_for_job(job)["state"] == "succeeded"
    for node in cluster.living:
        cluster.wait_for_answer(node, "POST", "/v1/models/iris/predict", {"rows": [ROW]})


def _rotate(cluster: Rotating, node: BandNode) -> "subprocess.Popen[str]":
    """With the admin token that follows from the secret's file, which is replaced meanwhile."""
    where = ("--url", node.url, "--data", str(cluster.data))
    return subprocess.Popen(
        [sys.executable, "-m", "parvada", "cluster", "rotate-secret", "--yes", "--json", *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# ---------------------------------------------------------------- afterwards
def refuses_the_old_one(cluster: Rotating, nodes: list[BandNode], old: bytes, new: bytes, folder: Path) -> None:
    """Its certificates on both peer ports of every node, and its admin token."""
    for node in nodes:
        for port in (node.ports.peer, node.ports.raft):
            assert _talk(_context(old, folder / "old.pem"), port) == b"", port
        assert _talk(_context(new, folder / "new.pem"), node.ports.peer).startswith(b"HTTP/1.1 200")
        for secret, status in ((old, 401), (new, 200)):
            assert request("GET", f"{node.url}/v1/tokens", token=admin_token(secret)).status == status


def _context(secret: bytes, key: Path) -> ssl.SSLContext:
    context = Identity(Authority(secret), NodeKey.load_or_make(key), ["127.0.0.1"]).client_context()
    context.verify_mode = ssl.CERT_NONE  # it is the server's refusal that is of interest
    return context


def _talk(context: ssl.SSLContext, port: int) -> bytes:
    """What the other side answers before it hangs up; empty if it refuses."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            context.wrap_socket(plain, server_hostname="node.parvada.internal") as secure,
        ):
            secure.settimeout(10)
            secure.sendall(HELLO)
            answer = b""
            while chunk := secure.recv(65536):
                answer += chunk
            return answer
    except (ssl.SSLError, ConnectionError):
        return b""


def newcomers(cluster: Rotating, old: bytes) -> None:
    """One that starts with the folder's secret joins; one with the old secret is told why it does not."""
    fourth, fifth = cluster.nodes[3:]
    cluster.give_secret(fifth, old)
    fourth.start()
    cluster.settle(4, 3)
    fifth.start()
    wait_for("the reason", lambda: "has another cluster secret than this one" in fifth.log, 60)
    fifth.terminate()
    fifth.wait()
    assert len(cluster.view(fourth)["nodes"]) == 4


def says_nothing(cluster: Rotating, old: bytes, new: bytes) -> None:
    """The old secret is in no file and no log, the new one in its file alone; neither is told by the API."""
    files = [path for path in cluster.data.rglob("*") if path.is_file()] + list(cluster.data.parent.glob("*.log"))
    holding = {}
    for path in files:
        with contextlib.suppress(FileNotFoundError):  # nodes that run replace their files
            holding[path] = path.read_bytes()
    for secret, allowed in ((old, set()), (new, {cluster.data / "secret"})):
        shapes = (secret, secret.hex().encode(), base64.b64encode(secret), admin_token(secret).encode())
        found = {path for path, content in holding.items() if any(shape in content for shape in shapes)}
        assert found == allowed
        told = [cluster.ask(cluster.nodes[0], "GET", path).body for path in PAGES]
        with Client(cluster.nodes[0].url, token=cluster.token) as client:
            told += [msgspec.to_builtins(event) for event in client.events(0, follow=False)]
        assert not any(shape in json.dumps(told).encode() for shape in shapes)
    audit = cluster.ask(cluster.nodes[0], "GET", "/v1/audit?limit=1000").body["entries"]
    assert ("BeginRotation", "admin", "2") in {(entry["call"], entry["actor"], entry["object"]) for entry in audit}
