"""A process that connects to Ray as the trainer does, and what it says."""

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

from tests.ray.executor import EXECUTE

DRIVER = """
import asyncio, sys
from training.ports import Task
from training.ray_tasks import RayExecutor

async def main():
    executor = RayExecutor(sys.argv[1], sys.argv[2])
    await executor.start()
    await executor.share("none", [])
    print("CONNECTED", flush=True)
    if len(sys.argv) > 3:
        await executor.run(Task("hang", sys.argv[3], "none", 300))

asyncio.run(main())
"""


class Driver(NamedTuple):
    process: asyncio.subprocess.Process
    output: "asyncio.Task[None]"
    said: bytearray
    """Its output so far; all of it once `output` is done."""


async def driver(address: str, environment: Mapping[str, str], *arguments: str) -> Driver:
    """A process that connects as a trainer does, with nothing of Ray in its environment but what is given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", DRIVER, address, EXECUTE, *arguments),
        env={**clean, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = bytearray()
    return Driver(process, asyncio.create_task(_collect(process.stdout, said), name="driver.output"), said)


async def _collect(output: asyncio.StreamReader, said: bytearray) -> None:
    while chunk := await output.read(65536):
        said += chunk
