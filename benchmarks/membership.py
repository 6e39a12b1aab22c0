"""How long writes stand still while the members of a flock change under load: real agents, no Ray.

python -m benchmarks.membership [--times N]    1 -> 3 -> 5 -> 7 -> 3 nodes, the leader among those that stop; then three
                                               that are restarted one after another, the leader first and last;
                                               the longest time between two acknowledged writes of each step
"""

import argparse
import tempfile
from pathlib import Path

from tests.support.band import band
from tests.support.scaling import restart_each, scale

GAP_SECONDS = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=1)
    worst: dict[str, float] = {}
    acknowledged = lost = 0
    for number in range(parser.parse_args().times):
        for change, nodes in ((scale, 7), (restart_each, 3)):
            with tempfile.TemporaryDirectory() as folder, band(Path(folder), nodes) as cluster:
                run = change(cluster)
            shown = "   ".join(f"{step} {gap:.2f} s" for step, gap in run.gaps.items())
            print(f"run {number + 1}: {shown}   {run.acknowledged} writes, {run.lost} lost", flush=True)
            for oddity in run.odd:
                print(f"    {oddity}")
            worst |= {step: max(gap, worst.get(step, 0.0)) for step, gap in run.gaps.items()}
            acknowledged, lost = acknowledged + run.acknowledged, lost + run.lost
    for step, gap in worst.items():
        print(f"{step:9}: longest gap {gap:6.2f} s   bound {GAP_SECONDS:g}   {_verdict(gap)}")
    print(f"{acknowledged} acknowledged writes, {lost} lost")


def _verdict(gap: float) -> str:
    return "ok" if gap <= GAP_SECONDS else "MISSED"


if __name__ == "__main__":
    main()
