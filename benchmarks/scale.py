"""How the control plane grows with the number of nodes: local processes, no Ray.

python -m benchmarks.scale formation [N ...]   `parvada up`: until every node sees N members and the right voters
python -m benchmarks.scale idle [N ...]        memory and CPU of agents that have nothing to do
python -m benchmarks.scale writes [N ...]      the log alone: writes/s and latency through followers, with fdatasync
python -m benchmarks.scale growth [WRITES]     journal, snapshot and memory over many writes (default 200000)
python -m benchmarks.scale restart             kill -9 of one, of all, with a state of 50 MB: until the log serves again
python -m benchmarks.scale election [KILLS]    kill -9 of the leader of 3 (default 50): until the others name another
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from benchmarks.log_cluster import LogCluster, logs
from benchmarks.log_node import Ask
from tests.support.flock import Flock
from tests.support.wait import wait_for

SIZES = (1, 3, 5, 10, 20, 30)
VOTERS = {1: 1, 2: 2, 3: 3, 4: 3}
ONE_FRONT = {"PARVADA_FRONTS": "1"}
SETTLE_SECONDS = 15.0
IDLE_SECONDS = 20.0
LOAD_SECONDS = 8.0
STATE_BYTES = 50_000_000


def show(what: str, value: float, unit: str, bound: float | None = None, *, least: bool = False) -> None:
    """One line; `least`: the bound is the smallest value allowed."""
    kept = bound is None or (value >= bound if least else value <= bound)
    said = "" if bound is None else f"  bound {bound:g}  {'ok' if kept else 'MISSED'}"
    sys.stdout.write(f"{what:56} {value:10.2f} {unit}{said}\n")
    sys.stdout.flush()


# ---------------------------------------------------------------- agents
def formation(sizes: Sequence[int]) -> None:
    for count in sizes or SIZES:
        with tempfile.TemporaryDirectory() as folder:
            flock = Flock(Path(folder) / "flock", count, environment=ONE_FRONT, as_shipped=True)
            try:
                show(f"{count} agents: start -> all members, voters right", _form(flock), "s", 20)
            finally:
                flock.stop()


def _form(flock: Flock) -> float:
    begun = time.monotonic()
    flock.start()
    left = set(flock.nodes)
    wanted = (flock.count, VOTERS.get(flock.count, 5))

    def formed() -> bool:
        for node in sorted(left, key=lambda node: node.url):
            try:
                view = flock.view(node)
            except AssertionError:  # it answers, but does not belong to a cluster yet
                return False
            if (len(view["nodes"]), len(view["voters"])) != wanted:
                return False
            left.discard(node)
        return True

    wait_for(f"{flock.count} members and {wanted[1]} voters", formed, 120, every=0.25)
    return time.monotonic() - begun


def idle(sizes: Sequence[int]) -> None:
    for count in sizes or SIZES:
        with tempfile.TemporaryDirectory() as folder:
            flock = Flock(Path(folder) / "flock", count, environment=ONE_FRONT, as_shipped=True)
            try:
                show(f"{count} agents: formation", _form(flock), "s", 20)
                time.sleep(SETTLE_SECONDS)  # what starts has started: from here on the nodes are idle
                _measure_idle(flock)
            finally:
                flock.stop()


def _measure_idle(flock: Flock) -> None:
    agents = [psutil.Process(pid) for pid in flock.pids().values()]
    others = [child for agent in agents for child in agent.children(recursive=True)]
    before, others_before, begun = _cpu(agents), _cpu(others), time.monotonic()
    time.sleep(IDLE_SECONDS)
    seconds = time.monotonic() - begun
    show(f"{flock.count} agents: CPU of all agents", (_cpu(agents) - before) / seconds, "cores", 1.0)
    show(f"{flock.count} agents: CPU of their fronts and others", (_cpu(others) - others_before) / seconds, "cores")
    resident = [agent.memory_info().rss / 1e6 for agent in agents]
    show(f"{flock.count} agents: resident memory of the largest", max(resident), "MB")


def _cpu(processes: Sequence[psutil.Process]) -> float:
    used = (process.cpu_times() for process in processes if process.is_running())
    return sum(times.user + times.system for times in used)


# ---------------------------------------------------------------- the log alone
def writes(sizes: Sequence[int]) -> None:
    for count in sizes or SIZES:
        voters = VOTERS.get(count, 5)
        with tempfile.TemporaryDirectory() as folder, logs(Path(folder), count, voters) as cluster:
            _measure_writes(cluster)


def _measure_writes(cluster: LogCluster) -> None:
    count, leader = len(cluster.nodes), cluster.leader()
    followers = [node for node in cluster.nodes if node is not leader] or [leader]
    through = followers[:8]  # 64 in flight are 8 each; a process more would only wait for a core
    bound = {3: 4000.0, 30: 1000.0}.get(count)
    one = cluster.load(followers[:1], 1, LOAD_SECONDS / 2)
    show(f"{count} logs: 1 in flight, p50", one.p50 * 1000, "ms")
    show(f"{count} logs: 1 in flight, p99", one.p99 * 1000, "ms")
    many = cluster.load(through, 64, LOAD_SECONDS)
    show(f"{count} logs: 64 in flight, writes", many.writes / many.seconds, "/s", bound, least=True)
    show(f"{count} logs: 64 in flight, p50", many.p50 * 1000, "ms")
    show(f"{count} logs: 64 in flight, p99", many.p99 * 1000, "ms")


def growth(arguments: Sequence[int]) -> None:
    wanted, done, largest = next(iter(arguments), 200_000), 0, {"journal": 0, "snapshot": 0}
    with tempfile.TemporaryDirectory() as folder, logs(Path(folder), 3, 3) as cluster:
        while done < wanted:
            done += cluster.load(cluster.nodes, 192, 5.0).writes
            files = [path for path in Path(folder).glob("*/raft/*") if path.name in largest]
            for path in files:
                largest[path.name] = max(largest[path.name], path.stat().st_size)
        memory = max(psutil.Process(node.pid).memory_info().rss for node in cluster.nodes)
    show("writes made", done, "")
    show("largest journal seen", largest["journal"] / 1e6, "MB", 64)
    show("largest snapshot seen", largest["snapshot"] / 1e6, "MB", 64)
    show("resident memory of the largest log", memory / 1e6, "MB")


def restart(_: Sequence[int]) -> None:
    with tempfile.TemporaryDirectory() as folder, logs(Path(folder), 3, 3) as cluster:
        leader = cluster.leader()
        filled = leader.ask(Ask("fill", bytes=STATE_BYTES))
        assert not filled.error, filled
        applied = filled.writes
        wait_for("all to have it", lambda: all(cluster.status(node).writes >= applied for node in cluster.nodes), 60)
        wait_for("snapshots", lambda: len(list(Path(folder).glob("*/raft/snapshot"))) == 3, 30)
        one = next(node for node in cluster.nodes if node is not leader)
        one.kill()
        begun = time.monotonic()
        one.begin()
        show("one killed: log loaded and listening", one.receive().seconds, "s", 3)
        wait_for("it to follow", lambda: cluster.status(one).writes >= applied, 60)
        show("one killed: process started, all applied", time.monotonic() - begun, "s")
        for node in cluster.nodes:
            node.kill()
        sizes = [path.stat().st_size for path in Path(folder).glob("*/raft/snapshot")]
        show("snapshot on disk", max(sizes) / 1e6, "MB")
        begun = time.monotonic()
        for node in cluster.nodes:
            node.begin()
        loads = [node.receive().seconds for node in cluster.nodes]
        cluster.leader()
        wait_for("all to have it", lambda: all(cluster.status(node).writes >= applied for node in cluster.nodes), 60)
        show("all three killed: log loaded and listening, the slowest", max(loads), "s")
        show("all three killed: processes, leader, all applied", time.monotonic() - begun, "s")


def election(arguments: Sequence[int]) -> None:
    took: list[float] = []
    with tempfile.TemporaryDirectory() as folder, logs(Path(folder), 3, 3) as cluster:
        for _ in range(next(iter(arguments), 50)):
            old = cluster.leader()
            others = [node for node in cluster.nodes if node is not old]
            for node in others:
                node.send(Ask("await_leader", old.me, seconds=10.0))
            begun = time.monotonic()
            old.kill()
            replies = [node.receive() for node in others]
            assert not any(reply.error for reply in replies), replies
            took.append(max(reply.at for reply in replies) - begun)
            old.begin()
            old.receive()
    took.sort()
    show(f"{len(took)} kills of the leader: both others name another, p50", statistics.median(took), "s", 0.6)
    show(f"{len(took)} kills of the leader: p99", took[min(len(took) - 1, len(took) * 99 // 100)], "s", 1.2)


COMMANDS: dict[str, Callable[[Sequence[int]], None]] = {
    "formation": formation,
    "idle": idle,
    "writes": writes,
    "growth": growth,
    "restart": restart,
    "election": election,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS or not all(word.isdigit() for word in sys.argv[2:]):
        sys.exit(__doc__)
    COMMANDS[sys.argv[1]]([int(word) for word in sys.argv[2:]])
