"""What bytes cost: memory and pace of a large upload, of repair and of transfers. Local processes, no Ray.

python -m benchmarks.blobs stream [--gigabytes 2] [--kind csv|parquet]

`stream` uploads a table that is made on the way to one of three nodes, and shows for each node how much memory all
its processes took beyond what they had before: anonymous and shared-memory pages, since page cache is the kernel's to
take back (`tests/support/memory.py`). Bound: 150 MB. It ends with an error if a part is on fewer than two nodes.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.scale import show
from tests.support.flock import Flock, running
from tests.support.memory import Watch, settled
from tests.support.tables import KINDS, stream

BOUND_MB = 150.0
LONG_SECONDS = 1800.0


def upload(gigabytes: float, kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "flock", 3, as_shipped=True) as flock:
        pids = {node.name: pid for node in flock.nodes if (pid := node.pid)}
        settled(pids)
        with Watch(pids) as watch:
            begun, sent = time.monotonic(), _Counted(int(gigabytes * 1e9), kind)
            answer = flock.ask(
                flock.nodes[0], "PUT", f"/v1/datasets/big?target=label&format={kind}", sent, timeout=LONG_SECONDS
            )
            seconds = time.monotonic() - begun
        if answer.status != 201:
            sys.exit(f"the upload was answered with {answer.status}: {answer.body}")
        _report(flock, watch, answer.body, sent.bytes, seconds)


class _Counted:
    """The stream, and how many bytes of it have gone."""

    def __init__(self, size: int, kind: str) -> None:
        self._stream = stream(size, kind)
        self.bytes = 0

    def __iter__(self) -> "_Counted":
        return self

    def __next__(self) -> bytes:
        piece = next(self._stream)
        self.bytes += len(piece)
        return piece


def _report(flock: Flock, watch: Watch, made: dict[str, object], sent: int, seconds: float) -> None:
    show("sent", sent / 1e6, "MB")
    show("request -> durable on two nodes and committed", seconds, "s")
    show("pace", sent / 1e6 / seconds, "MB/s")
    for node in flock.nodes:
        show(f"{node.name}: memory before", watch.idle[node.name] / 1e6, "MB")
        show(f"{node.name}: most above that", watch.beyond(node.name) / 1e6, "MB", BOUND_MB)
    holders = made["holders"]
    assert isinstance(holders, dict)
    copies = {digest: len(found) for digest, found in holders.items()}
    show("parts", len(copies), "")
    show("copies of the part with the fewest", min(copies.values()), "", 2, least=True)
    if min(copies.values()) < 2:
        sys.exit("a part is on fewer than two nodes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["stream"])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--kind", choices=KINDS, default="csv")
    asked = parser.parse_args()
    upload(asked.gigabytes, asked.kind)


if __name__ == "__main__":
    main()
