"""Reconciling a node's Ray with the committed epoch: as a table, and by driving it from every start to its end."""

import pytest
from hypothesis import given, strategies as st

from consensus.state import Epoch, NodeId
from training.epoch import Announce, JoinHead, RayRole, RayStatus, StartHead, Stay, Stop, decide

ME, OTHER = NodeId("a" * 32), NodeId("b" * 32)
NOTHING = RayStatus()
MINE = Epoch(3, ME, "")
MINE_ANNOUNCED = Epoch(3, ME, "h:1")
THEIRS = Epoch(3, OTHER, "")
THEIRS_ANNOUNCED = Epoch(3, OTHER, "h:1")


def head(epoch: int, address: str = "h:1", *, alive: bool = True) -> RayStatus:
    return RayStatus(RayRole.HEAD, epoch, address, alive)


def worker(epoch: int, address: str = "h:1", *, alive: bool = True) -> RayStatus:
    return RayStatus(RayRole.WORKER, epoch, address, alive)


@pytest.mark.parametrize(
    ("epoch", "here", "expected"),
    [
        (Epoch(), NOTHING, Stay),
        (Epoch(), head(1), Stop),
        (MINE, NOTHING, StartHead),
        (MINE, head(3, ""), Stay),
        (MINE, head(3), Announce),
        (MINE_ANNOUNCED, head(3), Stay),
        (MINE_ANNOUNCED, head(3, "h:2"), Announce),
        (MINE_ANNOUNCED, NOTHING, StartHead),
        (MINE_ANNOUNCED, head(3, alive=False), Stop),
        (MINE_ANNOUNCED, head(2), Stop),
        (MINE_ANNOUNCED, head(4), Stop),
        (MINE_ANNOUNCED, worker(3), Stop),
        (THEIRS, NOTHING, Stay),
        (THEIRS_ANNOUNCED, NOTHING, JoinHead),
        (THEIRS_ANNOUNCED, worker(3), Stay),
        (THEIRS_ANNOUNCED, worker(3, alive=False), Stop),
        (THEIRS_ANNOUNCED, worker(2), Stop),
        (THEIRS_ANNOUNCED, worker(3, "h:2"), Stop),
        (THEIRS_ANNOUNCED, head(3), Stop),
        (THEIRS_ANNOUNCED, head(2), Stop),
    ],
)
def test_next_step(epoch: Epoch, here: RayStatus, expected: type) -> None:
    assert type(decide(ME, epoch, here)) is expected


def test_steps_carry_the_committed_epoch_and_address() -> None:
    assert decide(ME, MINE, NOTHING) == StartHead(3)
    assert decide(ME, MINE_ANNOUNCED, head(3, "h:9")) == Announce(3, "h:9")
    assert decide(ME, THEIRS_ANNOUNCED, NOTHING) == JoinHead(3, "h:1")


def test_stopping_says_why() -> None:
    ended = RayStatus(RayRole.WORKER, 3, "h:1", alive=False, reason="Ray ended with status 1: bind failed")
    assert decide(ME, THEIRS_ANNOUNCED, ended) == Stop("it ended by itself: Ray ended with status 1: bind failed")
    assert decide(ME, THEIRS_ANNOUNCED, worker(2)) == Stop("epoch 2 is over, 3 is current")


epochs = st.builds(
    Epoch, number=st.integers(1, 4), head=st.sampled_from([ME, OTHER]), address=st.sampled_from(["", "h:1", "h:2"])
)
runs = st.one_of(
    st.just(NOTHING),
    st.builds(
        RayStatus,
        role=st.sampled_from([RayRole.HEAD, RayRole.WORKER]),
        epoch=st.integers(1, 4),
        address=st.sampled_from(["h:1", "h:2"]),
        alive=st.booleans(),
    ),
)


def obey(decision: object, epoch: Epoch, here: RayStatus) -> tuple[Epoch, RayStatus]:
    """What the world looks like after the step was taken."""
    match decision:
        case Stop():
            return epoch, NOTHING
        case StartHead(number):
            return epoch, head(number, "h:5")
        case Announce(number, address):
            return Epoch(number, epoch.head, address), here
        case JoinHead(number, address):
            return epoch, worker(number, address)
        case _:
            return epoch, here


@given(epoch=epochs, here=runs)
def test_every_start_comes_to_rest_in_the_committed_role(epoch: Epoch, here: RayStatus) -> None:
    for _ in range(4):
        decision = decide(ME, epoch, here)
        if isinstance(decision, StartHead | JoinHead):
            assert here == NOTHING, "something still ran here"
        epoch, here = obey(decision, epoch, here)
    assert decide(ME, epoch, here) == Stay()
    if epoch.head == ME:
        assert here.role is RayRole.HEAD
        assert here.address == epoch.address
    elif epoch.address:
        assert here == worker(epoch.number, epoch.address)
    else:
        # Not announced yet: only what may not run is gone.
        assert here == NOTHING
