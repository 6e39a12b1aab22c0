"""The settings of a front: read once, from the environment that the agent gives it."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

_MEGABYTE = 1024 * 1024


class SettingsError(ValueError):
    """A variable is missing or has a value that cannot be used."""


class FrontSettings(msgspec.Struct, frozen=True):
    socket: Path
    """The agent's Unix socket."""
    node: str
    """This node's id, for `x-parvada-node`."""
    host: str = "0.0.0.0"
    """Interface of the client port: inside a container, all of them."""
    port: int = 8080
    auth: str = "writes"
    """`writes`: reads and predictions are open; `all`: every call wants a token."""
    max_predict_bytes: int = 64 * _MEGABYTE
    """Of a prediction's body, packed or unpacked."""
    max_predict_values: int = 1_000_000
    """Rows times columns of one prediction."""
    log_level: str = "INFO"


def read_settings(env: Mapping[str, str]) -> FrontSettings:
    """From `PARVADA_*`. Raises `SettingsError` naming the variable."""
    auth = env.get("PARVADA_AUTH", "writes")
    if auth not in ("writes", "all"):
        raise SettingsError(f"PARVADA_AUTH is {auth!r}; it must be 'writes' or 'all'")
    return FrontSettings(
        socket=Path(_needed(env, "PARVADA_LOCAL_SOCKET")),
        node=_needed(env, "PARVADA_NODE_ID"),
        host=env.get("PARVADA_HOST", "0.0.0.0"),
        port=_number(env, "PARVADA_PORT", 8080, 65535),
        auth=auth,
        max_predict_bytes=_number(env, "PARVADA_MAX_PREDICT_MB", 64, 4096) * _MEGABYTE,
        max_predict_values=_number(env, "PARVADA_MAX_PREDICT_VALUES", 1_000_000, 10**9),
        log_level=env.get("PARVADA_LOG_LEVEL", "INFO").upper(),
    )


def _needed(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set; the agent sets it for its children")
    return value


def _number(env: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = env.get(name, "") or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise SettingsError(f"{name} is {text!r}; it must be a whole number from 1 to {most}")
    return int(text)
