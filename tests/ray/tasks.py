"""What the tests run on Ray's workers, in place of `training.worker.execute`."""

import ctypes
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def execute(function: str, payload: Any, data_key: str, parts: Sequence[Any]) -> object:
    match function:
        case "where":
            import ray

            time.sleep(payload)
            return ray.get_runtime_context().get_node_id()
        case "digest":
            return [hashlib.sha256(part).hexdigest() for part in parts], os.environ["OMP_NUM_THREADS"]
        case "raise":
            raise ValueError(payload)
        case "hang":
            Path(payload).write_text(str(os.getpid()))
            ctypes.CDLL(None).pause()  # native code that hears no Python exception
        case "crash":
            os.abort()
        case _:
            raise AssertionError(function)
    return None
