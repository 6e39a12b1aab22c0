"""Bytes and back: identity for all that is ours, a clear error for all that is not."""

import gc
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings, strategies as st
from immutables import Map
from msgspec.structs import replace

from consensus.codec import (
    FORMAT,
    CodecError,
    decode_command,
    decode_entry,
    decode_state,
    encode_command,
    encode_entry,
    encode_state,
)
from consensus.messages import Barrier, Command, Entry, MoveAlias
from consensus.state import (
    Candidate,
    CandidateId,
    ClusterState,
    CommandId,
    FoldResult,
    Job,
    JobId,
    JobState,
    Json,
    Remembered,
    Unit,
)
from tests.unit.consensus.facts import PUBLISHED, RUNNING, Cluster, add, submit

text = st.text(max_size=20)
json = st.binary(max_size=20).map(Json)
commands: st.SearchStrategy[Command] = st.one_of([st.from_type(kind) for kind in get_args(Command)])


@settings(max_examples=60, deadline=None)
@given(st.builds(Entry, text.map(CommandId), st.floats(allow_nan=False), text, commands))
def test_an_entry_comes_back(entry: Entry) -> None:
    try:
        data = encode_entry(entry)
    except CodecError:
        assert re.search(r"\d{19}", repr(entry)), "only integers beyond 64 bits have no place"
        return
    # By their text: an entry with a NaN in it is not equal to itself.
    assert repr(decode_entry(data)) == repr(entry)
    assert repr(decode_command(encode_command(entry.command))) == repr(entry.command)


@pytest.mark.parametrize(
    "command", [MoveAlias("iris", "production", 2**64), MoveAlias("iris", "\ud800", 1)], ids=["integer", "surrogate"]
)
def test_what_a_user_could_ask_for_and_msgpack_cannot_carry(command: Command) -> None:
    with pytest.raises(CodecError):
        encode_command(command)


def test_a_state_comes_back_with_the_types_of_its_maps() -> None:
    state = Cluster(*PUBLISHED).state
    again = decode_state(encode_state(state))
    assert again == state
    assert isinstance(again.jobs[JobId("job-1")].candidates[CandidateId("0.1")].folds, Map)
    assert again.jobs[JobId("job-1")].candidates[CandidateId("0.1")].folds[1].epoch == 1


def test_equal_states_have_equal_bytes_whatever_their_history() -> None:
    numbers = [JobId(f"j{number}") for number in range(300)]
    job = replace(Cluster(*RUNNING).job)
    one = ClusterState(jobs=Map(dict.fromkeys(numbers, job)))
    other = ClusterState(jobs=Map(dict.fromkeys(reversed(numbers), job)))
    assert encode_state(one) == encode_state(other)


def test_bytes_do_not_depend_on_the_seed_of_the_hash() -> None:
    """Set order must not matter: replicas are compared by the digest of their states."""
    script = (
        "import hashlib; from consensus.codec import encode_state;"
        "from tests.unit.consensus.facts import Cluster, PUBLISHED;"
        "print(hashlib.sha256(encode_state(Cluster(*PUBLISHED).state)).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
            timeout=30,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


DECODERS: dict[bytes, Callable[[bytes], object]] = {b"e": decode_entry, b"c": decode_command, b"s": decode_state}
VERSION = bytes([FORMAT])


@pytest.mark.parametrize("kind", list(DECODERS))
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91" * 5000,
        b"\x80\x04\x95",
        msgspec.msgpack.encode({"type": "Nope", "index": -0.5}),
        msgspec.msgpack.encode([1, 2]),
        msgspec.msgpack.encode({"type": "CancelJob", "job": 7, "index": "x", "id": b"x"}),
        msgspec.msgpack.encode({"type": "Barrier", "index": 1}) + b"\x00",
    ],
)
def test_a_body_that_is_not_ours_is_an_error_of_the_codec(kind: bytes, body: bytes) -> None:
    with pytest.raises(CodecError):
        DECODERS[kind](VERSION + kind + body)


