"""Cheap imports, for processes that start in numbers: the agent and the fronts spend most of their start on them."""

import contextlib
import gc
import os
from collections.abc import Iterator

_NO_SYSTEM_CERTIFICATES = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}


@contextlib.contextmanager
def cheap_imports() -> Iterator[None]:
    """Import what a process runs on within this, before it has threads.

    Modules stay for good, so the garbage collector would only look at them again and again: it rests meanwhile, and
    leaves them alone afterwards. And aiohttp reads the certificates of the system when it is imported, although the
    processes of a node trust nobody but their own cluster.
    """
    before = {name: os.environ.get(name) for name in _NO_SYSTEM_CERTIFICATES}
    os.environ.update(_NO_SYSTEM_CERTIFICATES)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
