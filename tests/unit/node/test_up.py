"""Which ports the nodes of `parvada up` get."""

import random
from pathlib import Path

import msgspec
import pytest

from node import up
from node.up import NodePorts, UpOptions

API = 9000


def _numbers(chosen: tuple[NodePorts, ...]) -> list[int]:
    return [port for ports in chosen for port in (ports.api, ports.peer, ports.raft, ports.ray)]


@pytest.fixture(autouse=True)
def _all_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """What listens on the machine is not what these tests are about."""
    monkeypatch.setattr(up, "_is_free", lambda port: True)


def test_no_port_is_given_twice_although_nobody_listens_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "LISTEN_PORTS", range(API, API + 130))  # the client ports are among them
    for seed in range(20):
        random.seed(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        numbers = _numbers(up._choose_ports(UpOptions(nodes=30, port=API, data=folder), folder))
        assert len(set(numbers)) == 4 * 30


def test_a_restarted_flock_keeps_its_ports_but_for_those_it_cannot(tmp_path: Path) -> None:
    kept = [NodePorts(API, 20001, 20002, 20003), NodePorts(API + 1, 20003, 20005, 20006)]
    (tmp_path / "ports.json").write_bytes(msgspec.json.encode(kept))
    first, second = up._choose_ports(UpOptions(nodes=2, port=API, data=tmp_path), tmp_path)
    assert first == kept[0]
    assert len(set(_numbers((first, second)))) == 8
