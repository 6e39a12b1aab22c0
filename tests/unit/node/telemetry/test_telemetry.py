"""Figures of the machine, of the fronts and of the flock: right, mergeable, and bounded."""

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings, strategies as st
from msgspec import structs

from consensus.messages import BeginEpoch, JoinMember, SetMemberStatus
from consensus.ports import Beacon
from consensus.state import MemberStatus, NodeId
from node.telemetry.beacon import MAX_BYTES, NodeBeacon, decode_all, encode
from node.telemetry.front_stats import SILENT_SECONDS, FrontStats
from node.telemetry.history import Ring
from node.telemetry.machine import CpuMeter, Sample, cgroup_cores, cgroup_used, machine_cpu, memory_of
from node.telemetry.telemetry import Telemetry
from serving.stats import ModelStats, StatsReport
from tests.support.clock import Clock as LoopClock
from tests.unit.node.cluster import Flock, flock
from training.ports import TrainerReport

A, B = NodeId("a" * 32), NodeId("b" * 32)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def row(requests: int, model: str = "iris", rate: float = 1.0, last_ms: int = 0) -> ModelStats:
    return ModelStats(model, 1, requests=requests, rate=rate, last_ms=last_ms, histogram={7: requests})


def beacon(node: NodeId, *rows: ModelStats, cpu: float = 10.0) -> NodeBeacon:
    return NodeBeacon(node, f"node-{node[0]}", "0.1.0", 0.0, Sample(cpu, 1000), rows=rows)


# ---------------------------------------------------------------- machine
def test_cpu_of_the_machine() -> None:
    # user nice system idle iowait irq softirq steal guest
    before = machine_cpu("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 ...")
    after = machine_cpu("cpu  150 0 100 750 100 0 0 0 50 0\ncpu0 ...")
    assert (after.used - before.used) / (after.available - before.available) == pytest.approx(0.5)


def test_cpu_of_a_container(tmp_path: Path) -> None:
    assert cgroup_cores("150000 100000\n") == pytest.approx(min(1.5, os.cpu_count() or 1))
    assert cgroup_cores("max 100000\n") == os.cpu_count()
    assert cgroup_used("usage_usec 2500000\nuser_usec 1\n") == 2.5
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 0\n")
    (tmp_path / "uptime").write_text("1000.00 3000.00\n")
    meter = CpuMeter(tmp_path, proc=tmp_path)
    (tmp_path / "cpu.stat").write_text("usage_usec 100000\n")
    assert meter.percent() == 0.0, "no time has passed"
    (tmp_path / "uptime").write_text("1000.40 3000.80\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 200000\n")
    assert meter.percent() == 25.0


def test_a_busy_machine_shows_it() -> None:
    meter = CpuMeter(Path("/nonexistent"))
    began = time.process_time()
    while time.process_time() - began < 0.15:  # of the processor, however long it takes to get it
        pass
    assert meter.percent() > 50 / (os.cpu_count() or 1)


def test_memory_counts_processes_and_forgives_dead_ones() -> None:
    grown = memory_of([os.getpid()])
    assert 10_000_000 < grown < 2_000_000_000
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert memory_of([os.getpid(), other.pid]) > memory_of([other.pid])
    other.communicate(b"\n")
    assert memory_of([other.pid]) == 0


# ---------------------------------------------------------------- fronts
def test_the_counts_of_a_dead_front_stay_and_its_rate_goes() -> None:
    clock = Clock()
    fronts = FrontStats(clock)
    fronts.accept(StatsReport(1, (row(10),)))
    fronts.accept(StatsReport(2, (row(5),)))
    assert [(found.requests, found.rate) for found in fronts.rows()] == [(15, 2.0)]
    clock.now += SILENT_SECONDS + 1
    fronts.accept(StatsReport(2, (row(6),)))
    assert [(found.requests, found.rate) for found in fronts.rows()] == [(16, 1.0)]
    fronts.accept(StatsReport(3, (row(1),)))  # its successor
    assert [found.requests for found in fronts.rows()] == [17]


