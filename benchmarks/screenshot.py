"""The README's picture of the terminal UI, taken from a real flock that trains and predicts, so that it is true.

python -m benchmarks.screenshot docs/tui.svg
"""

import asyncio
import re
import sys
import tempfile
import threading
from pathlib import Path

from tests.support.data import iris_csv, wine_csv
from tests.support.flock import Flock, running
from tui.app import ParvadaApp, TopOptions

SIZE = (120, 34)
ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


def main(out: Path) -> None:
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        running(Path(folder) / "f", 3, ray=True, as_shipped=True) as flock,
    ):
        flock.wait_for_ray(3, 90)
        flock.push(flock.nodes[0], "iris", iris_csv(), "?target=species")
        flock.push(flock.nodes[1], "wine", wine_csv(), "?target=cultivar")
        flock.wait_for_job(flock.submit(flock.nodes[0], {"datasets": ["iris"], "name": "irises"}))
        stop = threading.Event()
        load = [threading.Thread(target=_predict, args=(flock, number, stop)) for number in range(3)]
        for thread in load:
            thread.start()
        spec = {"datasets": ["wine", "iris"], "cv": {"folds": 5, "repeats": 8}, "name": "spring", "seed": 4}
        flock.submit(flock.nodes[0], spec)
        try:
            asyncio.run(_draw(flock, out))
        finally:
            stop.set()
            for thread in load:
                thread.join(15)


def _predict(flock: Flock, number: int, stop: threading.Event) -> None:
    while not stop.wait(0.02):
        flock.ask(flock.nodes[number], "POST", "/v1/models/iris/predict", {"rows": [ROW]})


async def _draw(flock: Flock, out: Path) -> None:
    app = ParvadaApp(TopOptions(urls=tuple(node.url for node in flock.nodes), token=None, interval=1.0))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause(25.0)  # long enough for the curves to have a shape
        await asyncio.to_thread(out.write_text, _self_contained(app.export_screenshot(title="parvada top")))


def _self_contained(svg: str) -> str:
    """Without the fonts that Textual would have the reader's browser fetch."""
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code", "monospace")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
