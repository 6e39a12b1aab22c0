"""`parvada up`: a whole flock as local processes on loopback, the same code as in containers.

Starts one agent a node, restarts one that dies, writes `DIR/up.json` so that people and tests can find and kill
them, and stops all of them at the end. It holds no state of the cluster itself.
"""

import asyncio
import contextlib
import fcntl
import itertools
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec

from node.files import write_atomically
from node.identity import pki
from node.membership.removal import EXIT_REMOVED
from node.processes.children import Supervisor

LOOPBACK = "127.0.0.1"
LISTEN_PORTS = range(10_000, 32_768)
MDNS_NODES = 10
"""A larger flock finds itself by its seeds alone: each announcement is read by every node, N² of them."""
STOP_SECONDS = 25.0


class UpError(Exception):
    """The flock cannot be started; the message says why and what to do."""


class UpOptions(msgspec.Struct, frozen=True):
    nodes: int = 3
    port: int = 8080
    """Client port of the first node; the others follow it."""
    data: Path = Path(".parvada")
    ray: bool = True
    restart: bool = True
    restart_after: float = 3.0
    """Seconds until a node that died is started again: the others have noticed by then, and one that dies at once does
    not keep the machine busy."""


class NodePorts(msgspec.Struct, frozen=True):
    """Ports of one node; kept in `ports.json` so that a restarted flock keeps its addresses."""

    api: int
    peer: int
    raft: int
    ray: int


class UpNode(msgspec.Struct, frozen=True):
    id: str
    pid: int
    api_port: int
    data: str


class UpFile(msgspec.Struct, frozen=True):
    """What `up.json` holds."""

    nodes: tuple[UpNode, ...]


def run(options: UpOptions) -> int:
    """Run the flock until SIGINT or SIGTERM; returns the process's exit code."""
    if not 1 <= options.nodes <= 100:
        raise UpError(f"--nodes {options.nodes}: give a number from 1 to 100")
    data = options.data.resolve()
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _only_one(data):
        if not (data / "secret").exists():
            pki.make_secret(data / "secret")
        ports = _choose_ports(options, data)
        return asyncio.run(Flock(options, data, ports).run())


