"""Tokens: created once, revoked for good, only ever as a hash."""

import pytest
from msgspec.structs import replace

from consensus.messages import CreateToken, RevokeToken
from consensus.state import Role
from tests.unit.consensus.facts import Cluster, digest, kinds

TOKEN = CreateToken("t1", "ci", Role.OPERATOR, digest(1))


def test_a_token_lives_until_it_is_revoked() -> None:
    cluster = Cluster()
    assert kinds(cluster.accept(TOKEN)) == ["token.created"]
    assert cluster.state.tokens["t1"].role is Role.OPERATOR
    assert kinds(cluster.accept(RevokeToken("t1"))) == ["token.revoked"]
    assert len(cluster.state.tokens) == 0
    assert cluster.reject(RevokeToken("t1")).code == "not_found"


@pytest.mark.parametrize("changes", [{"sha256": digest(2)}, {"token": "t2"}])
def test_neither_an_id_nor_a_secret_twice(changes: dict[str, str]) -> None:
    assert Cluster(TOKEN).reject(replace(TOKEN, **changes)).code == "conflict"


@pytest.mark.parametrize("changes", [{"sha256": "secret"}, {"name": ""}, {"token": "a b"}])
def test_what_is_no_token(changes: dict[str, str]) -> None:
    assert Cluster().reject(replace(TOKEN, **changes)).code == "invalid"


def test_no_event_tells_the_hash() -> None:
    assert digest(1) not in Cluster().accept(TOKEN).events[0].detail.decode()
