"""Whatever bytes come, a parser gives a value within its bounds or its one kind of refusal: no crash, no hoarding."""

import json
import struct
import tracemalloc
from contextlib import suppress
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given, strategies as st

from consensus.ports import Beacon
from consensus.state import NodeId
from consensus.wire.frames import MAX_FRAME, BadFrame, FrameCodec, FrameReader, HigherTerm
from discovery.merging import Standing
from discovery.peer import Peer, from_txt, to_txt
from node.identity.pki import Authority, Identity, NodeKey
from node.membership.leadership import LeaderCall
from node.peering.words import Grant, Greeting, MayStop, decode
from node.telemetry.beacon import NodeBeacon, all_rows, decode_all, encode
from node.telemetry.machine import Sample
from serving.stats import to_loads
from tests.unit.fuzz import examples

CODEC = FrameCodec("one")
PREFIX = CODEC.encode(HigherTerm(1))[4:21]
SECRET_OWNER = Authority.from_secret(b"a secret of 32 bytes, for tests!")
KEY = NodeKey.generate()
JUDGE = Identity(SECRET_OWNER, NodeKey.generate(), ["127.0.0.1"])
STANDING = Standing("c0ffee", dissolvable=True, quorum=True)
PEER = Peer("a" * 32, ("10.0.0.1",), 7443, 7444, 8080, "member", "c0ffee", "b" * 16, "0.1.0")
GREETING = Greeting(PEER, Grant("c0ffee", "a" * 32, "flock", PEER), (PEER,), STANDING)
BEACON = NodeBeacon(id=NodeId("a" * 32), name="node-1", version="0.1.0", started_at=1.0, sample=Sample())

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20)
values: st.SearchStrategy[Any] = st.recursive(
    scalars | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
tags = st.sampled_from(["AppendEntries", "AppendReply", "SnapshotChunk", "PreVote", "Propose", "Beacon", "HigherTerm"])
bodies = st.one_of(
    st.binary(max_size=200),
    values.map(msgspec.msgpack.encode),
    st.tuples(tags, st.lists(values, max_size=6)).map(lambda each: msgspec.msgpack.encode([each[0], *each[1]])),
)


def damaged(original: bytes) -> st.SearchStrategy[bytes]:
    """`original` with a few bytes changed, cut out or put in."""

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        found = original
        for at, gone, new in edits:
            place = at % (len(found) + 1)
            found = found[:place] + new + found[place + gone :]
        return found

    return st.lists(
        st.tuples(st.integers(0, 5000), st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=4
    ).map(apply)


# ---------------------------------------------------------------- Raft frames
@given(bodies=st.lists(bodies, min_size=1, max_size=4), cuts=st.lists(st.integers(1, 60), min_size=1, max_size=5))
@examples(150)
def test_frames(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(struct.pack(">I", len(PREFIX) + len(body)) + PREFIX + body for body in bodies)
    reader, position, number = FrameReader(CODEC), 0, 0
    try:
        while position < len(stream):
            size = cuts[number % len(cuts)]
            for message in reader.feed(stream[position : position + size]):
                assert isinstance(message, msgspec.Struct)
            position, number = position + size, number + 1
    except BadFrame:
        pass


DEEP = 100_000


@pytest.mark.parametrize(
    "body",
    [
        b"\x91" * DEEP,
        b"\x81\xa1x" * DEEP,
        b"\x92\xa6Beacon" + b"\xc6\xff\xff\xff\xff",
        b"\x92\xa7Propose" + b"\xc6\x7f\xff\xff\xff" + b"x" * 100,
        b"\x96\xadAppendEntries\x01\x01\x01\x01\xdd\xff\xff\xff\xff",
        b"\x96\xadAppendEntries\x01\x01\x01\x01\xdd\x02\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
    ],
)
def test_frames_that_promise_more_than_they_hold_cost_no_memory(body: bytes) -> None:
    frame = struct.pack(">I", len(PREFIX) + len(body)) + PREFIX + body
    tracemalloc.start()
    try:
        with pytest.raises(BadFrame):
            FrameReader(CODEC).feed(frame)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(frame) + 1_000_000
    finally:
        tracemalloc.stop()


def _feed_all(reader: FrameReader, chunk: bytes, size: int) -> None:
    for _ in range(size // len(chunk)):
        reader.feed(chunk)


def test_a_frame_that_never_ends_holds_no_more_than_its_bound() -> None:
    reader, chunk = FrameReader(CODEC), b"\0" * 256 * 1024
    tracemalloc.start()
    try:
        assert reader.feed(struct.pack(">I", MAX_FRAME)) == []
        with pytest.raises(BadFrame):
            _feed_all(reader, chunk, 2 * MAX_FRAME)
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_FRAME
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------- mDNS
txt_keys = st.sampled_from(list(to_txt(PEER))).map(str.encode) | st.binary(max_size=12)
txt_values = st.sampled_from(list(to_txt(PEER).values())).map(str.encode) | st.binary(max_size=80) | st.none()


@given(
    changes=st.dictionaries(txt_keys, txt_values, max_size=40),
    addresses=st.lists(st.sampled_from(["10.0.0.1", "0.0.0.0", "::1"]) | st.text(max_size=20), max_size=20),
)
@examples(200)
def test_txt_records(changes: dict[bytes, bytes | None], addresses: list[str]) -> None:
    txt: dict[bytes, bytes | None] = {key.encode(): value.encode() for key, value in to_txt(PEER).items()}
    try:
        peer = from_txt({**txt, **changes}, addresses)
    except ValueError:
        return
    said = {key.encode(): value.encode() for key, value in to_txt(peer).items()}
    assert from_txt(said, list(peer.addresses)) == peer, "what is let in can be passed on"
    assert len(repr(peer)) < 2000


# ---------------------------------------------------------------- certificates
@given(damaged(JUDGE.issue().public_bytes(serialization.Encoding.DER)))
@examples(200)
def test_damaged_certificates(der: bytes) -> None:
    with suppress(PermissionError):
        assert JUDGE.identify(der) == JUDGE.id


uris = st.one_of(
    st.just(SECRET_OWNER.spiffe_id(KEY.id)),
    st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=80),
    st.text("0123456789abcdef", max_size=64).map(SECRET_OWNER.spiffe_id),
)


@given(st.lists(uris, max_size=3), st.lists(st.sampled_from(["a.example", "127.0.0.1", "xn--nxasmq6b"]), max_size=2))
@examples(60)
def test_whoever_has_the_secret_is_still_only_the_owner_of_its_key(names: list[str], dns: list[str]) -> None:
    """Leaves signed by our own CA, with any SPIFFE id: only the exact one of the key passes."""
    own = SECRET_OWNER.spiffe_id(KEY.id)
    general: list[x509.GeneralName] = [x509.UniformResourceIdentifier(name) for name in names]
    general += [x509.DNSName(name) for name in dns]
    leaf = SECRET_OWNER.issue(KEY.private.public_key(), "x", general, timedelta(hours=1))
    der = leaf.public_bytes(serialization.Encoding.DER)
    if names == [own]:
        assert JUDGE.identify(der) == KEY.id
        return
    with pytest.raises(PermissionError):
        JUDGE.identify(der)


# ---------------------------------------------------------------- JSON between peers
json_bodies = st.one_of(
    st.binary(max_size=200),
    values.map(lambda value: json.dumps(value, default=str).encode(errors="replace")),
    damaged(msgspec.json.encode(PEER)),
    damaged(msgspec.json.encode(GREETING)),
    st.sampled_from([b"[", b'{"x":', b'[{"id":']).map(lambda opening: opening * 20_000),
    st.sampled_from([b'{"x":' + b"[" * 60_000, b'{"id":"\xff"}', b"9" * 60_000, b"1e99999", b'"\\ud800"']),
)


@given(json_bodies, st.sampled_from([Peer, Grant, Greeting, MayStop, LeaderCall, tuple[Peer, ...]]))
@examples(200)
def test_json_bodies(body: bytes, form: Any) -> None:
    with suppress(ValueError):
        decode(body, form)


# ---------------------------------------------------------------- beacons
@given(st.one_of(damaged(encode(BEACON)), bodies, st.just(b"\x91" * 60_000), st.just(b"\x81\xa1x" * 20_000)))
@examples(100)
def test_beacons(payload: bytes) -> None:
    found = decode_all({NodeId("a" * 32): Beacon(payload, 0.0)})
    msgspec.json.encode(to_loads(all_rows(found.values())))


@given(st.data())
@examples(40)
def test_beacons_of_the_right_form_with_any_numbers(data: st.DataObject) -> None:
    plain: dict[str, Any] = msgspec.to_builtins(BEACON)
    for place in (plain, plain["sample"]):
        for key, value in place.items():
            if isinstance(value, int | float):
                place[key] = data.draw(st.integers(-(2**63), 2**64 - 1) | st.floats())
    found = decode_all({NodeId("a" * 32): Beacon(msgspec.msgpack.encode(plain), 0.0)})
    msgspec.json.encode([to_loads(all_rows(found.values())), [beacon.sample for beacon in found.values()]])
