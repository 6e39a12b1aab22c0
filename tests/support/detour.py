"""A way from one half of a network to the other that is closed until the network heals: a TCP forwarder."""

import contextlib
import socket
import threading
from collections.abc import Iterator

LOOPBACK = "127.0.0.1"


class Detour:
    """Whoever dials `port` is refused while it is closed, and reaches `target` (a port) once it is open."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.socket()
        self._listener.bind((LOOPBACK, 0))  # bound, so that nobody else gets the port; it does not listen yet
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()

    def heal(self) -> None:
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True, name=f"detour-{self.port}").start()

    def close(self) -> None:
        with self._lock:
            ends, self._open = [self._listener, *self._open], []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # `close` ends it
            while True:
                here, _ = self._listener.accept()
                try:
                    there = socket.create_connection((LOOPBACK, self._target), 5)
                except OSError:
                    here.close()
                    continue
                with self._lock:
                    self._open += [here, there]
                for source, sink in ((here, there), (there, here)):
                    threading.Thread(target=_pass, args=(source, sink), daemon=True, name="detour").start()


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def detours(targets: list[int]) -> Iterator[list[Detour]]:
    made = [Detour(target) for target in targets]
    try:
        yield made
    finally:
        for detour in made:
            detour.close()
