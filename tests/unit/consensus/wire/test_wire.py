"""Frames: what goes in comes out, and nothing else gets in."""

import pickle
import struct
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from consensus.wire.frames import (
    MAX_BEACON,
    MAX_COMMAND,
    MAX_FRAME,
    AppendEntries,
    AppendReply,
    BadFrame,
    Beacon,
    FrameCodec,
    FrameReader,
    HigherTerm,
    Message,
    PreVote,
    PreVoteGranted,
    Propose,
    RequestVote,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
    VoteGranted,
)

CODEC = FrameCodec("one")
numbers = st.integers(0, 2**62)
commands = st.binary(min_size=1, max_size=50)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(AppendEntries, numbers, numbers, numbers, numbers, st.lists(st.tuples(numbers, commands)).map(tuple)),
    st.builds(AppendReply, numbers, st.booleans(), numbers),
    st.builds(SnapshotChunk, numbers, numbers, numbers, st.integers(1, 2**30), st.binary(max_size=50)),
    st.builds(SnapshotReply, numbers, numbers, numbers, numbers),
    st.builds(PreVote, numbers, numbers, numbers, numbers),
    st.builds(PreVoteGranted, numbers),
    st.builds(HigherTerm, numbers),
    st.builds(RequestVote, numbers, numbers, numbers),
    st.builds(VoteGranted, numbers),
    st.builds(TimeoutNow, numbers),
    st.builds(Propose, commands),
    st.builds(Beacon, st.binary(max_size=50)),
)


@given(sent=st.lists(messages, max_size=8), cuts=st.lists(st.integers(1, 40), min_size=1))
@settings(deadline=None)
def test_messages_survive_any_cutting_of_the_stream(sent: list[Message], cuts: list[int]) -> None:
    stream = b"".join(CODEC.encode(message) for message in sent)
    reader, received, position, number = FrameReader(CODEC), [], 0, 0
    while position < len(stream):
        size = cuts[number % len(cuts)]
        received += reader.feed(stream[position : position + size])
        position, number = position + size, number + 1
    assert received == sent


@given(garbage=st.binary(max_size=300))
@settings(deadline=None)
def test_garbage_is_refused_and_never_crashes(garbage: bytes) -> None:
    with suppress(BadFrame):
        assert FrameReader(CODEC).feed(garbage) == [], "too short to tell is the only other answer"


@given(message=messages, at=st.integers(0, 10**6), flip=st.integers(1, 255))
@settings(deadline=None)
def test_a_flipped_byte_gives_a_message_of_the_set_or_a_refusal(message: Message, at: int, flip: int) -> None:
    frame = bytearray(CODEC.encode(message))
    frame[at % len(frame)] ^= flip
    try:
        for received in FrameReader(CODEC).feed(bytes(frame)):
            assert isinstance(received, msgspec.Struct)
    except BadFrame:
        pass


def test_a_frame_of_another_cluster_or_format_is_refused() -> None:
    with pytest.raises(BadFrame, match="another cluster"):
        FrameReader(CODEC).feed(FrameCodec("two").encode(HigherTerm(1)))
    frame = bytearray(CODEC.encode(HigherTerm(1)))
    frame[4] = 9
    with pytest.raises(BadFrame, match="format 09"):
        FrameReader(CODEC).feed(bytes(frame))


def test_a_length_beyond_the_limit_is_refused_before_its_bytes_come() -> None:
    with pytest.raises(BadFrame, match="bytes"):
        FrameReader(CODEC).feed(struct.pack(">I", MAX_FRAME + 1))


def framed(body: object) -> bytes:
    """A frame of our format and cluster around any msgpack."""
    prefix, raw = CODEC.encode(HigherTerm(1))[4:21], msgspec.msgpack.encode(body)
    return struct.pack(">I", len(prefix) + len(raw)) + prefix + raw


@pytest.mark.parametrize(
    "body",
    [
        ["os.system", "true"],
        ["HigherTerm", -1],
        ["HigherTerm", 2**63],
        ["HigherTerm", "1"],
        ["HigherTerm", True],
        ["HigherTerm"],
        ["AppendEntries", 1, 1, 1, 1, [[1, b""]]],
        ["AppendEntries", 1, 1, 1, 1, [[1, b"x" * (MAX_COMMAND + 65)]]],
        ["SnapshotChunk", 1, 1, 0, 0, b""],
        ["SnapshotChunk", 1, 1, 0, 2**40, b""],
        ["Beacon", b"x" * (MAX_BEACON + 1)],
        {"type": "append_entries", "term": 1},
        pickle.dumps({"type": "append_entries"}),
    ],
)
def test_what_is_not_of_the_closed_set_is_refused(body: object) -> None:
    with pytest.raises(BadFrame):
        FrameReader(CODEC).feed(framed(body))


def test_the_largest_honest_batch_fits_a_frame() -> None:
    batch = AppendEntries(1, 1, 1, 1, ((1, bytes(MAX_COMMAND)), (1, bytes(MAX_COMMAND + 64))))
    assert len(CODEC.encode(batch)) < MAX_FRAME
