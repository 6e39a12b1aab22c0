"""Parvada's public face: `Client` and `AsyncClient`, the schema of the wire, and the errors."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["AsyncClient", "Client", "__version__", "job_spec"]

if TYPE_CHECKING:
    from parvada._calls import job_spec
    from parvada.aio import AsyncClient
    from parvada.client import Client

_HOMES = {"Client": "parvada.client", "AsyncClient": "parvada.aio", "job_spec": "parvada._calls"}


def __getattr__(name: str) -> Any:
    """Import the clients on first use, so that `import parvada` stays cheap for the command line."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'parvada' has no attribute {name!r}")
