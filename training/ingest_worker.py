"""`training.ingest` for a process of its own, in which pandas is left out.

Asked for its first array, pyarrow imports pandas to tell whether it was given a frame: 30 MB, a fifth of what an upload
of any size may take. Only texts that look like dates need it.
"""

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from training.upload import IngestOptions, IngestResult


def ingest(path: str, options: IngestOptions) -> IngestResult:
    """As `training.ingest.ingest`."""
    leave_out_pandas()
    from training.ingest import ingest as run  # which makes an array as it is imported

    return run(path, options)


def leave_out_pandas() -> None:
    """Let pyarrow look for pandas once, in vain. Whatever converts *to* pandas later makes it look again. Without
    effect where pandas has been imported."""
    if "pandas" in sys.modules:
        return
    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        import pyarrow as pa

        pa.array([0])
    finally:
        sys.meta_path.remove(absent)


class _Absent(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ImportError("pandas is left out for now", name=fullname)
        return None
