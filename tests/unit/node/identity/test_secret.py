"""The secret's file and the tokens derived from it."""

import logging
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from node.identity import secret as cluster_secret
from node.identity.secret import JoinToken, SecretError

SECRET = bytes(range(32))


def test_made_once_private_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    made = cluster_secret.make_secret(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert cluster_secret.load_secret(path) == made
    with pytest.raises(FileExistsError):
        cluster_secret.make_secret(path)
    assert cluster_secret.load_secret(path) == made
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize("content", [b"", b"abc", b"zz" * 32, b"00" * 31, b"00" * 33, b"00" * 5000])
def test_other_content_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SecretError, match="64 hexadecimal digits") as caught:
        cluster_secret.load_secret(path)
    assert not content or content.decode() not in str(caught.value)


def test_no_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="parvada init"):
        cluster_secret.load_secret(tmp_path / "secret")


def test_readable_by_others_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "secret"
    cluster_secret.make_secret(path)
    with caplog.at_level(logging.WARNING):
        cluster_secret.load_secret(path)
        assert not caplog.records
        path.chmod(0o644)
        cluster_secret.load_secret(path)
    assert [record.getMessage() for record in caplog.records] == ["secret.readable"]


def test_hkdf_follows_the_rfc(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 5869, test case 3: no salt, no info."""
    monkeypatch.setattr(cluster_secret, "_root_key", lambda _: b"\x0b" * 22)
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert cluster_secret.derive(SECRET, "", 42).hex() == expected


def test_keys_of_other_purposes_or_secrets_differ() -> None:
    other = bytes(32)
    keys = {cluster_secret.derive(s, label, 32) for s in (SECRET, other) for label in ("a", "b")}
    assert len(keys) == 4
    assert cluster_secret.admin_token(SECRET) == cluster_secret.admin_token(SECRET)
    assert cluster_secret.admin_token(SECRET) != cluster_secret.admin_token(other)
    assert cluster_secret.admin_token(SECRET).startswith("pvd_")


@given(st.text("0123456789abcdef-", min_size=1, max_size=64), st.binary(min_size=32, max_size=32))
def test_join_token_comes_back(cluster_id: str, secret: bytes) -> None:
    token = cluster_secret.encode_join_token(cluster_id, secret)
    assert cluster_secret.decode_join_token(f"  {token.upper()}\n") == JoinToken(cluster_id, secret)
    assert secret.hex() not in repr(cluster_secret.decode_join_token(token))


def test_every_single_wrong_character_and_every_cut_is_noticed() -> None:
    token = cluster_secret.encode_join_token("0123-ab", SECRET)
    body = len("pvj1_")
    damaged = [token[:i] for i in range(body, len(token))]
    # The last character carries padding bits, in which a change means nothing.
    damaged += [token[:i] + ("b" if token[i] != "b" else "c") + token[i + 1 :] for i in range(body, len(token) - 1)]
    for text in damaged:
        with pytest.raises(SecretError, match="incomplete or mistyped"):
            cluster_secret.decode_join_token(text)


@given(st.text(max_size=500))
def test_no_text_breaks_the_decoder(text: str) -> None:
    for candidate in (text, "pvj1_" + text):
        with pytest.raises(SecretError):
            cluster_secret.decode_join_token(candidate)