@contextlib.contextmanager
def _only_one(data: Path) -> Iterator[None]:
    with (data / ".up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UpError(f"another `parvada up` runs on {data}: stop it, or give another --data") from None
        yield


def _choose_ports(options: UpOptions, data: Path) -> tuple[NodePorts, ...]:
    kept: list[NodePorts] = []
    path = data / "ports.json"
    if path.exists():
        kept = msgspec.json.decode(path.read_bytes(), type=list[NodePorts])
    chosen: list[NodePorts] = []
    taken = {options.port + number for number in range(options.nodes)}
    for number in range(options.nodes):
        api = options.port + number
        _require_free(api)
        old = kept[number] if number < len(kept) else None
        if old and all(_is_free(port) and port not in taken for port in (old.peer, old.raft, old.ray)):
            ports = msgspec.structs.replace(old, api=api)
        else:
            ports = NodePorts(api, *_free_ports(3, taken))
        chosen.append(ports)
        taken |= {ports.peer, ports.raft, ports.ray}
    write_atomically(path, msgspec.json.encode(chosen))
    return tuple(chosen)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex((LOOPBACK, port)) != 0 and _binds(probe.family, port)


def _binds(family: int, port: int) -> bool:
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _require_free(port: int) -> None:
    if port > 65535:
        raise UpError(f"client port {port} is above 65535: give a lower --port")
    if not _is_free(port):
        raise UpError(f"port {port} is in use: give another --port")


def _free_ports(count: int, taken: Collection[int] = ()) -> list[int]:
    """Below the range that the kernel takes the ports of outgoing connections from: one of those that is free now may
    be a connection's by the time that the node listens, for as long as that connection lasts. `taken` are given to
    somebody who does not listen yet."""
    candidates = random.sample(LISTEN_PORTS, len(LISTEN_PORTS))
    free = (port for port in candidates if port not in taken and _is_free(port))
    return list(itertools.islice(free, count))


class Flock:
    """The agents' parent process: starts, watches, restarts, stops."""

    def __init__(self, options: UpOptions, data: Path, ports: tuple[NodePorts, ...]) -> None:
        self._options = options
        self._data = data
        self._ports = ports
        self._ids = [_node_id(self._slot(index)) for index in range(options.nodes)]
        self._pids: dict[int, int] = {}
        self._stopping = asyncio.Event()
        self._supervisor = Supervisor(data / "logs", self._failed)
        self._failure: BaseException | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        keepers = [
            asyncio.create_task(self._keep(index), name=f"node-{index + 1}") for index in range(self._options.nodes)
        ]
        announcer = asyncio.create_task(self._announce(), name="announce")
        try:
            done, _ = await asyncio.wait(keepers, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            announcer.cancel()
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(announcer, *keepers, return_exceptions=True)
            await self._supervisor.stop()
            (self._data / "up.json").unlink(missing_ok=True)
        if self._failure is not None:
            raise UpError(f"stopped after an internal failure: {self._failure}")
        _say("stopped")
        return 0

    def _failed(self, name: str, error: BaseException | None) -> None:
        self._failure = error or RuntimeError(f"{name} ended")
        self._stopping.set()

    async def _keep(self, index: int) -> None:
        """Run one agent until the flock stops; start it again when it dies."""
        stopping = asyncio.create_task(self._stopping.wait(), name=f"stopping-{index + 1}")
        try:
            while not self._stopping.is_set():
                process = await self._start(index)
                ended = asyncio.create_task(process.wait(), name=f"agent-{index + 1}")
                await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if self._stopping.is_set():
                    await self._supervisor.kill(process, grace=STOP_SECONDS)
                    return
                await self._supervisor.kill(process, grace=0)  # it is dead: nothing of its session may be left
                self._pids.pop(index, None)
                self._write()
                _say(f"node-{index + 1} " + self._end(index, process.returncode))
                if process.returncode == EXIT_REMOVED or not self._options.restart:
                    await stopping
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(stopping), self._options.restart_after)
        finally:
            stopping.cancel()

    def _end(self, index: int, code: int | None) -> str:
        if code == EXIT_REMOVED:
            return "was removed from the cluster; stays away"
        after = (
            f"; back in {self._options.restart_after:g} s" if self._options.restart else "; stays dead (--no-restart)"
        )
        log = f"; its log: {self._supervisor.log_path(f'node-{index + 1}')}" if code and code > 0 else ""
        return f"died (exit {code}){after}{log}"

    async def _start(self, index: int) -> asyncio.subprocess.Process:
        process = await self._supervisor.launch(
            [sys.executable, "-m", "parvada", "node"], self._environment(index), f"node-{index + 1}"
        )
        self._pids[index] = process.pid
        self._write()
        return process

    def _slot(self, index: int) -> Path:
        return self._data / "slots" / str(index + 1)

    def _environment(self, index: int) -> dict[str, str]:
        ports, number = self._ports[index], index + 1
        return {
            "PARVADA_DATA": str(self._data),
            "PARVADA_SLOT": str(number),
            "PARVADA_NODE_NAME": f"node-{number}",
            "PARVADA_HOST": LOOPBACK,
            "PARVADA_PORT": str(ports.api),
            "PARVADA_PEER_HOST": LOOPBACK,
            "PARVADA_PEER_PORT": str(ports.peer),
            "PARVADA_RAFT_PORT": str(ports.raft),
            "PARVADA_ADVERTISE": LOOPBACK,
            "PARVADA_MDNS_INTERFACE": LOOPBACK,
            "PARVADA_SEEDS": ",".join(f"{LOOPBACK}:{other.peer}" for other in self._ports if other != ports),
            "PARVADA_RAY": "on" if self._options.ray else "off",
            "PARVADA_RAY_ADDRESS_IP": LOOPBACK,
            "PARVADA_RAY_PORT": str(ports.ray),
        } | {key: value for key, value in self._defaults().items() if key not in os.environ}

    def _defaults(self) -> dict[str, str]:
        """What the caller's own environment may say otherwise."""
        return {"PARVADA_MDNS": "on" if self._options.nodes <= MDNS_NODES else "off"}

    def _write(self) -> None:
        nodes = tuple(
            UpNode(self._ids[index], pid, self._ports[index].api, str(self._slot(index)))
            for index, pid in sorted(self._pids.items())
        )
        write_atomically(self._data / "up.json", msgspec.json.encode(UpFile(nodes)))

    async def _announce(self) -> None:
        """Tell the person at the terminal where to go, once everything is ready."""
        begun = time.monotonic()
        _say(f"starting {self._options.nodes} nodes, data in {self._data}")
        for index, ports in enumerate(self._ports):
            await _until(lambda port=ports.api: _is_ready(port))  # type: ignore[misc]  # default argument in a lambda
            _say(f"node-{index + 1} ready at http://{LOOPBACK}:{ports.api}")
        _say(f"all {self._options.nodes} nodes ready after {time.monotonic() - begun:.1f} s")
        _say(f"try:  parvada status --url http://{LOOPBACK}:{self._ports[0].api}    Ctrl-C stops the flock")


def _node_id(slot: Path) -> str:
    slot.mkdir(parents=True, exist_ok=True, mode=0o700)
    return pki.NodeKey.load_or_make(slot / "key.pem").id


async def _until(condition: Callable[[], bool]) -> None:
    while not await asyncio.to_thread(condition):  # noqa: ASYNC110  another process's readiness has no event here
        await asyncio.sleep(0.3)


def _is_ready(port: int) -> bool:
    from parvada.health import is_ready

    return is_ready(LOOPBACK, port)


def _say(text: str) -> None:
    sys.stderr.write(f"parvada: {text}\n")
    sys.stderr.flush()