def test_a_pid_that_counts_from_the_start_again_is_another_front() -> None:
    fronts = FrontStats(Clock())
    fronts.accept(StatsReport(1, (row(10),)))
    fronts.accept(StatsReport(1, (row(2),)))
    assert [found.requests for found in fronts.rows()] == [12]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 20), st.floats(0, 8)), max_size=30))
@settings(max_examples=50)
def test_whatever_fronts_come_and_go_no_request_is_lost_or_counted_twice(
    steps: list[tuple[int, int, float]],
) -> None:
    clock = Clock()
    fronts = FrontStats(clock)
    counted: dict[int, int] = {}
    answered = 0
    for pid, more, pause in steps:
        clock.now += pause
        # A front that was silent for long is dead: the next report under its pid is a new process's.
        fronts.rows()
        if pid not in fronts._fronts:
            counted[pid] = 0
        counted[pid] += more
        answered += more
        others = fronts.accept(StatsReport(pid, (row(counted[pid]),))).others
        assert sum(found.requests for found in others) + counted[pid] == answered
        assert sum(found.requests for found in fronts.rows()) == answered


# ---------------------------------------------------------------- beacons
def test_a_beacon_never_grows_beyond_its_bound_and_keeps_what_is_in_use() -> None:
    rows = [row(1000 + n, model=f"model-{n}", last_ms=n) for n in range(3000)]
    data = encode(beacon(A, *rows))
    assert len(data) <= MAX_BYTES
    kept = decode_all({A: Beacon(data, 0.1)})[A].rows
    assert 100 < len(kept) < 3000
    assert min(found.last_ms for found in kept) == 3000 - len(kept)


def test_a_beacon_that_cannot_be_read_is_left_out() -> None:
    found = decode_all({A: Beacon(b"junk", 0.0), B: Beacon(encode(beacon(B, row(3))), 0.0)})
    assert list(found) == [B]
    assert found[B] == beacon(B, row(3))


# ---------------------------------------------------------------- history
def test_history_counts_what_was_answered_in_each_step() -> None:
    ring = Ring()
    for second, requests in [(0, 100), (2, 110), (4, 110), (6, 130)]:
        ring.add(1000.0 + second, {A: beacon(A, row(requests), cpu=float(second)), B: beacon(B)})
    found = ring.read(window=60, step=2, now=1007.0)
    assert [sum(load.requests for load in point.models) for point in found.points] == [0, 10, 0, 20]
    assert found.points[1].models[0].rate == 5.0
    assert found.points[1].at == "1970-01-01T00:16:42Z"
    wide = ring.read(window=60, step=10, now=1007.0)
    assert [sum(load.requests for load in point.models) for point in wide.points] == [30]
    assert wide.points[0].nodes[0].cpu_percent == 3.0
    assert len(ring.read(window=3, step=2, now=1007.0).points) == 1


def test_history_survives_a_restarted_and_an_absent_node() -> None:
    ring = Ring()
    ring.add(0.0, {A: beacon(A, row(100)), B: beacon(B, row(50))})
    ring.add(2.0, {A: beacon(A, row(5))})  # A restarted, B is out of sight
    ring.add(4.0, {A: beacon(A, row(5)), B: beacon(B, row(60))})
    points = ring.read(60, 2, 5.0).points
    assert [sum(load.requests for load in point.models) for point in points] == [0, 5, 10]


# ---------------------------------------------------------------- the whole
@pytest.fixture
async def three(tmp_path: Path):  # type: ignore[no-untyped-def]
    async with flock(tmp_path, 3) as made:
        yield made


