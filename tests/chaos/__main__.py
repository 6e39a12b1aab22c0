"""`python -m tests.chaos`: chaos on real processes or containers. Prints a ledger; ends with 1 if a promise broke."""

import argparse
import signal
import sys
from pathlib import Path

import msgspec

from tests.chaos import partition
from tests.chaos.ledger import table
from tests.chaos.stages import RUN_SECONDS, Program, on_containers, on_processes, say


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the cluster is stopped on the way out
    program = Program(
        options.seconds, options.seed, options.power_cuts, options.ray_cuts, options.repeats, options.partitions
    )
    if options.containers:
        ledger = on_containers(program)
    else:
        if program.partitions and not partition.inside() and not partition.why_not():
            partition.enter(arguments)
        ledger = on_processes(program, Path(options.data) if options.data else None)
    say(table({"containers" if options.containers else "processes": ledger}))
    if options.json:
        Path(options.json).write_bytes(msgspec.json.encode(ledger))
    return 0 if not ledger.violations else 1


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--containers", action="store_true", help="of docker compose, instead of local processes")
    parser.add_argument("--seconds", type=float, default=RUN_SECONDS, help="of random faults (40)")
    parser.add_argument("--seed", type=int, default=1, help="chooses faults and operations, not their timing (1)")
    parser.add_argument("--power-cuts", type=int, default=0, help="then so many kills of all nodes in mid-load (0)")
    parser.add_argument("--ray-cuts", type=int, default=0, help="then so many with Ray, only with --containers (0)")
    parser.add_argument("--no-partitions", dest="partitions", action="store_false", help="no node is cut off")
    parser.add_argument("--repeats", type=int, default=3, help="of the folds of each job: how long a job takes (3)")
    parser.add_argument("--data", help="keep the processes' folders here")
    parser.add_argument("--json", help="write the ledger to this file")
    options = parser.parse_args(arguments)
    if options.containers and options.data:
        parser.error("containers keep their data in a volume of their own: --data is for processes")
    if options.ray_cuts and not options.containers:
        parser.error("--ray-cuts needs --containers")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
