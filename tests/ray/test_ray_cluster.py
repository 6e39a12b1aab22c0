"""Real Ray: one head and two worker nodes on loopback, with TLS and the epoch's token, and all that can kill them."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from consensus.state import Digest, NodeId
from node.identity.pki import Authority, Identity, NodeKey, RayCredentials
from node.processes.children import Supervisor
from node.processes.deathwatch import session_members
from parvada.local import StoredBlob
from tests.integration.training.cluster import ME, OneNode
from tests.ray.driver import driver
from tests.ray.executor import RemoteExecutor
from training.epoch import RayRole
from training.errors import TaskFailed, WorkerLost
from training.outbox import PAUSE_SECONDS
from training.ports import Message, Task
from training.ray_cluster import RayCluster, RaySettings, RayStartError

pytestmark = [
    pytest.mark.ray,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
    pytest.mark.random_order(disabled=True),
]

ROOT = Path(__file__).parents[2]
LOCAL = ["127.0.0.1"]


class Node:
    """One node's Ray with its own supervisor, as an agent has them."""

    def __init__(self, folder: Path, agent: OneNode) -> None:
        self.failures: list[str] = []
        self.supervisor = Supervisor(folder / "logs", lambda name, error: self.failures.append(f"{name}: {error}"))
        self.ray = RayCluster(
            RaySettings("127.0.0.1", folder.name, 1, folder / "ray", environment=agent.environment), self.supervisor
        )

    @property
    def session(self) -> int:
        """The session of the Ray node; the watchdog of the supervisor is another."""
        return self.supervisor.pids()[0]

    def processes(self) -> list[psutil.Process]:
        return [psutil.Process(pid) for pid in session_members([self.session])]

    def die(self) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.from_secret(os.urandom(32))
        self.agent = OneNode(folder / "agent")
        self.nodes = [Node(folder / str(number), self.agent) for number in range(4)]
        self.head, self.worker, self.victim, self.spare = self.nodes
        self.address = ""
        self._executor: RemoteExecutor | None = None

    def credentials(self, epoch: int, authority: Authority | None = None) -> RayCredentials:
        key = NodeKey.load_or_make(self.folder / "key.pem")
        return Identity(authority or self.authority, key, LOCAL).ray_credentials(epoch, "test", LOCAL)

    async def start(self) -> None:
        await self.agent.start()
        self.address = await self.head.ray.start_head(7, self.credentials(7))
        await asyncio.gather(
            *(node.ray.join(7, self.address, self.credentials(7)) for node in (self.worker, self.victim))
        )

    async def executor(self) -> RemoteExecutor:
        if self._executor is None:
            self._executor = await RemoteExecutor.start(self.address, self.head.ray.environment)
            await self._executor.share("none", [])
        return self._executor

    async def disconnect(self) -> None:
        if self._executor is not None:
            executor, self._executor = self._executor, None
            await executor.stop()

    async def stop(self) -> None:
        await self.disconnect()
        await asyncio.gather(*(node.ray.stop() for node in self.nodes))
        await asyncio.gather(*(node.supervisor.stop() for node in self.nodes))
        await self.agent.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    # Not pytest's folder: Ray's sockets need a short path.
    folder = Path(tempfile.mkdtemp(prefix="pv"))
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = str(ROOT)  # for tests.ray.tasks, in Ray's workers
    cluster = Cluster(folder)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder)


