"""`python -m tests.chaos.whole`: chaos on local processes, then on containers, and one ledger (`make chaos`)."""

import argparse
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.chaos.ledger import Ledger, table
from tests.chaos.stages import say

STOP_SECONDS = 120.0
"""For a part that is stopped to take its nodes down."""


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cuts, seed = f"--power-cuts={options.power_cuts}", f"--seed={options.seed}"
    parts = {
        "processes": [cuts, seed, f"--seconds={options.seconds}"],
        "containers": [
            cuts,
            seed,
            "--containers",
            f"--seconds={options.container_seconds}",
            f"--ray-cuts={options.ray_cuts}",
        ],
    }
    ledgers: dict[str, Ledger] = {}
    for name, wanted in parts.items():
        say(f"--- {name}")
        ledgers[name] = _part(wanted)
    total = Ledger()
    for ledger in ledgers.values():
        total += ledger
    say(table({**ledgers, "total": total}))
    if options.json:
        Path(options.json).write_bytes(msgspec.json.encode({**ledgers, "total": total}))
    return 1 if total.violations else 0


def _part(arguments: list[str]) -> Ledger:
    """In a process of its own, since the local processes get a network of their own. A part without a verdict is a
    violation."""
    with tempfile.TemporaryDirectory(prefix="parvada-chaos-") as folder:
        written = Path(folder) / "ledger.json"
        process = subprocess.Popen([sys.executable, "-m", "tests.chaos", f"--json={written}", *arguments])
        try:
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(STOP_SECONDS)
        if not written.exists():
            return Ledger(violations=[f"no verdict: {' '.join(arguments)} ended with {code}"])
        return msgspec.json.decode(written.read_bytes(), type=Ledger)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.whole", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="of random faults on processes (600)")
    parser.add_argument("--container-seconds", type=float, default=120.0, help="of random faults on containers (120)")
    parser.add_argument("--power-cuts", type=int, default=20, help="on each of both (20)")
    parser.add_argument("--ray-cuts", type=int, default=4, help="further ones, on containers with Ray (4)")
    parser.add_argument("--seed", type=int, default=1, help="chooses faults and operations, not their timing (1)")
    parser.add_argument("--json", help="write the ledgers and their total to this file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
