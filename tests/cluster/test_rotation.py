"""The cluster secret is replaced while clients write and predict, nodes are killed, and everything is restarted."""

import base64
import contextlib
import json
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from node.pki import Authority, Identity, NodeKey
from node.secret import admin_token, load_secret
from parvada.client import Client
from tests.support.band import Band, BandNode
from tests.support.data import iris_csv
from tests.support.http import request
from tests.support.wait import wait_for
from tests.support.writers import missing, writing

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
PAGES = ("/v1/audit?limit=1000", "/v1/cluster", "/v1/cluster/secret", "/v1/tokens")
HELLO = b"GET /peer/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Given(Band):
    """Some of whose nodes are given a secret file of their own."""

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(folder, count)
        self.files: dict[int, Path] = {}

    def environment_of(self, node: BandNode) -> dict[str, str]:
        found = super().environment_of(node)
        return found | {"PARVADA_SECRET_FILE": str(self.files[node.number])} if node.number in self.files else found

    def keep_a_token(self) -> None:
        """One of an admin, which does not follow from the secret."""
        made = self.ask(self.living[0], "POST", "/v1/tokens", {"name": "tester", "role": "admin"})
        assert made.status == 201, made
        self.token = made.body["token"]

    def rotation(self) -> dict[str, Any]:
        """As the first node that answers sees it."""
        for node in self.living:
            with contextlib.suppress(OSError):
                return self.read(node, "/v1/cluster/secret")
        raise ConnectionError("no node answers")

    def phase(self) -> str:
        with contextlib.suppress(OSError):
            return str(self.rotation()["phase"])
        return ""

    def settled(self, generation: int) -> bool:
        """On every living node."""
        with contextlib.suppress(OSError):
            seen = [self.read(node, "/v1/cluster/secret") for node in self.living]
            return all((each["phase"], each["generation"]) == ("settled", generation) for each in seen)
        return False

    def begin(self, node: BandNode) -> None:
        """Retried under one key, as a client would."""
        headers = {"Idempotency-Key": secrets.token_hex(8)}

        def begun() -> bool:
            return self.ask(node, "POST", "/v1/cluster/secret/rotate", headers=headers, timeout=10.0).status == 202

        wait_for("the rotation to begin", begun, 40)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Given]:
    """Three nodes that vote, and room for two more."""
    made = Given(tmp_path, 5)
    try:
        made.grow(3)
        made.settle(3, 3)
        made.keep_a_token()
        yield made
    finally:
        made.stop()


class Predictions(threading.Thread):
    """Asked of each of `nodes` in turn until stopped; every answer but 200 is kept."""

    def __init__(self, cluster: Given, nodes: list[BandNode]) -> None:
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
                answer = self._cluster.ask(node, "POST", "/v1/models/iris/predict", {"rows": [ROW]}, timeout=15.0)
            except OSError as error:
                self.failed.append((node.name, error))
            else:
                self.failed += [] if answer.status == 200 else [(node.name, answer)]

    def stop(self) -> None:
        self._stopping.set()
        self.join(30)


def test_a_rotation_under_load_survives_a_node_that_is_killed_twice(cluster: Given, tmp_path: Path) -> None:
    old = load_secret(cluster.data / "secret")
    leader = cluster.by_id(cluster.wait_for_leader())
    survivor, victim = [node for node in cluster.nodes[:3] if node is not leader]
    serve_iris(cluster)
    predictions = Predictions(cluster, [leader, survivor])
    with writing(cluster) as writers:
        predictions.start()
        victim.kill()
        command = _rotate(cluster, survivor)
        wait_for("all but the killed node to be ready", lambda: waiting(cluster) == {victim.name}, 60)
        assert cluster.phase() == "prepare"
        assert "rotation" in {alarm["code"] for alarm in cluster.view(survivor)["alarms"]}
        victim.start()
        wait_for("the last phase", lambda: cluster.phase() in ("retire", "settled"), 90)
        victim.kill()
        victim.start()
        said, told = command.communicate(timeout=180)
        wait_for("every node to have only the new one", lambda: cluster.settled(2), 60)
        predictions.stop()
    assert command.returncode == 0, told
    assert json.loads(said)["generation"] == 2
    assert "waiting for" in told
    assert (writers.odd, predictions.failed) == ([], [])
    assert len(writers.acknowledged) > 20
    assert predictions.count > 20
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


