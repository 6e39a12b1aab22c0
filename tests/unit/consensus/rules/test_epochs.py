"""The epoch only grows by one, and only the current one may be announced."""

import pytest

from consensus.messages import AnnounceHead, BeginEpoch
from tests.unit.consensus.facts import BEGUN, A, B, C, Cluster, kinds


@pytest.mark.parametrize(
    ("number", "code"), [(0, "stale_epoch"), (1, "stale_epoch"), (3, "conflict"), (-1, "stale_epoch")]
)
def test_only_the_next_number_begins(number: int, code: str) -> None:
    assert Cluster(*BEGUN).reject(BeginEpoch(number, A)).code == code


def test_the_next_epoch_forgets_the_address_of_the_last_head() -> None:
    cluster = Cluster(*BEGUN, AnnounceHead(1, "10.0.0.1:6379"))
    assert cluster.state.epoch.address == "10.0.0.1:6379"
    assert kinds(cluster.accept(BeginEpoch(2, B))) == ["epoch.begun"]
    assert (cluster.state.epoch.number, cluster.state.epoch.head, cluster.state.epoch.address) == (2, B, "")


def test_a_head_must_be_a_member() -> None:
    assert Cluster(*BEGUN).reject(BeginEpoch(2, C)).code == "not_found"


@pytest.mark.parametrize("number", [0, 1, 3])
def test_only_the_current_epoch_is_announced(number: int) -> None:
    assert Cluster(*BEGUN, BeginEpoch(2, B)).reject(AnnounceHead(number, "x:1")).code == "stale_epoch"


def test_nothing_is_announced_before_the_first_epoch() -> None:
    assert Cluster(*BEGUN[:2]).reject(AnnounceHead(0, "x:1")).code == "stale_epoch"


def test_announcing_again_is_quiet_and_an_address_is_needed() -> None:
    cluster = Cluster(*BEGUN, AnnounceHead(1, "x:1"))
    assert cluster.accept(AnnounceHead(1, "x:1")).events == ()
    assert cluster.reject(AnnounceHead(1, "")).code == "invalid"
