"""The scripted node itself: what it leaves behind would fail some other test."""

import gc
import socket
import threading
import time

from tests.unit.parvada.scripted import ScriptedNode, from_table

STOPS = 3


def test_a_node_that_stops_while_clients_connect_leaves_no_socket_open() -> None:
    """Any that it did leave is a ResourceWarning when it is collected, and so a failure."""
    for _ in range(STOPS):
        node, over = ScriptedNode(from_table({})), threading.Event()
        with node:
            connected = threading.Barrier(3)
            threads = [threading.Thread(target=connect, args=(node.port, connected, over)) for _ in range(2)]
            for thread in threads:
                thread.start()
            connected.wait(30)
        over.set()
        for thread in threads:
            thread.join()
    gc.collect()


def connect(port: int, connected: threading.Barrier, over: threading.Event) -> None:
    """Again and again; by the barrier the first time was good."""
    first = True
    while not over.is_set():
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0)
        if first:
            connected.wait(30)
            first = False
