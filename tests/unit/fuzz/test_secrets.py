"""What peers and disks may hand over as a secret: the very one, or a refusal that repeats nothing of it."""

import re
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, strategies as st

from node.identity.ring import Ring, decode_ring
from node.identity.secret import SecretError, digest_of, parse_secret
from node.membership.rotation import PATH, _checked
from node.peering.words import PeerRefused
from tests.unit.fuzz import examples
from tests.unit.node.membership.test_rotation import world

SECRET = bytes(range(32))
DIGEST = digest_of(SECRET)
RING = msgspec.json.encode(Ring(SECRET, bytes(32), True, (DIGEST,)))

hexadecimal = st.text("0123456789abcdefABCDEF xX\n", max_size=70).map(str.encode)


@given(st.binary(max_size=200) | hexadecimal)
@examples(300)
def test_secrets(text: bytes) -> None:
    with suppress(SecretError):
        assert len(parse_secret(text)) == 32


@given(st.binary(max_size=80) | hexadecimal | st.just(SECRET.hex().encode()))
@examples(30)
def test_only_the_secret_of_the_log_is_taken(text: bytes) -> None:
    try:
        assert _checked(text, DIGEST) == SECRET
    except SecretError:
        assert text.lower() != SECRET.hex().encode()


@given(
    st.binary(max_size=300)
    | st.tuples(st.integers(0, len(RING)), st.integers(0, 8), st.binary(max_size=8)).map(
        lambda edit: RING[: edit[0]] + edit[2] + RING[edit[0] + edit[1] :]
    )
)
@examples(300)
def test_rings(content: bytes) -> None:
    with suppress(SecretError):
        assert all(len(secret) == 32 for secret in decode_ring(content).secrets)


def test_refusals_repeat_nothing() -> None:
    for refused in (lambda: parse_secret(SECRET.hex().encode() + b"x"), lambda: decode_ring(RING[:-1])):
        with pytest.raises(SecretError) as error:
            refused()
        assert not re.search(f"{SECRET.hex()[:8]}|{RING[13:25].decode()}", str(error.value))


async def test_a_ring_without_end_is_refused() -> None:
    with pytest.raises(SecretError):
        decode_ring(b'{"replaced": ' + b"[" * 1_000_000)


@pytest.mark.parametrize(
    "query",
    ["", "digest", "digest=" + "a" * 64, "digest=" + "a" * 7000, "digest=%ff%00", "digest=a&digest=b", "x=" * 900],
)
async def test_whatever_a_member_asks_for_it_gets_nothing_that_is_not_to_come(tmp_path: Path, query: str) -> None:
    async with world(tmp_path, 2) as made:
        one, other = made.nodes
        await made.begin(one)
        with pytest.raises(PeerRefused) as refused:
            await other.client.call(one.id, "GET", f"{PATH}?{query}")
        assert refused.value.status in (400, 404)
        assert len(await other.fetch(one, made.log.state.rotation.coming)) == 64
