"""A `RayExecutor` in a process of its own, as in the trainer: Ray reads its environment when it is imported, and
takes down the process that loses the head; the tests can stand neither."""

import asyncio
import inspect
import itertools
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from consensus.state import NodeId
from training.ports import Capacity, CurvePoint, Hear, Task, to_nobody

EXECUTE = "tests.ray.tasks:execute"
CAPACITY, CANCEL = 0, -1
CALL_SECONDS = 60.0


async def receive(reader: asyncio.StreamReader) -> Any:
    size = int.from_bytes(await reader.readexactly(4), "big")
    return pickle.loads(await reader.readexactly(size))  # noqa: S301  both ends of this socket are ours


def send(writer: asyncio.StreamWriter, message: object) -> None:
    frame = pickle.dumps(message)
    writer.write(len(frame).to_bytes(4, "big") + frame)


class RemoteExecutor:
    """The parent's end: the same calls, with their results and exceptions."""

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self.process = process
        self._connection = connection
        self._numbers = itertools.count(1)
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._ears: dict[int, Hear] = {}
        self._capacity = Capacity(0, 0, 0)
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, address: str, environment: Mapping[str, str]) -> "RemoteExecutor":
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.to_thread(
                subprocess.Popen,
                [sys.executable, "-m", "tests.ray.executor", address, str(theirs.fileno())],
                env={**os.environ, **environment},
                pass_fds=(theirs.fileno(),),
            )
        executor = cls(process, ours)
        reader, executor._writer = await asyncio.open_connection(sock=ours)
        executor._reading = asyncio.create_task(executor._read(reader), name="executor.read")
        await executor.call("start")
        return executor

    def capacity(self) -> Capacity:
        return self._capacity

    async def share(self, key: str, parts: Sequence[Path]) -> None:
        await self.call("share", key, parts)

    async def allot(self, shares: Mapping[NodeId, int]) -> None:
        await self.call("allot", shares)

    async def run(self, task: Task, on_message: Hear = to_nobody) -> object:
        return await self.call("run", task, on_message=on_message)

    async def stop(self) -> None:
        await self.call("stop")
        assert self._writer is not None
        assert self._reading is not None
        self._writer.close()
        await asyncio.wait([self._reading], timeout=CALL_SECONDS)
        assert await asyncio.to_thread(self.process.wait, 20) == 0

    async def call(self, method: str, *arguments: object, on_message: Hear = to_nobody) -> Any:
        assert self._writer is not None
        number = next(self._numbers)
        self._ears[number] = on_message
        answer = self._calls[number] = asyncio.get_running_loop().create_future()
        send(self._writer, (number, method, arguments))
        try:
            return await asyncio.wait_for(asyncio.shield(answer), CALL_SECONDS)
        except asyncio.CancelledError:
            if not answer.done():
                send(self._writer, (CANCEL, "", (number,)))
                await asyncio.wait([answer], timeout=CALL_SECONDS)
            raise

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                number, outcome = await receive(reader)
                if number == CAPACITY:
                    self._capacity = outcome
                elif isinstance(outcome, CurvePoint):
                    self._ears[number](outcome)
                elif isinstance(outcome, BaseException):
                    self._calls.pop(number).set_exception(outcome)
                else:
                    self._calls.pop(number).set_result(outcome)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            for answer in self._calls.values():
                answer.set_exception(ConnectionError(f"the executor's process is gone: {error}"))


async def serve(address: str, connection: socket.socket) -> None:
    """The child's end: one task a call, and the capacity twenty times a second."""
    from training.ray_tasks import RayExecutor

    executor = RayExecutor(address, EXECUTE)
    reader, writer = await asyncio.open_connection(sock=connection)
    calls: dict[int, asyncio.Task[None]] = {}

    async def answer(number: int, method: str, arguments: Sequence[Any]) -> None:
        if method == "run":
            arguments = (*arguments, lambda message: send(writer, (number, message)))
        try:
            outcome: object = getattr(executor, method)(*arguments)
            if inspect.isawaitable(outcome):
                outcome = await outcome
        except asyncio.CancelledError:
            outcome = RuntimeError("cancelled")
        except Exception as error:
            outcome = error
        send(writer, (number, outcome))

    async def tell() -> None:
        while True:
            send(writer, (CAPACITY, executor.capacity()))
            await asyncio.sleep(0.05)

    telling = asyncio.create_task(tell(), name="capacity")
    try:
        while True:
            number, method, arguments = await receive(reader)
            if number == CANCEL:
                calls[arguments[0]].cancel()
            else:
                calls[number] = asyncio.create_task(answer(number, method, arguments), name=method)
    except asyncio.IncompleteReadError:
        telling.cancel()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2]))))