def telemetries(three: Flock, folder: Path, clock: Clock | None = None) -> list[Telemetry]:
    return [
        Telemetry(
            node.id,
            f"node-{number}",
            "0.1.0",
            three.logs[node.id],
            node.blobs,
            folder,
            sessions=lambda: (),
            owed=lambda: 7,
            clock=clock or time.monotonic,
        )
        for number, node in enumerate(three.nodes)
    ]


async def test_every_node_shows_the_figures_of_all(three: Flock, tmp_path: Path, clock: LoopClock) -> None:
    found = telemetries(three, tmp_path)
    await three.log.propose(BeginEpoch(1, three.nodes[1].id), actor="test")
    for number, telemetry in enumerate(found):
        three.tasks.start(telemetry.run(), f"telemetry.{number}")
        telemetry.accept_stats(StatsReport(1, (row(10 * (number + 1)),)))
    found[1].accept_trainer(TrainerReport(1, 3, 6.0, 1.0, "ray"))
    await clock.until(lambda: sum(load.requests for load in found[2].stats().models) == 60)
    nodes = found[2].nodes()
    assert [node.name for node in nodes] == ["node-0", "node-1", "node-2"]
    assert [node.ray_head for node in nodes] == [False, True, False]
    assert [node.leader for node in nodes] == [True, False, False]
    assert all(node.state == "alive" and node.role == "voter" for node in nodes)
    # A node's figures come with its first sample, which may be later than its first counts.
    await clock.until(lambda: all(node.memory_bytes and node.disk_free_bytes for node in found[2].nodes()))
    assert all(node.blobs.owed == 7 for node in nodes)
    await clock.until(lambda: found[0].trainer() == TrainerReport(1, 3, 6.0, 1.0, "ray"))
    await clock.until(lambda: bool(found[0].history(60, 2).points))


async def test_a_node_says_how_many_cores_it_has_and_with_whom(three: Flock, tmp_path: Path) -> None:
    telemetry = telemetries(three, tmp_path)[0]
    first, second, _ = sorted(node.id for node in three.nodes)
    for node in (first, second):
        here = structs.replace(three.log.state.members[node], cpus=3, machine="m", cpus_given=False)
        await three.log.propose(JoinMember(here), actor="test")

    def shown() -> list[tuple[int, list[str]]]:
        nodes = {node.id: node for node in telemetry.nodes()}
        return [(nodes[node].cpus, nodes[node].cpus_shared_with) for node in (first, second)]

    assert shown() == [(2, [second]), (1, [first])]
    await three.log.propose(SetMemberStatus(second, MemberStatus.DRAINING), actor="test")
    assert shown() == [(3, []), (0, [])]


async def test_a_silent_node_is_suspect_then_dead(three: Flock, tmp_path: Path) -> None:
    clock = Clock()
    telemetry = telemetries(three, tmp_path, clock)[0]
    victim = three.nodes[2].id

    def state() -> str:
        return next(node.state for node in telemetry.nodes() if node.id == victim)

    assert state() == "alive"
    three.network.kill(victim)
    for seconds, expected in [(2.9, "alive"), (0.2, "suspect"), (6.8, "suspect"), (0.2, "dead")]:
        clock.now += seconds
        assert state() == expected
    three.network.revive(victim)
    assert state() == "alive"
    await three.log.propose(SetMemberStatus(victim, MemberStatus.DRAINING), actor="test")
    assert state() == "draining"


async def test_a_node_never_seen_is_dead_after_a_while(three: Flock, tmp_path: Path) -> None:
    three.network.kill(three.nodes[2].id)
    clock = Clock()
    telemetry = telemetries(three, tmp_path, clock)[0]
    clock.now += 11
    gone = next(node for node in telemetry.nodes() if node.id == three.nodes[2].id)
    assert (gone.state, gone.last_seen) == ("dead", None)


def test_a_beacon_is_small() -> None:
    assert len(msgspec.msgpack.encode(beacon(A, *(row(1000, f"model-{n}") for n in range(3))))) < 1024
