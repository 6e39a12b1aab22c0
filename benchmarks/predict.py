"""What one row of prediction costs through one front, against a bare aiohttp handler that echoes the same body.

Both are real processes on loopback in the same run; the figure that matters is their ratio.

    python -m benchmarks.predict [--seconds 5] [--concurrency 8]
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import psutil

from tests.integration.serving.socket_agent import SocketAgent
from tests.integration.serving.test_front import Fronts, free_port
from tests.support.wait import wait_for
from tests.unit.serving.builders import IRIS_INPUTS, iris_model, model_of, view_of

ECHO = """
import asyncio, sys
from aiohttp import web
async def echo(request):
    return web.Response(body=await request.read(), content_type="application/json")
async def main():
    app = web.Application()
    app.router.add_post("/echo", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1])).start()
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def measure(url: str, body: dict[str, object], seconds: float, concurrency: int) -> tuple[float, float, float]:
    """Requests a second, and the median and 99th percentile of the latency in milliseconds."""
    latencies: list[float] = []
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def client(end: float) -> None:
            while time.perf_counter() < end:
                begun = time.perf_counter()
                async with session.post(url, json=body) as response:
                    await response.read()
                    assert response.status == 200
                latencies.append(time.perf_counter() - begun)

        await asyncio.gather(*(client(time.perf_counter() + 0.5) for _ in range(concurrency)))
        latencies.clear()
        begun = time.perf_counter()
        await asyncio.gather(*(client(begun + seconds) for _ in range(concurrency)))
        rate = len(latencies) / (time.perf_counter() - begun)
    return rate, statistics.median(latencies) * 1e3, statistics.quantiles(latencies, n=100)[-1] * 1e3


def memory(pid: int) -> str:
    info = psutil.Process(pid).memory_full_info()
    return f"RSS {info.rss >> 20} MB, PSS {info.pss >> 20} MB"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=5.0)
    arguments.add_argument("--concurrency", type=int, default=8)
    options = arguments.parse_args()
    echo_port = free_port()
    body: dict[str, object] = {"rows": [dict(zip((f.name for f in IRIS_INPUTS), (5.1, 3.5, 1.4, 0.2), strict=True))]}
    with tempfile.TemporaryDirectory() as folder:
        path, version = iris_model(Path(folder))
        socket = Path(folder) / "agent.sock"
        with SocketAgent(socket, view_of(), {version.digest: path}) as agent:
            echo = subprocess.Popen([sys.executable, "-c", ECHO, str(echo_port)], env=dict(os.environ))
            node = Fronts(agent, Path(folder), free_port())
            try:
                front = node.start()
                node.wait_until_ready()
                print(f"idle front      {memory(front.pid)}")
                agent.show(view_of(model_of(version, aliases={"production": 1})))
                url = f"{node.url}/v1/models/iris/predict"
                wait_for("the model", lambda: node.post("/v1/models/iris/predict", body).status == 200)
                for concurrency in sorted({1, options.concurrency}):
                    run = (body, options.seconds, concurrency)
                    bare = asyncio.run(measure(f"http://127.0.0.1:{echo_port}/echo", *run))
                    ours = asyncio.run(measure(url, *run))
                    for name, (rate, median, slow) in (("bare echo", bare), ("predict", ours)):
                        print(
                            f"{name:10} c={concurrency:<3} {rate:8.0f} req/s  p50 {median:6.2f} ms  p99 {slow:6.2f} ms"
                        )
                    print(f"ratio      c={concurrency:<3} {ours[0] / bare[0]:8.2f}")
                print(f"front, 1 model  {memory(front.pid)}")
            finally:
                node.stop()
                echo.kill()
                echo.wait(10)


if __name__ == "__main__":
    main()
