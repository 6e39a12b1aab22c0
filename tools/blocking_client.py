"""Makes the blocking client from the asynchronous one: `python -m tools.blocking_client`, or `make generate`.

`parvada/aio.py` is the source. Without `async` and `await`, and with the blocking names for the asynchronous ones, it
is `parvada/client.py`. What else differs (sockets, clocks, threads) is in the two sessions that the clients inherit.
"""

import re
import subprocess
import sys
from pathlib import Path

SOURCE, MADE = Path("parvada/aio.py"), Path("parvada/client.py")
ROOT = Path(__file__).parents[1]
HEADER = f"# Made from {SOURCE} by `make generate`: do not edit.\n"

NAMES = {
    "AsyncClient": "Client",
    "AsyncIterator": "Iterator",
    "AsyncSession": "SyncSession",
    "_aiohttp": "_http",
}
TEXTS = {
    "`AsyncClient`: every call as a coroutine or an async iterator, on aiohttp. `client.py` is made from this file.":
        "`Client`: every call as a method that blocks, on the standard library's HTTP alone.",
    "belongs to one event loop": "safe to share between threads",
    " An upload's `progress` is called in a worker thread.": "",
}  # fmt: skip
"""What the documentation says otherwise. Each of them stands in the source, once."""
RULES = "I001,UP028"
"""Imports in order, and `yield from` for the loop that asynchronous generators need instead."""


def blocking(source: str) -> str:
    """The text of the blocking client. Raises ValueError where a text of the table is not in the source just once."""
    for text, instead in TEXTS.items():
        if source.count(text) != 1:
            raise ValueError(f"{SOURCE} has {source.count(text)} times, expected once: {text!r}")
        source = source.replace(text, instead)
    source = re.sub(r"\b(?:async|await) ", "", source)
    source = re.sub(rf"\b(?:{'|'.join(NAMES)})\b", lambda found: NAMES[found[0]], source)
    fixed = _ruff("check", "--quiet", "--fix", "--unsafe-fixes", "--select", RULES, text=HEADER + source)
    return _ruff("format", text=fixed)


def _ruff(*command: str, text: str) -> str:
    arguments = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(MADE), "-"]
    return subprocess.run(arguments, input=text, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout


def main() -> None:
    (ROOT / MADE).write_text(blocking((ROOT / SOURCE).read_text()))


if __name__ == "__main__":
    main()
