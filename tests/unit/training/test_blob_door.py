"""A worker's file for its agent: taken at once, after a refusal that passes, or refused with the agent's reason."""

import http.server
import json
import os
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.blob_door import PATIENCE_SECONDS, BlobDoor, own_door
from training.errors import NotStored

Answer = tuple[int, dict[str, object]]
GOOD: Answer = (200, {"digest": "d" * 64, "bytes": 5, "holders": ["n1", "n2"]})
NOT_DURABLE: Answer = (503, {"error": "on too few nodes", "code": "not_durable"})
FULL: Answer = (507, {"error": "node n1 has 3 MB free and needs 50 MB", "code": "disk_full"})


class Agent(socketserver.ThreadingUnixStreamServer):
    """Answers in turn, the last for ever; notes what it was given, and takes it when it can be had."""

    def __init__(self, path: str, tmp: Path) -> None:
        super().__init__(path, Handler)
        self.tmp = tmp
        self.answers = [GOOD]
        self.given: list[bytes] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Agent

    def do_POST(self) -> None:
        path = Path(json.loads(self.rfile.read(int(self.headers["content-length"])))["path"])
        assert (self.path, path.parent) == ("/local/blobs", self.server.tmp)
        self.server.given.append(path.read_bytes())
        status, body = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        if status in (200, 503):
            path.unlink()  # moved into the store, also where the copy to another node failed
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        """Into no test's output."""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    with tempfile.TemporaryDirectory() as folder:  # tmp_path may be too long for a socket
        with Agent(f"{folder}/agent.sock", tmp_path) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="agent")
            thread.start()
            yield server
            server.shutdown()
            thread.join()


class Time:
    """Passes while one sleeps."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def door(agent: Agent, tmp_path: Path, time: Time) -> BlobDoor:
    return BlobDoor(str(agent.server_address), tmp_path, clock=time, sleep=time.sleep)


def test_a_file_is_stored(agent: Agent, door: BlobDoor, tmp_path: Path) -> None:
    stored = door.store(b"model")
    assert (stored.digest, stored.bytes, stored.holders) == ("d" * 64, 5, ("n1", "n2"))
    assert agent.given == [b"model"]
    assert not list(tmp_path.iterdir())


def test_a_refusal_that_may_pass_is_waited_out(agent: Agent, door: BlobDoor, time: Time) -> None:
    agent.answers = [NOT_DURABLE, FULL, NOT_DURABLE, GOOD]
    assert door.store(b"model").digest == "d" * 64
    assert agent.given == [b"model"] * 4, "the file is whole each time"
    assert time.now < PATIENCE_SECONDS


@pytest.mark.parametrize(
    ("refusal", "reason"), [(NOT_DURABLE, "too few nodes"), (FULL, "n1 has 3 MB free and needs 50 MB")]
)
def test_patience_ends_with_the_agents_reason(
    agent: Agent, door: BlobDoor, time: Time, tmp_path: Path, refusal: Answer, reason: str
) -> None:
    agent.answers = [refusal]
    with pytest.raises(NotStored, match=reason):
        door.store(b"model")
    assert PATIENCE_SECONDS <= time.now < 2 * PATIENCE_SECONDS
    assert not list(tmp_path.iterdir())


def test_a_refusal_for_good_is_not_asked_for_again(agent: Agent, door: BlobDoor, time: Time) -> None:
    agent.answers = [(400, {"error": "that is no file", "code": "invalid"})]
    with pytest.raises(NotStored, match="that is no file"):
        door.store(b"model")
    assert len(agent.given) == 1
    assert time.now == 0


def test_an_agent_that_is_away_is_waited_for(agent: Agent, tmp_path: Path) -> None:
    class Returning(Time):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.now > PATIENCE_SECONDS / 2 and away.exists():
                away.rename(str(agent.server_address))

    time, socket = Returning(), Path(str(agent.server_address))
    away = socket.rename(socket.with_suffix(".away"))
    assert BlobDoor(str(socket), tmp_path, clock=time, sleep=time.sleep).store(b"model").bytes == 5

    socket.rename(away)
    alone = Time()
    with pytest.raises(NotStored, match="FileNotFoundError"):
        BlobDoor(str(socket), tmp_path, clock=alone, sleep=alone.sleep).store(b"model")
    away.rename(socket)


def test_what_a_killed_worker_has_left_goes(door: BlobDoor, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, own, other = (tmp_path / name for name in (f"worker-{gone.pid}-0.blob", f"worker-{os.getpid()}-7.blob", "x"))
    for path in (left, own, other):
        path.write_bytes(b"half a model")
    door.store(b"model")
    assert sorted(tmp_path.iterdir()) == sorted((own, other))


def test_where_no_agent_is_there_is_no_door(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PARVADA_LOCAL_SOCKET", "PARVADA_TMP"):
        monkeypatch.delenv(name, raising=False)
    assert own_door() is None
    monkeypatch.setenv("PARVADA_LOCAL_SOCKET", "/run/agent.sock")
    assert own_door() is None
    monkeypatch.setenv("PARVADA_TMP", str(tmp_path))
    assert own_door() is not None
