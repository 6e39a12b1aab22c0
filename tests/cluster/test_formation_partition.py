"""Real agents under a real packet filter: halves that are cut off from each other while they form, and then healed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from node.identity.pki import NodeKey
from node.identity.secret import admin_token, load_secret
from node.joining.slot import read_genesis
from tests.support import network
from tests.support.data import iris_csv
from tests.support.hosts import Host, clusters, hosts, rule, wait_for_members
from tests.support.network import Loss, Network
from tests.support.wait import wait_for

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(network.why_not()), reason=f"no network of its own: {network.why_not()}"),
]

PATIENTLY = 120.0
"""Seconds for nodes to form: many times what they need, for machines that are busy with something else."""
BELONGS = "cluster.belongs"
QUICKLY = {"PARVADA_QUIET_SECONDS": "3"}


@pytest.fixture
def lan() -> Iterator[Network]:
    with network.network(5) as made:
        yield made


def test_by_number_nobody_forms_without_a_majority_and_all_end_in_one_cluster(tmp_path: Path, lan: Network) -> None:
    """PARVADA_EXPECT=5: 2, 2 and 1 wait; 3 form while 2 wait; healed, these join."""
    with hosts(tmp_path, 5, environment=rule(2, 5), network=lan) as started:
        lan.cut([0, 1], [2, 3], [4])
        _start(started)
        for host, seen in zip(started, (2, 2, 2, 2, 1), strict=True):
            _wait_for_words(host, f"{seen} of 5 expected nodes in sight, 3 are needed")
        assert _founders(started) == 0

        lan.cut([0, 1, 4], [2, 3])
        large, small = [started[0], started[1], started[4]], started[2:4]
        wait_for_members(large, 3, PATIENTLY)
        assert clusters(small) == set()
        assert _founders(started) == 1

        lan.heal()
        _become_one(started)


def test_by_volume_the_half_of_whoever_claimed_it_forms_and_the_other_waits_for_it(
    tmp_path: Path, lan: Network
) -> None:
    with hosts(tmp_path, 4, shared=True, environment=rule(1, 4), network=lan) as started:
        lan.cut([0, 1], [2, 3])
        _start(started)
        wait_for("somebody to form", lambda: _founders(started) == 1, PATIENTLY)
        here, there = (started[:2], started[2:]) if _founders(started[:2]) else (started[2:], started[:2])
        claimed = read_genesis(tmp_path / "data")
        assert claimed is not None
        wait_for_members(here, 2, PATIENTLY)
        for host in there:
            _wait_for_words(host, f"node {claimed.node_id} forms the cluster, says the data volume's genesis file")
        assert clusters(there) == set()

        lan.heal()
        _become_one(started)


@pytest.mark.parametrize(("number", "first_sign"), [(1, "genesis"), (2, "promise.json")])
def test_a_cut_in_the_middle_of_forming_makes_no_second_cluster(
    tmp_path: Path, lan: Network, number: int, first_sign: str
) -> None:
    """Cut as soon as a node has claimed the volume, or has promised: before anybody has joined. Whoever starts on
    either side after that decides by what it finds there."""
    with hosts(tmp_path, 5, shared=number == 1, environment=rule(number, 5), network=lan) as started:
        late = [started[1], started[4]]
        _start([host for host in started if host not in late])
        wait_for("somebody to begin", lambda: next(tmp_path.rglob(first_sign), None), PATIENTLY, every=0.01)
        lan.cut([0, 1], [2, 3, 4])
        _start(late)
        for host in late:
            _wait_for_decision(host)
        assert _founders(started) <= 1
        lan.heal()
        _become_one(started)


@pytest.mark.parametrize("lowest", [True, False], ids=["the-lowest-id-is-deaf", "the-highest-id-is-deaf"])
@pytest.mark.parametrize(("number", "loss"), [(2, "packets"), (3, "dials")])
def test_nodes_that_only_one_side_hears_form_no_second_cluster(
    tmp_path: Path, lan: Network, number: int, loss: Loss, lowest: bool
) -> None:
    """Rule 3 has no answer to halves between which no connection is possible at all, so there only dials are lost."""
    with hosts(tmp_path, 3, environment=rule(number, 3) | QUICKLY, network=lan) as started:
        ids = _make_keys(started)
        deaf = ids.index((min if lowest else max)(ids))
        others = [other for other in range(3) if other != deaf]
        lan.deafen([deaf], others, loss)
        _start(started)
        wait_for("those who hear each other to form", lambda: _founders(started) == 1, PATIENTLY)
        _wait_for_decision(started[deaf])
        assert _founders(started) == 1
        lan.heal()
        _become_one(started)


def test_halves_that_formed_apart_and_hold_nothing_become_one_once_healed(tmp_path: Path, lan: Network) -> None:
    """Rule 3: the one with the higher id ends, and its nodes join the other."""
    with hosts(tmp_path, 4, environment=rule(3, 4) | QUICKLY, network=lan) as started:
        ones, others = halves_form_apart(started, lan)
        stays = clusters(ones)
        lan.heal()
        wait_for_members(started, 4, PATIENTLY)
        assert clusters(started) == stays
        assert all("the cluster has dissolved" in host.log for host in others)
        assert _founders(started) == 2


def test_two_clusters_that_both_hold_data_stay_two_and_say_so(tmp_path: Path, lan: Network) -> None:
    """Rule 3 cannot tell halves from the whole. What each has learnt is nobody's to throw away."""
    with hosts(tmp_path, 4, environment=rule(3, 4) | QUICKLY, network=lan) as started:
        ones, others = halves_form_apart(started, lan)
        for half, name in ((ones, "ours"), (others, "theirs")):
            push(tmp_path, half[0], name)
        before = [clusters(half) for half in (ones, others)]

        lan.heal()
        for host in started:
            wait_for("the alarm", lambda host=host: "split" in host.alarms(), PATIENTLY)  # type: ignore[misc]
        for half in (ones, others):  # one that meets all of them anew does not change its mind either
            half[0].kill()
            half[0].start()
            wait_for_members(half, 2, PATIENTLY)
        for host in started:
            wait_for("the alarm again", lambda host=host: "split" in host.alarms(), PATIENTLY)  # type: ignore[misc]
        assert [clusters(half) for half in (ones, others)] == before
        for half, name, foreign in ((ones, "ours", "theirs"), (others, "theirs", "ours")):
            wait_for_members(half, 2, PATIENTLY)
            for host in half:
                assert has(tmp_path, host, name)
                assert not has(tmp_path, host, foreign)


