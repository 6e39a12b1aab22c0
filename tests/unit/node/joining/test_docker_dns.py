"""The replica number from a resolver: a real exchange over UDP, names, and packets that make no sense."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, strategies as st

from node.joining import docker_dns
from node.joining.docker_dns import make_query, number_in, parse_answer, reverse_lookup

ID = 0x1234


def labels(name: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def answer(query: bytes, rdata: bytes, *, flags: int = 0x8180, kind: int = 12, count: int = 1) -> bytes:
    """An answer to `query` whose record's name points to the question, as Docker's resolver writes it."""
    header = query[:2] + struct.pack("!5H", flags, 1, count, 0, 0)
    record = b"\xc0\x0c" + struct.pack("!2HIH", kind, 1, 600, len(rdata)) + rdata
    return header + query[12:] + record * count


QUERY = make_query("172.18.0.4", ID)


@contextmanager
def resolver(reply: Callable[[bytes, int], bytes | None]) -> Iterator[tuple[str, int]]:
    """`reply(query, number of the query)` decides what is sent back; None = nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(30)

        def serve() -> None:
            number = 0
            while (received := udp.recvfrom(512))[0] != b"stop":
                number += 1
                if (sent := reply(received[0], number)) is not None:
                    udp.sendto(sent, received[1])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield udp.getsockname()
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stopper:
                stopper.sendto(b"stop", udp.getsockname())
            thread.join(30)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("parvada-node-3.parvada_default", 3),
        ("my-project-node-12.my-project_default", 12),
        ("parvada_node_2.parvada_default", 2),
        ("parvada-node-3", 3),
        ("parvada-node-run-012345678901.parvada_default", None),
        ("parvada-node-run-1234.parvada_default", None),
        ("0f3a1b2c4d5e.bridge", None),
        ("parvada-node-0.parvada_default", None),
        ("parvada-node-99999.parvada_default", None),
        ("node.3", None),
        ("", None),
    ],
)
def test_number_in_a_containers_name(name: str, number: int | None) -> None:
    assert number_in(name) == number


def test_asks_for_the_address_and_reads_the_name() -> None:
    seen: list[bytes] = []

    def reply(query: bytes, _: int) -> bytes:
        seen.append(query)
        return answer(query, labels("parvada-node-3.parvada_default"))

    with resolver(reply) as server:
        assert reverse_lookup("172.18.0.4", server) == "parvada-node-3.parvada_default"
    assert labels("4.0.18.172.in-addr.arpa") in seen[0]


def test_asks_again_when_the_first_query_is_lost() -> None:
    name = labels("p-node-1.net")
    with resolver(lambda query, number: answer(query, name) if number > 1 else None) as server:
        # More often than a node does: a busy machine may take longer to answer.
        assert reverse_lookup("172.18.0.4", server, timeout=0.02, attempts=1000) == "p-node-1.net"


def test_gives_up_when_the_second_query_is_lost_too() -> None:
    seen: list[bytes] = []
    with resolver(lambda query, _: seen.append(query)) as server, pytest.raises(TimeoutError):
        reverse_lookup("172.18.0.4", server, timeout=0.02)
    assert len(seen) == 2
    assert seen[0] == seen[1]


def test_no_resolver_is_known_at_once() -> None:
    """On a machine that is no container nothing waits and nothing fails."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = unused.getsockname()
    with pytest.raises(ConnectionRefusedError):  # not TimeoutError
        reverse_lookup("172.18.0.4", nobody)
    assert docker_dns.replica_number(["172.18.0.4", "10.0.0.1"], nobody) is None


def test_name_may_point_back_into_the_packet() -> None:
    with_pointer = b"\x0eparvada-node-5" + struct.pack("!H", 0xC000 | (12 + 2 + 2 + 3 + 4))  # "in-addr.arpa"
    assert parse_answer(answer(QUERY, with_pointer), ID) == "parvada-node-5.in-addr.arpa"


def test_other_records_before_the_name_are_passed_over() -> None:
    alias = answer(QUERY, labels("alias.example"), kind=5)
    both = alias[:6] + struct.pack("!H", 2) + alias[8:] + answer(QUERY, labels("p-node-4.net"))[len(QUERY) :]
    assert parse_answer(both, ID) == "p-node-4.net"


@pytest.mark.parametrize("flags", [0x8183])
def test_no_such_name(flags: int) -> None:
    assert parse_answer(answer(QUERY, b"", flags=flags, count=0), ID) is None
    assert parse_answer(answer(QUERY, b"", count=0), ID) is None


GOOD = answer(QUERY, labels("parvada-node-3.parvada_default"))
RDATA = len(QUERY) + 12


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        GOOD[:11],
        b"\x00\x00" + GOOD[2:],  # the answer to another query
        QUERY,  # a query, not an answer
        answer(QUERY, labels("x"), flags=0x8182),  # SERVFAIL
        answer(QUERY, b"\xc0" + bytes([RDATA])),  # a name that points to itself
        answer(QUERY, b"\xc1\xff"),  # beyond the packet
        answer(QUERY, b"\x01a\xc0" + bytes([RDATA])),  # a loop by way of a label
        answer(QUERY, b"\x3fshort"),
        answer(QUERY, b"\x01\xff\x00"),  # not ASCII
        answer(QUERY, (b"\x3f" + b"a" * 63) * 5 + b"\0"),
        answer(QUERY, b"\x80x\0"),
        GOOD[:4] + b"\xff\xff" + GOOD[6:],  # 65,535 questions
        *(GOOD[:length] for length in range(12, len(GOOD))),
    ],
)
def test_malformed(packet: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_answer(packet, ID)


@given(st.binary(max_size=512), st.booleans())
def test_no_packet_raises_anything_but_value_error(packet: bytes, as_answer: bool) -> None:
    if as_answer:
        packet = answer(QUERY, packet)
    try:
        name = parse_answer(packet, ID)
    except ValueError:
        return
    assert name is None or len(name) <= 400
