"""What names and ids look like: one form for all that takes, stores or refuses them."""

import re

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
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
