"""`parvada up` as a user meets it, and the doors of a running node."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from node.identity.pki import Authority, Identity, NodeKey, load_secret
from node.up import NodePorts
from tests.support.data import iris_csv
from tests.support.flock import Flock, running
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def parvada(*arguments: str, flock: Flock, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line as it finds the flock by itself: from `.parvada/up.json` beside it, or by PARVADA_URL."""
    environment = {
        **os.environ,
        "PARVADA_URL": ",".join(node.url for node in flock.nodes),
        "PARVADA_TOKEN": flock.token,
    }
    return subprocess.run(
        [sys.executable, "-m", "parvada", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
        cwd=cwd,
    )


def test_the_command_line_does_the_whole_journey(flock: Flock, tmp_path: Path) -> None:
    (tmp_path / "iris.csv").write_bytes(iris_csv())
    pushed = parvada("data", "push", str(tmp_path / "iris.csv"), "--name", "iris", "--target", "species", flock=flock)
    assert pushed.returncode == 0, pushed.stderr
    trained = parvada("train", "iris", "--models", "GaussianNB,DecisionTreeClassifier", flock=flock)
    assert trained.returncode == 0, trained.stderr
    job = trained.stdout.split()[0]
    board = parvada("leaderboard", job, "--json", flock=flock)
    assert len(json.loads(board.stdout)["rows"]) == 2
    row = '{"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}'
    predicted = parvada("predict", "iris", "--row", row, flock=flock)
    assert (predicted.returncode, "setosa" in predicted.stdout) == (0, True), predicted.stderr
    status = parvada("status", "--json", flock=flock)
    assert (status.returncode, json.loads(status.stdout)["quorum"]) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train", "irs"], 1, "iris"),
        (["predict", "nothing", "--row", "{}"], 1, "nothing"),
        (["train", "iris", "--models", "RandomForrestClassifier"], 1, "RandomForestClassifier"),
        (["data", "push", "/does/not/exist.csv"], 2, "/does/not/exist.csv"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_errors_say_what_to_do(flock: Flock, arguments: list[str], code: int, said: str) -> None:
    flock.push(flock.nodes[0], "iris", iris_csv(), "?target=species")
    done = parvada(*arguments, flock=flock)
    assert done.returncode == code, done
    assert said in done.stderr
    assert done.stdout == ""


def test_peer_ports_refuse_whoever_is_not_of_this_cluster(flock: Flock, tmp_path: Path) -> None:
    """Over real sockets: no certificate, and that of another secret; then one of ours, which must be let in."""
    ports: list[NodePorts] = [NodePorts(**entry) for entry in json.loads((flock.data / "ports.json").read_bytes())]
    stranger = _context(os.urandom(32), tmp_path / "stranger.pem")
    ours = _context(load_secret(flock.data / "secret"), tmp_path / "ours.pem")
    bare = ssl.create_default_context()
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    hello = b"GET /peer/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    for port in (ports[0].peer, ports[0].raft):
        assert _talk(bare, port, hello) == b"", port
        assert _talk(stranger, port, hello) == b"", port
    assert _talk(ours, ports[0].peer, hello).startswith(b"HTTP/1.1 200")
    blobs = hello.replace(b"/peer/hello", b"/peer/blobs/" + b"0" * 64)
    assert _talk(ours, ports[0].peer, blobs).startswith(b"HTTP/1.1 403"), "the secret alone must not open the store"


def _context(secret: bytes, key: Path) -> ssl.SSLContext:
    return Identity(Authority(secret), NodeKey.load_or_make(key), ["127.0.0.1"]).client_context()


def _talk(context: ssl.SSLContext, port: int, request: bytes) -> bytes:
    """What the other side answers before it hangs up; empty if it refuses."""
    context.check_hostname = False
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 5) as plain,
            context.wrap_socket(plain, server_hostname="node.parvada.internal") as secure,
        ):
            secure.settimeout(5)
            secure.sendall(request)
            answer = b""
            while chunk := secure.recv(65536):
                answer += chunk
            return answer
    except (ssl.SSLError, ConnectionError):
        return b""


def test_the_admin_token_is_shown_to_whoever_may_read_the_data(flock: Flock) -> None:
    shown = parvada("token", "show", "--data", str(flock.data), flock=flock)
    assert (shown.returncode, shown.stdout.strip()) == (0, flock.token), shown.stderr


def test_secrets_are_private_and_not_in_the_logs(flock: Flock) -> None:
    assert (flock.data / "secret").stat().st_mode & 0o777 == 0o600
    secret = (flock.data / "secret").read_text().strip()
    for log in [*flock.data.glob("logs/*.log"), *flock.data.glob("slots/*/logs/*.log")]:
        text = log.read_text(errors="replace")
        assert secret not in text
        assert flock.token not in text


def test_a_killed_agent_takes_its_children_along(flock: Flock) -> None:
    node = flock.nodes[1]
    assert node.pid is not None
    children = [child.pid for child in psutil.Process(node.pid).children(recursive=True)]
    assert children
    node.kill()
    wait_for("its children to be gone", lambda: not any(psutil.pid_exists(pid) for pid in children))
    flock.wait_ready()


def test_ctrl_c_leaves_nothing_running(tmp_path: Path) -> None:
    """As people start it: with its own timers, and with ports that it finds by itself."""
    with running(tmp_path / "two", 2, as_shipped=True) as flock:
        assert flock._process is not None
        up = psutil.Process(flock._process.pid)
        started = [child.pid for child in up.children(recursive=True)]
        assert len(started) >= 5
        assert flock.stop() == 0
        wait_for("all to be gone", lambda: not any(psutil.pid_exists(pid) for pid in started))
        assert not (tmp_path / "two" / "up.json").exists()


def test_without_restart_a_killed_node_stays_dead_and_two_go_on(tmp_path: Path) -> None:
    with running(tmp_path / "three", 3, restart=False) as flock:
        flock.by_id(flock.wait_for_leader()).kill()
        assert flock.wait_for_leader()
        assert len(flock.living) == 2
        assert flock.push(flock.living[0], "iris", iris_csv(), "?target=species")["version"] == 1


def test_a_second_up_on_the_same_data_is_refused(flock: Flock) -> None:
    done = parvada("up", "--data", str(flock.data), "--nodes", "1", "--port", "1", flock=flock)
    assert done.returncode == 1
    assert "another `parvada up` runs" in done.stderr


def test_a_taken_port_is_named(flock: Flock, tmp_path: Path) -> None:
    done = parvada("up", "--data", str(tmp_path / "d"), "--nodes", "1", "--port", str(flock.port), flock=flock)
    assert done.returncode == 1
    assert f"port {flock.port} is in use" in done.stderr


def test_sigterm_of_the_leader_hands_over_before_it_ends(flock: Flock) -> None:
    flock.wait_ready()
    flock.wait_for_voters(3)
    old = flock.wait_for_leader()
    leader = flock.by_id(old)
    pid = leader.pid
    assert pid is not None
    leader.signal(signal.SIGTERM)
    assert flock.wait_for_new_leader(old, 20) != old
    wait_for("the old leader to end", lambda: not psutil.pid_exists(pid), 30)
    flock.wait_ready()
    flock.wait_for_voters(3)
