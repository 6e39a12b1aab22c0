"""A network of hosts of its own: a kernel network namespace a host, joined by a bridge, with a packet filter in each.

A cut drops packets without a word, as a network does; what runs on a host (`Place.popen`) has its address and nobody
else's. No name is taken in the machine's own network, and all of it ends with the process that made it, however that
ends: each namespace lives as long as a `cat` whose standard input that process holds.
"""

import contextlib
import ctypes
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from tests.chaos import partition
from tests.support.wait import wait_for

Loss = Literal["packets", "dials"]
"""What does not arrive: everything, or only new connections, as behind a firewall that one may open from one side."""
SUBNET: Final = "10.213.77"
"""Free to choose: nobody outside of these namespaces sees it."""
_CLONE_NEWNET: Final = 0x40000000
_LOSSES: Final[dict[Loss, list[str]]] = {"packets": [], "dials": ["-p", "tcp", "--syn"]}
_libc = ctypes.CDLL(None, use_errno=True)


def why_not() -> str:
    """Why this machine cannot have such networks; empty if it can."""
    return partition.why_not() or ("nsenter is not installed" if shutil.which("nsenter") is None else "")


class Place:
    """One network namespace."""

    def __init__(self, address: str) -> None:
        self.address = address
        ours = Path("/proc/self/ns/net").readlink()
        self._holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        self._path = Path(f"/proc/{self._holder.pid}/ns/net")
        wait_for("a network namespace", lambda: self._path.readlink() != ours)

    @property
    def pid(self) -> int:
        """A process that is there."""
        return self._holder.pid

    def command(self, words: Sequence[str]) -> list[str]:
        """The command that runs this one there, as the same process."""
        return ["nsenter", f"--net={self._path}", "--", *words]

    def run(self, line: str, stdin: str = "") -> None:
        subprocess.run(self.command(line.split()), check=True, timeout=20, input=stdin.encode())

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets that this thread makes meanwhile belong there, and stay so."""
        own = Path(f"/proc/self/task/{threading.get_native_id()}/ns/net")
        with own.open() as back, self._path.open() as there:
            _set_namespace(there.fileno())
            try:
                yield
            finally:
                _set_namespace(back.fileno())

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait(10)
        if self._holder.stdin is not None:
            self._holder.stdin.close()


class Network:
    """Places that all reach one another until `cut`."""

    def __init__(self, switch: Place, places: Sequence[Place]) -> None:
        self.places = places
        switch.run("ip link add bridge0 type bridge")
        switch.run("ip link set bridge0 up")
        for number, place in enumerate(places):
            switch.run(f"ip link add port{number} type veth peer name eth0 netns {place.pid}")
            switch.run(f"ip link set port{number} master bridge0 up")
            place.run("ip link set lo up")
            place.run(f"ip address add {place.address}/24 dev eth0")
            place.run("ip link set eth0 up")

    def cut(self, *groups: Sequence[int]) -> None:
        """From now on nothing passes between these groups; whatever was cut before and is not now passes again.

        At no moment passes what neither the old nor the new cut lets through.
        """
        apart = [(group, other) for group in groups for other in groups if other is not group]
        for host, place in enumerate(self.places):
            unheard = [self.places[o].address for group, others in apart if host in group for o in others]
            rules = "".join(f"-A INPUT -s {address} -j DROP\n" for address in unheard)
            place.run("iptables-restore -w --noflush", f"*filter\n:INPUT ACCEPT\n-F INPUT\n{rules}COMMIT\n")

    def deafen(self, hosts: Sequence[int], others: Sequence[int], loss: Loss = "packets") -> None:
        """These hosts hear nothing of the others, who hear them."""
        for host in hosts:
            for other in others:
                rule = ["-s", self.places[other].address, *_LOSSES[loss]]
                self.places[host].run(" ".join(["iptables -w -A INPUT", *rule, "-j DROP"]))

    def heal(self) -> None:
        for place in self.places:
            place.run("iptables -w -F INPUT")


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    with contextlib.ExitStack() as stack:
        places = []
        for number in range(count + 1):
            place = Place(f"{SUBNET}.{number + 1}")
            stack.callback(place.close)
            places.append(place)
        yield Network(places[-1], places[:-1])


def _set_namespace(file: int) -> None:
    if _libc.setns(file, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "no way into the network namespace")
