"""What the tests run on Ray's workers, in place of `training.worker.execute`."""

import ctypes
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.blob_door import own_door
from training.ports import CurvePoint, Emit


def execute(function: str, payload: Any, data_key: str, parts: Sequence[Any], emit: Emit) -> object:
    match function:
        case "where":
            import ray

            time.sleep(payload)
            return ray.get_runtime_context().get_node_id()
        case "digest":
            return [hashlib.sha256(part).hexdigest() for part in parts], os.environ["OMP_NUM_THREADS"]
        case "raise":
            raise ValueError(payload)
        case "store":
            door = own_door()
            assert door is not None
            return door.store(os.urandom(payload))
        case "tell":
            for iteration in range(1, payload + 1):
                emit(CurvePoint(iteration, "train", "loss", 1.0, 0.0))
        case "tell-and-crash":
            emit(CurvePoint(1, "train", "loss", 1.0, 0.0))
            while not Path(payload).exists():
                time.sleep(0.01)
            os.abort()
        case "tell-and-hang":
            emit(CurvePoint(1, "train", "loss", 1.0, 0.0))
            ctypes.CDLL(None).pause()
        case "hang":
            Path(payload).write_text(str(os.getpid()))
            ctypes.CDLL(None).pause()  # native code that hears no Python exception
        case "crash":
            os.abort()
        case _:
            raise AssertionError(function)
    return None
