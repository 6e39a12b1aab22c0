"""TXT records: ours come back as they were, everything else is a ValueError."""

import msgspec
import pytest
from hypothesis import given, strategies as st

from discovery.peer import Hint, Peer, from_txt, to_txt

HEX = "0123456789abcdef"
ids = st.text(HEX, min_size=32, max_size=32)
ports = st.integers(1, 65535)
unicast = st.integers(1, 0xDFFFFFFF).map(lambda n: ".".join(str(n >> shift & 255) for shift in (24, 16, 8, 0)))


@st.composite
def peers(draw: st.DrawFn) -> Peer:
    member = draw(st.booleans())
    return Peer(
        id=draw(ids),
        addresses=tuple(draw(st.lists(unicast, min_size=1, max_size=16))),
        peer_port=draw(ports),
        raft_port=draw(ports),
        api_port=draw(ports),
        state="member" if member else "blank",
        cluster_id=draw(st.uuids().map(str)) if member else "",
        fingerprint=draw(st.text(HEX, min_size=16, max_size=16)),
        version=draw(st.from_regex(r"[0-9]\.[0-9]{1,2}\.[0-9](\.dev1\+g0a)?", fullmatch=True)),
    )


PEER = Peer("a" * 32, ("10.0.0.2", "10.0.1.2"), 7443, 7444, 8080, "member", "c0ffee-01", "f" * 16, "0.1.0")


def wire(peer: Peer) -> dict[bytes, bytes | None]:
    return {key.encode(): value.encode() for key, value in to_txt(peer).items()}


@given(peers())
def test_record_comes_back(peer: Peer) -> None:
    txt = wire(peer)
    assert from_txt(txt, peer.addresses) == peer
    assert from_txt({**txt, b"later": b"unknown", b"flag": None}, peer.addresses) == peer
    assert sum(len(key) + len(value or b"") + 2 for key, value in txt.items()) < 300


def test_a_resolver_may_drop_an_empty_value() -> None:
    blank = msgspec.structs.replace(PEER, state="blank", cluster_id="")
    assert from_txt({**wire(blank), b"cluster": None}, blank.addresses) == blank


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"v", b"2"),
        (b"id", b"A" * 32),
        (b"id", b"a" * 31),
        (b"id", b"a" * 32 + b"\n"),
        (b"id", None),
        (b"peer", b"0"),
        (b"peer", b"65536"),
        (b"peer", b"7_443"),
        (b"peer", b"+7443"),
        (b"peer", b" 7443"),
        (b"peer", "７４４３".encode()),
        (b"peer", b"9" * 200),
        (b"state", b"leader"),
        (b"state", b"blank"),  # with a cluster id
        (b"cluster", b""),  # a member without
        (b"cluster", b"../../etc"),
        (b"cluster", b"a" * 65),
        (b"fp", b"f" * 15),
        (b"version", b"\x1b[31mred"),
        (b"version", b""),
        (b"version", b"\xff"),
        (b"padding", b"x" * 1000),
    ],
)
def test_one_wrong_value_is_refused(key: bytes, value: bytes | None) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        from_txt({**wire(PEER), key: value}, PEER.addresses)
    assert str(caught.value).isprintable(), "an error text may end in a log"


@pytest.mark.parametrize("key", sorted(wire(PEER)))
def test_every_key_is_needed(key: bytes) -> None:
    txt = wire(PEER)
    del txt[key]
    with pytest.raises(ValueError, match="lacks"):
        from_txt(txt, PEER.addresses)


@pytest.mark.parametrize(
    "addresses",
    [
        (),
        ("10.0.0.1",) * 17,
        ("::1",),
        ("0.0.0.0",),
        ("224.0.0.251",),
        ("255.255.255.255",),
        ("10.0.0",),
        ("evil.test",),
    ],
)
def test_addresses_that_cannot_be_dialled(addresses: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"address|dialled"):
        from_txt(wire(PEER), addresses)


@given(
    st.dictionaries(
        st.one_of(st.sampled_from(sorted(wire(PEER))), st.binary(max_size=8)),
        st.one_of(
            st.none(), st.binary(max_size=80), st.sampled_from(sorted(set(to_txt(PEER).values()))).map(str.encode)
        ),
        max_size=40,
    ),
    st.lists(st.one_of(unicast, st.text(max_size=20)), max_size=20),
)
def test_hostile_records_raise_nothing_but_value_error(txt: dict[bytes, bytes | None], addresses: list[str]) -> None:
    try:
        peer = from_txt({**wire(PEER), **txt}, addresses)
    except ValueError:
        return
    assert from_txt(wire(peer), peer.addresses) == peer


def test_bounds_hold_for_json_too() -> None:
    """`/peer/hello` answers with the same struct."""
    text = msgspec.json.encode(PEER)
    assert msgspec.json.decode(text, type=Peer) == PEER
    with pytest.raises(msgspec.ValidationError, match="not a port"):
        msgspec.json.decode(text.replace(b"7443", b"70000"), type=Peer)


def test_one_hint_for_each_address() -> None:
    assert PEER.hints == (Hint("10.0.0.2", 7443, PEER.id), Hint("10.0.1.2", 7443, PEER.id))