@pytest.mark.parametrize("kind", list(DECODERS))
def test_every_decoder_reads_its_own_kind_and_format_only(kind: bytes) -> None:
    entry = Entry(CommandId("c"), 1.0, "ann", Barrier())
    whole = {b"e": encode_entry(entry), b"c": encode_command(Barrier()), b"s": encode_state(ClusterState())}
    DECODERS[kind](whole[kind])
    others = [data for other, data in whole.items() if other != kind]
    for data in (*others, b"", VERSION, VERSION + kind, bytes([FORMAT + 1]) + whole[kind][1:], whole[kind][1:]):
        with pytest.raises(CodecError):
            DECODERS[kind](data)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_raise_anything_else(data: bytes) -> None:
    for kind, decode in DECODERS.items():
        try:
            decode(VERSION + kind + data)
        except CodecError:
            continue


@given(st.data())
def test_a_cut_or_flipped_entry_never_raises_anything_else(data: st.DataObject) -> None:
    whole = bytearray(encode_entry(Entry(CommandId("c"), 1.0, "ann", submit())))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(whole), bytes(whole[:place])):
        try:
            decode_entry(damaged)
        except CodecError:
            continue


def test_maps_are_checked_to_the_keys() -> None:
    wrong = VERSION + b"s" + msgspec.msgpack.encode({"audit_next": 0, "audit": {"one": "c1"}})
    with pytest.raises(CodecError, match="Expected `int`, got `str`"):
        decode_state(wrong)


def test_a_state_of_an_earlier_release_lacks_fields_that_have_a_default() -> None:
    assert decode_state(VERSION + b"s" + msgspec.msgpack.encode({"index": 7})) == ClusterState(index=7)


def big_state() -> ClusterState:
    """About 35,000 items: 20,000 remembered commands, 100 jobs of 30 candidates with 5 folds each."""
    recent = [(CommandId(f"{number:064x}"), Remembered(number, False, "", Json(b""))) for number in range(20_000)]
    result = FoldResult(0, Json(b'{"roc_auc":0.91,"accuracy":0.87}'), 0.25, 3.5, 1)
    folds = Map({fold: replace(result, fold=fold) for fold in range(5)})
    jobs = {}
    for number in range(100):
        names = [CandidateId(f"0.{n}") for n in range(30)]
        made = {name: Candidate(name, 0, "Ridge", Json(b"{}"), 1, 5, folds=folds) for name in names}
        unit = Unit("iris", 1, "y", "binary", "roc_auc", Json(b"{}"))
        job = JobId(f"j{number}")
        jobs[job] = Job(job, "", JobState.RUNNING, Json(b"{}"), (unit,), Map(made), 1.0, "ann")
    return ClusterState(
        jobs=Map(jobs),
        recent=Map(dict(recent[10_000:])),
        recent_before=Map(dict(recent[:10_000])),
    )


def against_plain_msgpack(ours: Callable[[], object], data: bytes, rounds: int) -> float:
    """How much longer `ours` takes than the same bytes take to plain maps and lists and back, at its best of five:
    both by turns, in processor time, so that neither this machine nor what else it does counts."""
    plain = msgspec.msgpack.decode(data, strict=False)

    def theirs() -> None:
        msgspec.msgpack.decode(msgspec.msgpack.encode(plain))

    def cost(way: Callable[[], object]) -> float:
        began = time.thread_time()
        for _ in range(rounds):
            way()
        return time.thread_time() - began

    gc.disable()  # it would look through all that other tests have left
    try:
        pairs = [(cost(ours), cost(theirs)) for _ in range(5)]
    finally:
        gc.enable()
    return min(mine for mine, _ in pairs) / min(plain for _, plain in pairs)


def test_a_large_state_costs_a_few_times_its_plain_bytes() -> None:
    state = big_state()
    data = encode_state(state)
    assert decode_state(data) == state
    ratio = against_plain_msgpack(lambda: decode_state(encode_state(state)), data[2:], 1)
    assert ratio < 6, "2.7 is usual: checked types, frozen structs and persistent maps"


def test_small_entries_cost_hardly_more_than_their_plain_bytes() -> None:
    entry = Entry(CommandId("c" * 32), 1.0, "ann", add())
    ratio = against_plain_msgpack(lambda: decode_entry(encode_entry(entry)), encode_entry(entry)[2:], 2000)
    assert ratio < 2.5, "1.2 is usual"