async def until(what: str, probe: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        await asyncio.sleep(0.05)


def task(function: str, payload: object = None, *, data: str = "none", seconds: float = 60.0) -> Task:
    return Task(function, payload, data, seconds, label=f"test {function}")


async def test_twenty_tasks_use_all_nodes_one_at_a_time_each(cluster: Cluster) -> None:
    executor = await cluster.executor()
    await until("three nodes", lambda: executor.capacity().nodes == 3)
    assert executor.capacity().cpus == 3
    running = asyncio.gather(*(executor.run(task("where", 0.2)) for _ in range(20)))
    await until("tasks on every CPU", lambda: executor.capacity().cpus_used == 3)
    assert len(set(await running)) == 3
    await until("all CPUs to be free", lambda: executor.capacity().cpus_used == 0)


async def test_no_node_gets_more_than_its_share_and_one_without_gets_nothing(cluster: Cluster) -> None:
    """Whatever Ray on it was started with: shares change while it runs. Nodes 0 to 2, with a CPU each, are up."""
    executor = await cluster.executor()
    await executor.allot({NodeId("1"): 3, NodeId("2"): 0})
    assert await executor.run(task("where", 0)) == await executor.run(task("where", 0))
    await until("one CPU, of one node", lambda: executor.capacity().cpus == 1)
    assert len(set(await asyncio.gather(*(executor.run(task("where", 0.1)) for _ in range(4))))) == 1
    await executor.allot({NodeId(str(number)): 1 for number in range(3)})
    assert len(set(await asyncio.gather(*(executor.run(task("where", 0.2)) for _ in range(6))))) == 3
    await until("three CPUs", lambda: executor.capacity().cpus == 3)


async def test_workers_read_the_bytes_of_the_shared_files(cluster: Cluster) -> None:
    executor = await cluster.executor()
    parts = [cluster.folder / "1.parquet", cluster.folder / "2.parquet"]
    for part in parts:
        part.write_bytes(os.urandom(3_000_000))
    await executor.share("data", parts)
    await executor.share("data", [Path("/not/read/again")])
    digests = [hashlib.sha256(part.read_bytes()).hexdigest() for part in parts]
    outcomes = await asyncio.gather(*(executor.run(task("digest", data="data")) for _ in range(6)))
    assert outcomes == [(digests, "1")] * 6


async def test_a_dataset_that_was_dropped_is_to_be_shared_again(cluster: Cluster) -> None:
    executor = await cluster.executor()
    with pytest.raises(WorkerLost, match="nobody is not shared"):
        await executor.run(task("where", 0, data="nobody"))


async def test_a_task_that_raises_fails_with_its_reason(cluster: Cluster) -> None:
    executor = await cluster.executor()
    with pytest.raises(TaskFailed, match="ValueError: no such column"):
        await executor.run(task("raise", "no such column"))


async def test_a_task_beyond_its_limit_is_killed_in_native_code_too(cluster: Cluster) -> None:
    executor = await cluster.executor()
    pid_file = cluster.folder / "limit"
    with pytest.raises(TaskFailed, match=r"took longer than 0\.5 s"):
        await executor.run(task("hang", str(pid_file), seconds=0.5))
    await until("the worker process to be gone", lambda: not psutil.pid_exists(int(pid_file.read_text())))
    await until("all CPUs to be free", lambda: executor.capacity().cpus_used == 0)


async def test_cancelling_the_call_kills_the_task(cluster: Cluster) -> None:
    executor = await cluster.executor()
    pid_file = cluster.folder / "cancelled"
    call = asyncio.create_task(executor.run(task("hang", str(pid_file))), name="to be cancelled")
    await until("the task to run", lambda: pid_file.exists() and pid_file.read_text())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until("the worker process to be gone", lambda: not psutil.pid_exists(int(pid_file.read_text())))


async def test_what_a_task_tells_comes_in_order_and_thinned_out(cluster: Cluster) -> None:
    executor = await cluster.executor()
    heard: list[Message] = []
    began = time.monotonic()
    await executor.run(task("tell", 100_000), heard.append)
    elapsed = time.monotonic() - began
    iterations = [message.iteration for message in heard]
    assert 1 <= len(heard) <= elapsed / PAUSE_SECONDS + 2
    assert iterations == sorted(set(iterations))
    assert iterations[-1] == 100_000


async def test_a_task_is_heard_while_it_runs_and_killed_in_native_code_all_the_same(cluster: Cluster) -> None:
    executor = await cluster.executor()
    heard: list[Message] = []
    with pytest.raises(TaskFailed, match=r"took longer than 3 s"):
        await executor.run(task("tell-and-hang", seconds=3.0), heard.append)
    assert [message.iteration for message in heard] == [1]
    call = asyncio.create_task(executor.run(task("tell-and-hang"), heard.append), name="to be cancelled")
    await until("its first word", lambda: len(heard) == 2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until("all CPUs to be free", lambda: executor.capacity().cpus_used == 0)


async def test_a_worker_stores_a_file_at_its_own_node(cluster: Cluster) -> None:
    executor = await cluster.executor()
    stored = await executor.run(task("store", 50_000_000))
    assert isinstance(stored, StoredBlob), "and none of it came here"
    assert (stored.bytes, stored.holders) == (50_000_000, (ME,))
    assert cluster.agent.blobs.path(Digest(stored.digest)).stat().st_size == 50_000_000


async def test_what_a_lost_worker_told_was_heard(cluster: Cluster) -> None:
    executor = await cluster.executor()
    heard: list[Message] = []
    gate = cluster.folder / "gate"
    call = asyncio.create_task(executor.run(task("tell-and-crash", str(gate)), heard.append), name="to crash")
    await until("its first word", lambda: bool(heard))
    gate.touch()
    with pytest.raises(WorkerLost):
        await call
    assert [message.iteration for message in heard] == [1]


async def test_a_worker_process_that_crashes_is_lost_not_failed(cluster: Cluster) -> None:
    executor = await cluster.executor()
    with pytest.raises(WorkerLost):
        await executor.run(task("crash"))


async def test_nothing_listens_beyond_loopback(cluster: Cluster) -> None:
    await cluster.executor()
    listening = [
        connection.laddr.ip
        for node in (cluster.head, cluster.worker)
        for process in node.processes()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


async def test_only_the_epochs_own_credentials_get_in(cluster: Cluster) -> None:
    right = cluster.head.ray.environment
    plain: dict[str, str] = {}
    old_token = cluster.folder / "old-token"
    old_token.write_text(cluster.credentials(6).token)
    stranger = cluster.credentials(7, Authority.from_secret(os.urandom(32)))
    (cluster.folder / "ca.pem").write_bytes(stranger.ca_pem)
    (cluster.folder / "cert.pem").write_bytes(stranger.cert_pem)
    (cluster.folder / "stranger-key.pem").write_bytes(stranger.key_pem)
    other_ca = {
        **right,
        "RAY_TLS_CA_CERT": str(cluster.folder / "ca.pem"),
        "RAY_TLS_SERVER_CERT": str(cluster.folder / "cert.pem"),
        "RAY_TLS_SERVER_KEY": str(cluster.folder / "stranger-key.pem"),
    }
    begun = time.monotonic()
    accepted, *refused = [
        await driver(cluster.address, environment)
        for environment in (right, plain, {**right, "RAY_AUTH_TOKEN_PATH": str(old_token)}, other_ca)
    ]
    bare, old, strange = refused
    try:
        await until("the right one to be let in", lambda: b"CONNECTED" in accepted.said, 60)
        await until("the old token to be refused", lambda: b"Failed to connect to Ray" in old.said, 60)
        await until("the stranger to be refused", lambda: b"CERTIFICATE_VERIFY_FAILED" in strange.said, 60)
        # Ray never says no to a driver without TLS, it tries again for very long: here for as long once more.
        await asyncio.wait([bare.output], timeout=time.monotonic() - begun)
    finally:
        for each in (accepted, *refused):
            with contextlib.suppress(ProcessLookupError):
                each.process.kill()
        await asyncio.gather(*(each.output for each in (accepted, *refused)))
        await asyncio.gather(*(each.process.wait() for each in (accepted, *refused)))
    assert [each.said for each in refused if b"CONNECTED" in each.said] == []


async def test_a_node_of_an_older_epoch_cannot_join(cluster: Cluster) -> None:
    with pytest.raises(RayStartError, match=r"(?i)token"):
        await cluster.spare.ray.join(6, cluster.address, cluster.credentials(6))
    assert cluster.spare.ray.status.role is RayRole.NONE


async def test_a_start_that_is_cancelled_leaves_nothing(cluster: Cluster) -> None:
    joining = asyncio.create_task(cluster.spare.ray.join(7, cluster.address, cluster.credentials(7)), name="joining")
    await until("its process", lambda: cluster.spare.ray.status.alive)
    session = cluster.spare.session
    joining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joining
    assert session_members([session]) == []
    assert cluster.spare.ray.status.role is RayRole.NONE


async def test_tasks_of_a_killed_node_are_lost_at_once_and_run_elsewhere(cluster: Cluster) -> None:
    executor = await cluster.executor()
    running = [asyncio.create_task(executor.run(task("where", 3.0)), name=f"where.{n}") for n in range(3)]
    await until("tasks on every CPU", lambda: executor.capacity().cpus_used == 3)
    cluster.victim.die()
    outcomes = await asyncio.gather(*running, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["WorkerLost", "str", "str"]
    assert await executor.run(task("where", 0.0)) in outcomes
    await until("the node to be counted out", lambda: executor.capacity().nodes == 2)
    await until("its end to be noticed", lambda: not cluster.victim.ray.status.alive)
    assert "ended with status" in cluster.victim.ray.status.reason


async def test_without_its_head_everything_of_the_epoch_ends_by_itself(cluster: Cluster) -> None:
    await cluster.disconnect()
    pid_file = cluster.folder / "orphan"
    process, output, _ = await driver(cluster.address, cluster.head.ray.environment, str(pid_file))
    await until("the task to run", lambda: pid_file.exists() and pid_file.read_text())
    cluster.head.die()
    assert await asyncio.wait_for(process.wait(), 40) != 0
    await output
    await until("the worker node to give up", lambda: not cluster.worker.ray.status.alive, 40)
    await until("the task's process to be gone", lambda: not psutil.pid_exists(int(pid_file.read_text())))


async def test_the_next_epoch_starts_over_and_stopping_leaves_no_process(cluster: Cluster) -> None:
    cluster.address = await cluster.worker.ray.start_head(8, cluster.credentials(8))
    assert cluster.worker.ray.status.epoch == 8
    assert cluster.worker.ray.status.address == cluster.address
    assert cluster.worker.ray.status.alive
    process, output, said = await driver(cluster.address, cluster.worker.ray.environment)
    await asyncio.wait_for(output, 60)
    assert await process.wait() == 0, said.decode()
    assert b"CONNECTED" in said
    session = cluster.worker.session
    assert len(session_members([session])) >= 4
    await cluster.worker.ray.stop()
    assert session_members([session]) == []
    assert cluster.worker.ray.status.role is RayRole.NONE
