"""The replica number of this container: the name that Docker's DNS gives for the container's own address.

Compose names replica 3 of a service `project-node-3`. /etc/hosts, which `gethostbyaddr` reads first, only knows the
container's id; a PTR query to Docker's own resolver answers `project-node-3.network`.
"""

import re
import secrets
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address

import psutil

from node import logs

log = logs.get("node.joining.docker_dns")

DOCKER_DNS = ("127.0.0.11", 53)
TIMEOUT = 1.0
"""Seconds for one answer. The resolver is in the same network namespace: it takes a millisecond or is not there."""
ATTEMPTS = 2

_HEADER = struct.Struct("!6H")
_PTR, _IN = 12, 1
_NAME = re.compile(r"(?!.*-run-).+[-_]([1-9][0-9]{0,3})\Z")
"""A container's name. One made by `compose run` ends in a random `-run-0123456789ab` and is no replica."""


def replica_number(addresses: Sequence[str] | None = None, server: tuple[str, int] = DOCKER_DNS) -> int | None:
    """This container's replica number, 1 to 9999, or None where there is no Docker, no Compose or no answer.

    Blocks for at most 2 s an address; `addresses` are by default those of this machine's interfaces.
    """
    for address in own_addresses() if addresses is None else addresses:
        try:
            name = reverse_lookup(address, server)
        except (OSError, ValueError) as error:
            log.debug("replica.unknown", address=address, reason=str(error))
            continue
        if name is not None and (number := number_in(name)) is not None:
            return number
    return None


def own_addresses() -> tuple[str, ...]:
    """The IPv4 addresses of this machine's interfaces, without loopback."""
    found = [entry.address for entries in psutil.net_if_addrs().values() for entry in entries if entry.family == 2]
    return tuple(address for address in found if not IPv4Address(address).is_loopback)


def number_in(name: str) -> int | None:
    """`parvada-node-3.parvada_default` -> 3; None if the name is not that of a replica."""
    match = _NAME.match(name.partition(".")[0])
    return int(match.group(1)) if match else None


def reverse_lookup(
    address: str, server: tuple[str, int] = DOCKER_DNS, timeout: float = TIMEOUT, attempts: int = ATTEMPTS
) -> str | None:
    """The name of `address` as `server` gives it, None if it knows none; each attempt takes `timeout` seconds.

    Raises OSError (no resolver there, no answer in time) or ValueError (an answer that makes no sense).
    """
    query_id = secrets.randbelow(65536)
    # Connected: only the resolver's answers are received, and "nobody listens there" is an error at once.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(timeout)
        udp.connect(server)
        for attempt in range(attempts):
            udp.send(make_query(address, query_id))
            try:
                return parse_answer(udp.recv(4096), query_id)
            except TimeoutError:
                if attempt + 1 == attempts:
                    raise
    raise AssertionError("unreachable")


def make_query(address: str, query_id: int) -> bytes:
    """A PTR query for an IPv4 address (RFC 1035 4.1)."""
    labels = IPv4Address(address).reverse_pointer.split(".")
    name = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
    return _HEADER.pack(query_id, 0x0100, 1, 0, 0, 0) + name + struct.pack("!2H", _PTR, _IN)


def parse_answer(packet: bytes, query_id: int) -> str | None:
    """The first PTR name of an answer, None if it says that there is none. Raises ValueError on anything malformed."""
    try:
        return _parse(packet, query_id)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"malformed DNS answer: {error}") from error


def _parse(packet: bytes, query_id: int) -> str | None:
    answered, flags, questions, answers, _, _ = _HEADER.unpack_from(packet)
    if answered != query_id or not flags & 0x8000:
        raise ValueError("not the answer to this query")
    if flags & 0x000F == 3:
        return None
    if flags & 0x000F:
        raise ValueError(f"the resolver failed with code {flags & 0x000F}")
    position = _HEADER.size
    for _ in range(questions):
        position = _skip_name(packet, position) + 4
    for _ in range(answers):
        position = _skip_name(packet, position)
        kind, family, _, length = struct.unpack_from("!2HIH", packet, position)
        position += 10
        if (kind, family) == (_PTR, _IN):
            return _read_name(packet, position)
        position += length
    return None


def _skip_name(packet: bytes, position: int) -> int:
    """The position after the name: its last label, or the pointer that ends it."""
    while (length := packet[position]) != 0:
        if length & 0xC0 == 0xC0:
            return position + 2
        if length & 0xC0:
            raise ValueError("malformed DNS answer: a label of unknown type")
        position += 1 + length
    return position + 1


def _read_name(packet: bytes, position: int) -> str:
    labels: list[str] = []
    end = position
    while (length := packet[position]) != 0:
        if length & 0xC0 == 0xC0:
            target = (length & 0x3F) << 8 | packet[position + 1]
            # Pointers go backwards only, so that they cannot form a loop.
            if target >= end:
                raise ValueError("malformed DNS answer: a pointer that does not point back")
            position = end = target
            continue
        if length & 0xC0:
            raise ValueError("malformed DNS answer: a label of unknown type")
        label = packet[position + 1 : position + 1 + length]
        if len(label) != length:
            raise ValueError("malformed DNS answer: cut in a label")
        labels.append(label.decode("ascii"))
        if sum(map(len, labels)) > 255:
            raise ValueError("malformed DNS answer: a name of more than 255 characters")
        position += 1 + length
    return ".".join(labels)
