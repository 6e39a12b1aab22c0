"""A worker's way into the blob store of its own node: a file in the agent's temporary folder, and a call by its socket.

Synchronous, as a fit is; so what a fit makes, however large, passes neither the trainer nor its node.
"""

import http.client
import itertools
import os
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from parvada.local import BLOBS, AdoptRequest, StoredBlob
from parvada.schema import Problem
from training.errors import NotStored

CALL_SECONDS = 600.0
"""For the agent to copy a large file to another node."""
PATIENCE_SECONDS = 60.0
"""So long a refusal that may pass (no other node in reach, no room) is followed by another try."""
MOST_SECONDS = CALL_SECONDS + 2 * PATIENCE_SECONDS
"""For all of it: after its patience has ended no new call begins."""
_RETRY_SECONDS = 1.0
_MAY_PASS = (503, 507)
_NAME = re.compile(r"worker-(\d+)-\d+\.blob")


class BlobDoor:
    """`socket`: the agent's; `tmp`: the folder in which it takes files from its children."""

    def __init__(
        self,
        socket: str,
        tmp: Path,
        patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._socket, self._tmp, self._patience = socket, tmp, patience
        self._clock, self._sleep = clock, sleep
        self._numbers = itertools.count()

    def store(self, content: bytes) -> StoredBlob:
        """Returns when it is durable on two nodes, or on all if there are fewer.

        Raises:
            NotStored: the agent did not take it, with its reason.
        """
        self._tidy()
        give_up = self._clock() + self._patience
        while True:
            try:
                return self._try(content)
            except _MayPass as refusal:
                if self._clock() >= give_up:
                    raise NotStored(str(refusal)) from refusal
            self._sleep(_RETRY_SECONDS)

    def _try(self, content: bytes) -> StoredBlob:
        # Each time anew: an agent that could not copy a file elsewhere has taken it all the same.
        path = self._tmp / f"worker-{os.getpid()}-{next(self._numbers)}.blob"
        try:
            path.write_bytes(content)
            status, body = self._post(AdoptRequest(str(path)))
        except (OSError, http.client.HTTPException) as error:
            raise _MayPass(f"the agent could not be given a file of {len(content)} bytes: {error!r}") from error
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        if status == 200:
            return msgspec.json.decode(body, type=StoredBlob)
        said = msgspec.json.decode(body, type=Problem).error if body.startswith(b"{") else f"status {status}"
        raise (_MayPass if status in _MAY_PASS else NotStored)(f"the agent did not take {len(content)} bytes: {said}")

    def _post(self, body: AdoptRequest) -> tuple[int, bytes]:
        connection = _Connection(self._socket)
        try:
            connection.request("POST", BLOBS, msgspec.json.encode(body))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _tidy(self) -> None:
        """Files of workers that were killed while they stored."""
        for path in self._tmp.glob("worker-*.blob"):
            found = _NAME.fullmatch(path.name)
            if found is not None and not Path("/proc", found[1]).exists():
                path.unlink(missing_ok=True)


def own_door() -> BlobDoor | None:
    """Of this process, by what its agent has put into the environment; None where there is no agent."""
    path, tmp = os.environ.get("PARVADA_LOCAL_SOCKET"), os.environ.get("PARVADA_TMP")
    return BlobDoor(path, Path(tmp)) if path and tmp else None


class _MayPass(Exception):
    """A refusal that another try may not meet."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("agent", timeout=CALL_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
