"""Formation of real agents (no Ray) that start at once, again and again: how long it takes, and that it is one cluster.

python -m benchmarks.formation [--nodes 20] [--times 10] [--rule 1|2|3]

Rules as in discovery/DESIGN.md: 1 a shared data folder, 2 PARVADA_EXPECT, 3 neither. Without --rule: each of them.
CPU is of all agents and their children until the last node sees all members.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.support.hosts import Host, clusters, hosts, rule, wait_for_members

LIMIT_SECONDS = 180.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; 1 if any run did not end in exactly one cluster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--rule", type=int, choices=(1, 2, 3))
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no agent is left behind
    wrong = 0
    for number in [chosen.rule] if chosen.rule else [1, 2, 3]:
        counts = [_run(number, chosen.nodes) for _ in range(chosen.times)]
        bad = sum(count != 1 for count in counts)
        _say(f"rule {number}: {chosen.times} runs of {chosen.nodes} nodes, {bad} not in exactly one cluster")
        wrong += bad
    return 1 if wrong else 0


def _run(number: int, nodes: int) -> int:
    """One formation; the number of clusters it ended in, 0 if not every node belongs to one."""
    with (
        tempfile.TemporaryDirectory() as folder,
        hosts(Path(folder), nodes, shared=number == 1, environment=rule(number, nodes)) as started,
    ):
        begun = time.monotonic()
        for host in started:
            host.start()
        try:
            wait_for_members(started, nodes, LIMIT_SECONDS)
        except AssertionError as error:
            _say(f"rule {number}: {error}; clusters: {sorted(clusters(started))}")
            _say("\n".join(f"{host.name}: {host.log[-600:]}" for host in started if host.view() is None)[:20_000])
            return 0 if len(clusters(started)) == 1 else len(clusters(started))
        seconds, used, found = time.monotonic() - begun, _cpu(started), len(clusters(started))
        _say(f"rule {number}: {nodes} nodes, {seconds:6.1f} s, {used:6.1f} CPU-seconds, {found} cluster(s)")
        return found


def _cpu(started: Sequence[Host]) -> float:
    agents = [psutil.Process(host.process.pid) for host in started if host.process is not None]
    all_of_them = [*agents, *(child for agent in agents for child in agent.children(recursive=True))]
    times = [process.cpu_times() for process in all_of_them if process.is_running()]
    return float(sum(each.user + each.system for each in times))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
