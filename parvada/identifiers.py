"""What names and ids look like: one form for all that takes, stores or refuses them."""

import re
from typing import Final

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._\-]{0,127}$"
"""Of `is_name`, in the common language of Python and JSON Schema."""
_NAME = re.compile(NAME, re.ASCII)
_NODE_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


def is_name(text: str) -> bool:
    """What a dataset, a model or an alias may be called: 1 to 128 characters."""
    return _NAME.fullmatch(text) is not None


def is_node_id(text: str) -> bool:
    """32 lower-case hexadecimal digits."""
    return _NODE_ID.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """64 lower-case hexadecimal digits: SHA-256."""
    return _DIGEST.fullmatch(text) is not None
