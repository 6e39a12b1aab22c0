"""Entries, commands and whole states as bytes: a byte of format version, a byte of kind, then msgpack. Nothing is
ever unpickled, and what does not fit the types exactly is a `CodecError`."""

from types import GenericAlias
from typing import Any, Final, TypeVar, get_args, get_origin

import msgspec
from immutables import Map

from consensus.messages import Barrier, Command, Entry
from consensus.state import ClusterState, CommandId

FORMAT: Final = 1
"""Raised when an older reader would misunderstand; new fields with a default do not need it."""

T = TypeVar("T")


_VERSION = bytes([FORMAT])
_ENTRY_KIND, _COMMAND_KIND, _STATE_KIND = b"e", b"c", b"s"
_KINDS = {_ENTRY_KIND: "entry", _COMMAND_KIND: "command", _STATE_KIND: "state"}


class CodecError(ValueError):
    """The bytes are not what they should be; the message says what and where."""


def encode_entry(entry: Entry) -> bytes:
    """Raises CodecError for what has no place in msgpack: integers beyond 64 bits, lone surrogates in texts."""
    return _encode(_ENTRY_KIND, entry)


def decode_entry(data: bytes) -> Entry:
    """Raises CodecError."""
    return _decode(_ENTRY_KIND, _ENTRY, data)


def decode_foreign(data: bytes, own: int) -> Entry:
    """An entry that needs a level above this release's `own`, without its command. Raises CodecError for any other."""
    head = _decode(_ENTRY_KIND, _HEAD, data)
    if head.level <= own:
        raise CodecError("entry: of a level that this release understands, but it does not fit")
    return Entry(head.id, head.time, head.actor, Barrier(), head.level)


def encode_command(command: Command) -> bytes:
    """Raises CodecError, as `encode_entry`."""
    return _encode(_COMMAND_KIND, command)


def decode_command(data: bytes) -> Command:
    """Raises CodecError."""
    return _decode(_COMMAND_KIND, _COMMAND, data)


def encode_state(state: ClusterState) -> bytes:
    """The same bytes for equal states, on whichever replica: maps are written in the order of their keys."""
    return _encode(_STATE_KIND, state)


def decode_state(data: bytes) -> ClusterState:
    """Raises CodecError."""
    return _decode(_STATE_KIND, _STATE, data)


def level_of_state(data: bytes) -> int:
    """The level in force in a state, which may have what this release does not understand. Raises CodecError."""
    return _decode(_STATE_KIND, _LEVELED, data).level


class _Head(msgspec.Struct, frozen=True):
    """What every release finds in an entry."""

    id: CommandId
    time: float
    actor: str
    level: int = 1


class _Leveled(msgspec.Struct, frozen=True):
    level: int = 1


def _to_builtin(value: Any) -> Any:
    if isinstance(value, Map):
        return dict(sorted(value.items()))
    raise NotImplementedError(f"{type(value).__name__} has no place in the replicated state")


def _from_builtin(kind: type, value: Any) -> Any:
    if get_origin(kind) is not Map:
        raise NotImplementedError(f"{kind} has no place in the replicated state")
    plain = msgspec.convert(value, _dict_type(kind), dec_hook=_from_builtin)
    return Map(plain)


_DICTS: dict[Any, Any] = {}


def _dict_type(kind: Any) -> Any:
    """`dict[K, V]` for `Map[K, V]`, made once: building the alias anew costs more than decoding a small map."""
    known = _DICTS.get(kind)
    if known is None:
        known = _DICTS[kind] = GenericAlias(dict, get_args(kind))
    return known


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_to_builtin)
_ENTRY = msgspec.msgpack.Decoder(Entry, dec_hook=_from_builtin)
_COMMAND: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command, dec_hook=_from_builtin)
_STATE = msgspec.msgpack.Decoder(ClusterState, dec_hook=_from_builtin)
_HEAD, _LEVELED = msgspec.msgpack.Decoder(_Head), msgspec.msgpack.Decoder(_Leveled)


def _encode(kind: bytes, value: Any) -> bytes:
    try:
        return _VERSION + kind + _ENCODER.encode(value)
    except (OverflowError, UnicodeEncodeError) as error:
        raise CodecError(f"{type(value).__name__}: {error}") from error


def _decode(kind: bytes, decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    what = _KINDS[kind]
    if data[:1] != _VERSION:
        raise CodecError(f"{what}: format {data[0]}, expected {FORMAT}" if data else f"{what}: no bytes")
    # Most fields of a state have a default: without its kind, any map at all would pass for an empty state.
    if data[1:2] != kind:
        raise CodecError(f"these bytes are no {what}")
    try:
        return decoder.decode(memoryview(data)[2:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise CodecError(f"{what}: {error}") from error
