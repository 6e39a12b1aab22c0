"""`python -m tests.proof`: the whole suite several times, each in an order of its own, some of them beside load. A test
that fails once in five is a test that fails in CI: either it is wrong, or the product is."""

import argparse
import contextlib
import random
import subprocess
import sys
import time

from tests.support.load import half_of_all_cores

LOADED = 2
"""So many of the runs, the last ones, have load beside them."""


def main(arguments: list[str]) -> int:
    """The exit code is the number of runs that failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="how many runs (5)")
    parser.add_argument("--seed", type=int, default=0, help="of the first run's order; 0 chooses one")
    parser.add_argument("pytest", nargs="*", help="more arguments for pytest, after --")
    options = parser.parse_args(arguments)
    first = options.seed or random.randrange(1, 2**31)
    told = [_run(number, options.times, first + number, options.pytest) for number in range(options.times)]
    sys.stdout.write("\n".join(told) + "\n")
    return sum("failed" in line for line in told)


def _run(number: int, times: int, seed: int, arguments: list[str]) -> str:
    loaded = number >= times - LOADED
    # A module's tests stay together; those that build on one another say so, and keep their order.
    order = ["--random-order", "--random-order-bucket=module", f"--random-order-seed={seed}"]
    began = time.monotonic()
    with half_of_all_cores() if loaded else contextlib.nullcontext():
        code = subprocess.run(
            [sys.executable, "-m", "pytest", "tests", "-q", *order, *arguments], check=False
        ).returncode
    ended = "passed" if code == 0 else f"failed ({code})"
    how = f"{'beside load' if loaded else 'alone'}, --random-order-seed={seed}"
    return f"run {number + 1} of {times}, {how}: {ended} in {time.monotonic() - began:.0f} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
