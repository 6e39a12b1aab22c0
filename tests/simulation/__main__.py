"""`python -m tests.simulation --seeds 2000 --first 1`, or `--transcript 7` to read what happened in one seed."""

import argparse
import sys

from tests.simulation.runner import Ledger, run_many
from tests.simulation.scenario import STEPS, transcript


def main() -> int:
    """The exit code is 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many (100)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"random steps of each run ({STEPS})")
    parser.add_argument("--processes", type=int, default=0, help="0: one a core")
    parser.add_argument("--transcript", type=int, metavar="SEED", help="tell this one seed, line by line")
    options = parser.parse_args()
    if options.transcript is not None:
        kept = transcript(options.transcript, lambda line: sys.stdout.write(line + "\n"), options.steps)
        return 0 if kept else 1
    ledger = Ledger()
    for outcome in run_many(options.first, options.seeds, processes=options.processes, steps=options.steps):
        ledger.add(outcome)
        if outcome.problem:
            sys.stdout.write(f"seed {outcome.seed}: {outcome.problem}\n")
            sys.stdout.write(f"  python -m tests.simulation --transcript {outcome.seed} --steps {options.steps}\n")
    sys.stdout.write(f"{ledger}\n")
    return 1 if ledger.violations else 0


if __name__ == "__main__":
    sys.exit(main())
