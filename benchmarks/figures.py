"""Start-up, failover and footprint of a flock, measured on the real thing.

python -m benchmarks.figures start       cold `compose up` of a built image: ready, first write, Ray (needs Docker)
python -m benchmarks.figures failover    kill -9 of the leader ten times: new leader, first accepted write
python -m benchmarks.figures head        kill -9 of leader = Ray head in training: first fold of the new epoch
python -m benchmarks.figures footprint   memory and CPU of idle nodes, without and with Ray
"""

import functools
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from tests.support.compose import Compose
from tests.support.data import wine_csv
from tests.support.flock import Flock, LocalNode, running
from tests.support.nodes import ClusterUnderTest, NodeHandle, Stopwatch
from tests.support.wait import wait_for

KILLS = 10


def show(name: str, values: Sequence[float], bound: float, unit: str = "s") -> None:
    """One line: median, extremes and the bound it should keep."""
    low, middle, high = min(values), statistics.median(values), max(values)
    verdict = "ok" if middle <= bound else "MISSED"
    spread = f"({low:.2f} to {high:.2f}, n={len(values)})"
    print(f"{name:48} median {middle:7.2f} {unit}  {spread}  bound {bound:g}  {verdict}")


def start() -> None:
    project = Compose("parvadabench")
    project.down(volumes=True)
    project.compose("build", timeout=900)
    ready: list[float] = []
    written: list[float] = []
    ray: list[float] = []
    try:
        for _ in range(3):
            project.down(volumes=True)
            watch = Stopwatch()
            project.compose("up", "--detach", "--scale", "node=3")
            project.token = project.nodes[0].run("parvada", "token", "show").stdout.strip()
            urls = {node.name: node.url for node in project.nodes}
            writer = threading.Thread(target=_first_write, args=(project, urls, watch, written))
            writer.start()
            project.wait_ready(90)
            ready.append(watch.seconds)
            writer.join()
            project.wait_for_ray(3, 90)
            ray.append(watch.seconds)
    finally:
        project.down(volumes=True)
    show("compose up -> /readyz on all 3", ready, 25)
    show("compose up -> first accepted write", written, 10)
    show("compose up -> Ray on all 3", ray, 25)


def _first_write(project: Compose, urls: dict[str, str], watch: Stopwatch, written: list[float]) -> None:
    _until_written(project, [At(name, url) for name, url in urls.items()])
    written.append(watch.seconds)


def _until_written(flock: ClusterUnderTest, nodes: Sequence[NodeHandle]) -> None:
    wait_for("an accepted write", lambda: any(_writes(flock, node) for node in nodes), 90, every=0.02)


class At:
    """A node at a known URL."""

    alive = True

    def __init__(self, name: str, url: str) -> None:
        self.name, self.url = name, url

    def kill(self) -> None:
        raise NotImplementedError


def _writes(flock: ClusterUnderTest, node: NodeHandle) -> bool:
    """A write small enough to time the log: a token made."""
    try:
        body = {"name": "bench", "role": "viewer"}
        return flock.ask(node, "POST", "/v1/tokens", body, timeout=5).status == 201
    except OSError:
        return False


def failover() -> None:
    elected, accepted = [], []
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "flock", 3, as_shipped=True) as flock:
        for _ in range(KILLS):
            old = flock.wait_for_leader()
            leader = flock.by_id(old)
            others = [node for node in flock.nodes if node.name != leader.name]
            watch = Stopwatch()
            leader.kill()
            _until_written(flock, others)
            accepted.append(watch.seconds)
            flock.wait_for_new_leader(old)
            elected.append(watch.seconds)
            flock.wait_ready()
            flock.wait_for_voters(3)
    show("kill -9 of the leader -> first accepted write", accepted, 2.0)
    print(f"{'':48} longest {max(accepted):.2f} s, bound 4")


