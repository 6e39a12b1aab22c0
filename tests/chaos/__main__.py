"""`python -m tests.chaos`: chaos on real processes. Prints a ledger; exit code 1 if anything was violated."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.chaos import partition
from tests.chaos.run import Ledger, Setting, run
from tests.chaos.work import prepare
from tests.support.flock import Flock, running

RUN_SECONDS = 40.0
"""Of one run; a longer time is cut into runs on the same flock, each judged by itself."""
CUTS_A_RUN = 4


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the flock is stopped on the way out
    reason = partition.why_not() if options.partitions else "not asked for"
    if not reason and not partition.inside():
        partition.enter(arguments)
    _say(f"partitions: {'on' if not reason else 'skipped, ' + reason}")
    with tempfile.TemporaryDirectory(prefix="parvada-chaos-") as folder:
        data = Path(options.data or folder) / "data"
        with running(data, 3) as flock:
            ledger = _all(flock, options, None if reason else partition.Partition(data))
    _say(ledger.text())
    if options.json:
        Path(options.json).write_bytes(msgspec.json.encode(ledger))
    return 0 if not ledger.violations else 1


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=RUN_SECONDS, help="of random faults (40)")
    parser.add_argument("--seed", type=int, default=1, help="chooses faults and operations, not their timing (1)")
    parser.add_argument("--power-cuts", type=int, default=0, help="then so many kills of all nodes in mid-load (0)")
    parser.add_argument("--no-partitions", dest="partitions", action="store_false", help="no packet filters")
    parser.add_argument("--repeats", type=int, default=3, help="of the folds of each job: how long a job takes (3)")
    parser.add_argument("--data", help="keep the nodes' folders here")
    parser.add_argument("--json", help="write the ledger to this file")
    return parser.parse_args(arguments)


def _all(flock: Flock, options: argparse.Namespace, cuts: partition.Partition | None) -> Ledger:
    versions, total, left, number = prepare(flock), Ledger(), float(options.seconds), 0
    while left > 0:
        seconds = min(left, RUN_SECONDS)
        setting = Setting(f"r{number}", seconds, options.seed + number, versions, options.repeats)
        total += _one(flock, setting, cuts)
        left, number = left - seconds, number + 1
    for done in range(0, options.power_cuts, CUTS_A_RUN):
        times = min(CUTS_A_RUN, options.power_cuts - done)
        setting = Setting(f"p{done}", 0.0, options.seed + number + done, versions, options.repeats, times)
        total += _one(flock, setting, None)
    return total


def _one(flock: Flock, setting: Setting, cuts: partition.Partition | None) -> Ledger:
    ledger = run(flock, setting, cuts)
    _say(
        f"{setting.name} seed {setting.seed}: {ledger.kills} kills, {ledger.pauses} pauses, {ledger.partitions} "
        f"partitions, {ledger.acknowledged} acknowledged, {ledger.lost} lost, {len(ledger.violations)} violations"
    )
    return ledger


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