def serve_iris(cluster: Given) -> None:
    cluster.push(cluster.living[0], "iris", iris_csv(), "?target=species")
    job = cluster.submit(cluster.living[0], {"datasets": ["iris"], "models": ["GaussianNB"], "seed": 1})
    assert cluster.wait_for_job(job)["state"] == "succeeded"
    for node in cluster.living:
        cluster.wait_for_answer(node, "POST", "/v1/models/iris/predict", {"rows": [ROW]})


def _rotate(cluster: Given, node: BandNode) -> "subprocess.Popen[str]":
    """With the admin token that follows from the secret's file, which is replaced meanwhile."""
    where = ("--url", node.url, "--data", str(cluster.data))
    return subprocess.Popen(
        [sys.executable, "-m", "parvada", "cluster", "rotate-secret", "--yes", "--json", *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def waiting(cluster: Given) -> set[str]:
    found = cluster.rotation()
    return {node["name"] for node in found["nodes"] if not node["done"]} if found["phase"] != "settled" else set()


# ---------------------------------------------------------------- afterwards
def refuses_the_old_one(cluster: Given, nodes: list[BandNode], old: bytes, new: bytes, folder: Path) -> None:
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


def newcomers(cluster: Given, old: bytes) -> None:
    """One that starts with the folder's secret joins; one with the old secret is told why it does not."""
    fourth, fifth = cluster.nodes[3:]
    cluster.files[fifth.number] = cluster.data.parent / "old-secret"
    cluster.files[fifth.number].write_text(old.hex())
    cluster.files[fifth.number].chmod(0o600)
    fourth.start()
    cluster.settle(4, 3)
    fifth.start()
    wait_for("the reason", lambda: "has another cluster secret than this one" in fifth.log, 60)
    fifth.terminate()
    fifth.wait()
    assert len(cluster.view(fourth)["nodes"]) == 4


def says_nothing(cluster: Given, old: bytes, new: bytes) -> None:
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


# ---------------------------------------------------------------- power loss, nodes left behind
def test_a_restart_of_everything_in_any_phase(cluster: Given) -> None:
    seen = {load_secret(cluster.data / "secret")}
    for generation, phase in enumerate(("prepare", "present", "retire"), 2):
        cluster.begin(cluster.nodes[generation - 2])
        deadline = time.monotonic() + 60
        while cluster.phase() not in (phase, "retire", "settled") and time.monotonic() < deadline:
            time.sleep(0.02)  # no wait for a result: the moment of the kill is what is looked for
        for node in cluster.living:
            node.kill()
        cluster.grow(3)
        cluster.settle(3, 3, 90)
        wait_for(f"generation {generation}", lambda number=generation: cluster.settled(number), 90)  # type: ignore[misc]
        seen.add(load_secret(cluster.data / "secret"))
        assert len(seen) == generation
    wait_for("all to be put away", lambda: not list(cluster.data.glob("slots/*/secrets.json")))


def test_a_rotation_goes_on_without_a_node_that_is_away_or_is_given_up(cluster: Given) -> None:
    before = load_secret(cluster.data / "secret")
    away, *others = cluster.nodes[:3]
    away.kill()

    cluster.begin(others[0])
    wait_for("the others to be ready", lambda: waiting(cluster) == {away.name}, 60)
    done = cluster.ask(others[1], "POST", "/v1/cluster/secret/abandon")
    assert (done.status, done.body["phase"], done.body["generation"]) == (200, "settled", 1)
    wait_for("it to be forgotten", lambda: not list(cluster.data.glob("slots/*/secrets.json")), 90)
    assert load_secret(cluster.data / "secret") == before

    cluster.begin(others[1])
    wait_for("the others to be ready", lambda: waiting(cluster) == {away.name}, 60)
    assert cluster.ask(others[0], "POST", "/v1/cluster/secret/excuse", {"node": away.name}).status == 200
    wait_for("the end", lambda: cluster.settled(2), 90)
    assert {node["name"] for node in cluster.rotation()["nodes"] if node["excused"]} == {away.name}
    assert load_secret(cluster.data / "secret") != before

    # It starts with a copy of the old secret and is refused; with the folder's new one it is back.
    cluster.files[away.number] = cluster.data.parent / "old-secret"
    cluster.files[away.number].write_text(before.hex())
    cluster.files[away.number].chmod(0o600)
    away.start()
    wait_for("the reason", lambda: "has another cluster secret than this one" in away.log, 60)
    away.kill()
    del cluster.files[away.number]
    away.start()
    cluster.settle(3, 3, 90)