def containers() -> None:
    project = Compose("parvadabench")
    project.down(volumes=True)
    project.compose("build", timeout=900)
    elected, accepted = [], []
    try:
        project.up(3)
        for _ in range(KILLS):
            project.wait_for_voters(3)
            old = project.wait_for_leader()
            leader = project.by_id(old)
            others = [At(node.name, node.url) for node in project.nodes if node.name != leader.name]
            watch = Stopwatch()  # so the time that `docker kill` itself takes is in the figures
            leader.kill()
            wait_for("a new leader", functools.partial(_other_leader, project, others, old), every=0.02)
            elected.append(watch.seconds)
            _until_written(project, others)
            accepted.append(watch.seconds)
            project.compose("up", "--detach", "--wait")
    finally:
        project.down(volumes=True)
    show("kill of the leader's container -> new leader", elected, 2.0)
    show("kill of the leader's container -> accepted write", accepted, 2.0)
    print(f"{'':48} longest {max(accepted):.2f} s, bound 4")


def _other_leader(flock: ClusterUnderTest, nodes: Sequence[NodeHandle], old: str) -> bool:
    return any(flock.view(node)["leader"] not in (None, old) for node in nodes)


def head() -> None:
    spec = {"datasets": ["wine"], "seed": 1, "cv": {"folds": 5, "repeats": 10}, "publish": {"when": "never"}}
    resumed = []
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        running(Path(folder) / "f", 3, ray=True, as_shipped=True) as flock,
    ):
        flock.push(flock.nodes[0], "wine", wine_csv(), "?target=cultivar")
        for _ in range(3):
            ray = flock.wait_for_ray(3, 90)
            job = flock.submit(flock.nodes[0], spec)
            _until_training(flock, job)
            leader = flock.by_id(ray["head"])
            watch = Stopwatch()
            leader.kill()
            done = _progress_after(flock, job, ray["epoch"])
            resumed.append(watch.seconds)
            print(f"  {done} folds were done when the epoch changed")
            flock.ask(flock.living[0], "POST", f"/v1/jobs/{job}/cancel")
            flock.wait_ready(60)
            flock.wait_for_voters(3)
    show("kill of leader = head -> first fold, new epoch", resumed, 20)


def _until_training(flock: Flock, job: str) -> None:
    wait_for("training", lambda: flock.job(job)["progress"]["trials_done"] > 10, 60)


def _progress_after(flock: Flock, job: str, epoch: int) -> int:
    """Wait until a fold runs in an epoch after `epoch`; returns how many were done before."""

    def runs() -> int | None:
        seen = flock.job(job)
        newer = any(number > epoch for number in seen["epochs"])
        return int(seen["progress"]["trials_done"]) if newer and seen["progress"]["trials_running"] else None

    return wait_for("a fold in the new epoch", runs, 60, every=0.05)


def footprint() -> None:
    for ray, memory_bound in ((False, 250), (True, 700)):
        with (
            tempfile.TemporaryDirectory(dir="/tmp") as folder,
            running(Path(folder) / "f", 3, ray=ray, as_shipped=True) as flock,
        ):
            if ray:
                flock.wait_for_ray(3, 90)
            time.sleep(10)  # what starts has started: from here on the nodes are idle
            sizes, shares = zip(*(_idle(node, 20.0) for node in flock.nodes), strict=True)
            label = "with Ray" if ray else "without Ray"
            show(f"idle node {label}, memory (PSS)", sizes, memory_bound, "MB")
            show(f"idle node {label}, CPU", shares, 100 if ray else 3, "%")


def _idle(node: LocalNode, seconds: float) -> tuple[float, float]:
    """(PSS in MB, percent of one core) of a node's processes: the agent and everything it started."""
    assert node.pid is not None
    agent = psutil.Process(node.pid)
    family = [agent, *agent.children(recursive=True)]
    before = _cpu(family)
    begun = time.monotonic()
    time.sleep(seconds)
    share = 100 * (_cpu(family) - before) / (time.monotonic() - begun)
    return sum(_pss(process) for process in family) / 1e6, share


def _cpu(family: list[psutil.Process]) -> float:
    total = 0.0
    for process in family:
        try:
            times = process.cpu_times()
            total += times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return total


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0


COMMANDS: dict[str, Callable[[], None]] = {
    "start": start,
    "failover": failover,
    "containers": containers,
    "head": head,
    "footprint": footprint,
}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    COMMANDS[sys.argv[1]]()
