"""The composition root of a node: builds every room once, in a straight line, and stops them in reverse order."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from node import config as configuration, interpreter, logs
from node.blobs import build as blobs
from node.config import Config
from node.hardware import read_machine
from node.identity import build as identity
from node.joining.build import Entry
from node.joining.dissolution import EXIT_AGAIN, carry_out
from node.joining.introduction import Introduction
from node.joining.joining import ClusterRecord
from node.joining.slot import Slot, claim
from node.membership.removal import EXIT_REMOVED, Removal
from node.net import own_address
from node.peering.build import Peering
from node.processes.children import Supervisor
from node.services import Foundation, Services
from node.tasks import Tasks

RENEW_CHECK_SECONDS = 60.0

T = TypeVar("T")

_log = logs.get("agent")


def main() -> int:
    """Run a node until SIGTERM or SIGINT; returns the exit code."""
    config = configuration.load(os.environ)
    logs.configure(config.logging.format, config.logging.level)
    interpreter.tune()
    slot = claim(config.storage.data, config.storage.slot)
    try:
        while (code := asyncio.run(Agent(config, slot).run())) == EXIT_AGAIN:
            pass  # its cluster has ended: as a blank node it joins the other
        return code
    finally:
        slot.release()


class Agent:
    """One node, from its first greeting to its last. What it runs as a member is in `node.services`."""

    def __init__(self, config: Config, slot: Slot) -> None:
        self._config, self._slot = config, slot
        self._stop = asyncio.Event()
        self._failed = self._told_to_stop = False

        # Who we are.
        address = config.peers.advertise or own_address()
        self._keyring = identity.keyring(config, slot.path, address)
        self._identity = self._keyring.identity
        name = config.cluster.node_name or f"node-{slot.number}"
        self._me = Introduction(config, self._identity.id, name, address, read_machine(config.training.cpus))
        # What runs for this node, and what must not outlive it.
        self._tasks = Tasks(self._on_failure)
        self._supervisor = Supervisor(slot.path / "logs", self._on_failure)
        # What it has kept.
        self._blobs = blobs.store(config.storage, slot.path)
        # How peers are found and reached, and how it comes to belong to them.
        self._removal = Removal(self._me.id, slot.path, self._stop.set)
        blank = self._me.blank(self._identity.fingerprint)
        self._peers = Peering(config.peers, self._identity, blank, self._removal.of_this_node)
        self._entry = Entry(config, slot.path, self._me.id, self._peers)

    # ---------------------------------------------------------------- life
    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        logs.bind(node=self._me.name)
        _log.info("node.starting", id=self._me.id, slot=str(self._slot.path), address=self._me.address)
        services: Services | None = None
        try:
            record = await self._unless_stopped(self._settle())
            if record is not None:
                services = Services(self._foundation(), record)
                await self._unless_stopped(services.start())
                await self._stop.wait()
        except Exception:  # the start failed: say why, and end with what was built so far
            _log.exception("node.cannot_start")
            self._failed = True
        await self._shut_down(services)
        if self._removal.happened.is_set():
            return EXIT_REMOVED
        if self._failed:
            return 1
        return EXIT_AGAIN if services is not None and services.dissolved and not self._told_to_stop else 0

    def _end(self) -> None:
        self._told_to_stop = True
        self._stop.set()

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What it returns; None when the node is to stop before it has."""
        working = asyncio.create_task(work, name="start")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            working.cancel()
            stopping.cancel()

    async def _settle(self) -> ClusterRecord:
        """The cluster that this node belongs to from now on."""
        await asyncio.to_thread(self._blobs.open)
        departure = carry_out(self._slot.path)
        await self._peers.start()
        self._tasks.start(self._peers.greeter.run(), "greeter")
        self._tasks.start(self._keep_certificate(), "certificate")
        return await self._entry.settle(departure)

    def _foundation(self) -> Foundation:
        return Foundation(
            config=self._config,
            slot=self._slot,
            me=self._me,
            keyring=self._keyring,
            peers=self._peers,
            blobs=self._blobs,
            supervisor=self._supervisor,
            tasks=self._tasks,
            removal=self._removal,
            stop=self._stop.set,
        )

    async def _shut_down(self, services: Services | None) -> None:
        """In reverse. Work ends first and the vote is handed on, while fronts still answer; then everything else."""
        _log.info("node.stopping")
        if services is not None and services.up:
            await services.stop_work()
            if not (self._failed or self._removal.happened.is_set() or services.dissolved):
                await services.say_goodbye()
        await self._peers.withdraw()
        # Children before what they call; the fronts finish the requests they have.
        await self._supervisor.stop()
        await self._tasks.stop()
        if services is not None:
            await services.stop()
        await self._peers.stop()
        _log.info("node.stopped")

    def _on_failure(self, name: str, error: BaseException | None) -> None:
        """A root task that ends takes the node down in order: half a node would be worse than none."""
        _log.error("node.failed", task=name, reason=str(error) if error else "it ended")
        self._failed = True
        self._stop.set()

    async def _keep_certificate(self) -> None:
        while True:
            await asyncio.sleep(RENEW_CHECK_SECONDS)
            if self._identity.renew_if_due():
                _log.info("certificate.renewed")
