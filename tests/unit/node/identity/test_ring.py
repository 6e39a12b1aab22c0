"""The secrets that a node keeps while the cluster's is rotated: what it starts with after a crash, what is left."""

import secrets
from pathlib import Path

import pytest

from node.identity.ring import MAX_REPLACED, Ring, RingStore, chosen, decode_ring, secret_in_use
from node.identity.secret import SecretError, digest_of, load_secret

OLD, NEW, OTHER = (bytes([number]) * 32 for number in (1, 2, 3))
BEFORE = Ring(OLD)
PREPARED = BEFORE.preparing(NEW)
PRESENTED = PREPARED.presenting()
RETIRED = PRESENTED.retiring()


def test_what_is_trusted_and_what_is_presented() -> None:
    assert BEFORE.secrets == (OLD,)
    assert PREPARED.secrets == (OLD, NEW)
    assert PRESENTED.secrets == (NEW, OLD)
    assert RETIRED.secrets == (NEW,)
    assert RETIRED.replaced == (digest_of(OLD),)
    assert PREPARED.abandoning() == BEFORE
    assert OLD.hex() not in repr(PRESENTED)
    many = Ring(OLD, NEW, True, tuple(f"{number:064x}" for number in range(MAX_REPLACED))).retiring()
    assert (len(many.replaced), many.replaced[-1]) == (MAX_REPLACED, digest_of(OLD))


@pytest.mark.parametrize(
    ("case", "kept", "given", "expected"),
    [
        ("never rotated", None, OLD, BEFORE),
        ("prepared", PREPARED, OLD, PREPARED),
        ("away while the others went on: the file says so", PREPARED, NEW, PRESENTED),
        ("presented, the file not replaced yet", PRESENTED, OLD, PRESENTED),
        ("presented", PRESENTED, NEW, PRESENTED),
        ("retired, the operator's file is old", RETIRED, OLD, RETIRED),
        ("retired", RETIRED, NEW, RETIRED),
        ("the operator gives another one, after a rotation", RETIRED, OTHER, Ring(OTHER)),
        ("the operator gives another one, in a rotation", PREPARED, OTHER, Ring(OTHER)),
    ],
)
def test_what_a_node_starts_with(case: str, kept: Ring | None, given: bytes, expected: Ring) -> None:
    assert chosen(kept, given) == expected


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number in "12":
        (tmp_path / "slots" / number).mkdir(parents=True)
    _write(tmp_path / "secret", OLD)
    return tmp_path


def _write(path: Path, secret: bytes) -> None:
    path.write_text(secret.hex() + "\n")
    path.chmod(0o600)


def store(data: Path, number: int = 1, *, owned: bool = True) -> RingStore:
    return RingStore(data / "slots" / str(number), data / "secret", owned=owned)


def test_a_rotation_leaves_only_the_new_secret_in_the_file(data: Path) -> None:
    for ring in (PREPARED, PRESENTED):
        store(data).save(ring)
        assert store(data).load() == ring
    assert (data / "slots/1/secrets.json").stat().st_mode & 0o777 == 0o600
    assert store(data).publish(PRESENTED)
    assert load_secret(data / "secret") == NEW
    assert (data / "secret").stat().st_mode & 0o777 == 0o600
    store(data).settle(RETIRED)
    assert _files(data) == {"secret"}
    assert store(data).load() == Ring(NEW)


def _files(data: Path) -> set[str]:
    return {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()}


def test_a_crash_while_it_was_written_leaves_nothing_behind(data: Path) -> None:
    (data / "slots/1/.secrets.json.4711.tmp").write_bytes(OLD)
    (data / ".secret.slot-1.tmp").write_bytes(NEW)
    store(data).load()
    assert _files(data) == {"secret"}


def test_a_file_that_is_the_operators_stays_and_loses_to_the_slot_until_it_is_replaced(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = store(data, owned=False)
    mine.save(PRESENTED)
    assert not mine.publish(PRESENTED)
    mine.settle(RETIRED)
    assert load_secret(data / "secret") == OLD
    assert mine.load() == RETIRED
    assert "secret.outdated" in caplog.text
    assert secret_in_use(data / "secret", data) == NEW
    _write(data / "secret", NEW)
    assert mine.load().secrets == (NEW,)
    assert _files(data) == {"secret"}
    assert secret_in_use(data / "secret", data) == NEW


def test_a_secret_that_nobody_has_replaced_is_not_overwritten(data: Path) -> None:
    _write(data / "secret", OTHER)
    assert not store(data).publish(PRESENTED)
    assert load_secret(data / "secret") == OTHER


def test_two_nodes_of_one_folder_publish_the_same(data: Path) -> None:
    for number in (1, 2, 1):
        assert store(data, number).publish(PRESENTED)
    assert load_secret(data / "secret") == NEW
    assert _files(data) == {"secret"}


def test_a_file_that_cannot_be_written_is_an_error(data: Path) -> None:
    (data / ".secret.slot-1.tmp").mkdir()
    with pytest.raises(OSError, match="directory"):
        store(data).publish(PRESENTED)
    assert load_secret(data / "secret") == OLD


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1]",
        b'{"current": "AQ=="}',
        b'{"current": 3}',
        b'{"current": "%s", "presents_coming": true}' % (b"AQEB" * 10 + b"AQE="),
        b"[" * 100_000,
        b"\xff" * 40,
        secrets.token_bytes(200),
    ],
)
def test_a_damaged_file_is_refused_without_its_content(content: bytes) -> None:
    with pytest.raises(SecretError, match=r"secrets\.json holds \d+ bytes of something else"):
        decode_ring(content)