def halves_form_apart(started: Sequence[Host], lan: Network) -> tuple[Sequence[Host], Sequence[Host]]:
    """Two clusters by rule 3: the two halves, with the lower cluster id first."""
    middle = len(started) // 2
    lan.cut(range(middle), range(middle, len(started)))
    _start(started)
    halves = sorted((started[:middle], started[middle:]), key=_cluster)
    assert _founders(started) == 2
    return halves[0], halves[1]


def push(folder: Path, host: Host, name: str) -> None:
    token = admin_token(load_secret(folder / "secret"))
    pushed = host.ask("PUT", f"/v1/datasets/{name}?target=species", iris_csv(), token=token)
    assert pushed.status == 201, pushed


def has(folder: Path, host: Host, name: str) -> bool:
    token = admin_token(load_secret(folder / "secret"))
    return host.ask("GET", f"/v1/datasets/{name}", token=token).status == 200


def _cluster(half: Sequence[Host]) -> str:
    """The id of the one cluster that these hosts form."""
    wait_for_members(half, len(half), PATIENTLY)
    (found,) = clusters(half)
    return found


def _start(found: Sequence[Host]) -> None:
    for host in found:
        host.start()


def _formed(host: Host) -> bool:
    return any(BELONGS in line and "formation=joined" not in line for line in host.log.splitlines())


def _founders(found: Sequence[Host]) -> int:
    """How many of these have formed a cluster, ever."""
    return sum(_formed(host) for host in found)


def _become_one(found: Sequence[Host]) -> None:
    """All are members of one cluster, which one of them has formed and all others have joined."""
    wait_for_members(found, len(found), PATIENTLY)
    assert len(clusters(found)) == 1
    assert _founders(found) == 1, "one forms, the others join"
    assert sum("formation=joined" in host.log for host in found) == len(found) - 1
    assert [host.alarms().count("split") for host in found] == [0] * len(found)


def _wait_for_words(host: Host, words: str) -> None:
    wait_for(f"{host.name} to say {words!r}", lambda: words in host.log, PATIENTLY)


def _wait_for_decision(host: Host) -> None:
    """It has formed or joined, or it has looked for as long as it does and waits for others that it names."""

    def decided() -> bool:
        waiting = [line for line in host.log.splitlines() if "formation.waiting" in line]
        return BELONGS in host.log or any("waiting for more nodes to come into sight" not in line for line in waiting)

    wait_for(f"{host.name} to decide", decided, PATIENTLY)


def _make_keys(found: Sequence[Host]) -> list[str]:
    """The ids that these hosts will have."""
    slots = [host.data / "slots" / host.environment["PARVADA_SLOT"] for host in found]
    for slot in slots:
        slot.mkdir(mode=0o700, parents=True)
    return [NodeKey.load_or_make(slot / "key.pem").id for slot in slots]
