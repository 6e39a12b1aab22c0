"""How a node's Ray is asked for: its folder, its credentials, its ports and its environment."""

import stat
from pathlib import Path

import msgspec
import pytest

from training.epoch import RayRole
from training.ray_cluster import (
    OBJECT_STORE_LEAST,
    OBJECT_STORE_MOST,
    RaySettings,
    object_store_within,
    prepare_folder,
    ray_command,
    ray_environment,
    ray_ip,
    short_folder,
)


class Credentials(msgspec.Struct, frozen=True):
    cert_pem: bytes = b"cert"
    key_pem: bytes = b"key"
    ca_pem: bytes = b"ca"
    token: str = "epoch-7"


def ports(command: list[str]) -> set[int]:
    return {int(value) for name, _, value in (part.partition("=") for part in command) if "port" in name}


@pytest.mark.parametrize(("configured", "used"), [("127.0.0.3", "127.0.0.1"), ("10.0.0.7", "10.0.0.7")])
def test_only_exactly_127_0_0_1_keeps_ray_on_loopback(configured: str, used: str) -> None:
    command = ray_command(RaySettings(configured, "n", 2, Path("/r")), RayRole.HEAD, "", Path("/r"))
    assert ray_ip(configured) == used
    assert f"--node-ip-address={used}" in command


def test_nodes_of_one_host_leave_every_port_to_the_system() -> None:
    settings = RaySettings("127.0.0.2", "n", 2, Path("/r"), port=6379)
    assert ports(ray_command(settings, RayRole.HEAD, "", Path("/r"))) == {0}
    assert ports(ray_command(settings, RayRole.WORKER, "127.0.0.1:4", Path("/r"))) == set()


def test_a_node_with_its_own_address_has_ports_that_a_firewall_can_name() -> None:
    settings = RaySettings("10.0.0.7", "n", 2, Path("/r"), port=7000)
    head = ports(ray_command(settings, RayRole.HEAD, "", Path("/r")))
    worker = ports(ray_command(settings, RayRole.WORKER, "10.0.0.8:7000", Path("/r")))
    assert head == {7000, 7001, 7002, 7003, 7004, 7005, 7006, 20000, 20999}
    assert worker == head - {7000}


def test_the_object_store_takes_a_part_of_what_the_node_has() -> None:
    megabyte = 1 << 20
    assert object_store_within(600 * megabyte) == 150 * megabyte
    assert object_store_within(64 << 30) == OBJECT_STORE_MOST
    assert object_store_within(100 * megabyte) == OBJECT_STORE_LEAST > 75 * megabyte, "what Ray takes at least"
    asked = iter([90 * megabyte, 100 * megabyte])
    settings = RaySettings("10.0.0.7", "n", 2, Path("/r"), object_store_bytes=lambda: next(asked))
    for expected in (90, 100):
        command = ray_command(settings, RayRole.WORKER, "10.0.0.8:7000", Path("/r"))
        assert f"--object-store-memory={expected * megabyte}" in command


def test_every_process_has_tls_and_the_token_of_its_epoch(tmp_path: Path) -> None:
    folder = tmp_path / "ray"
    prepare_folder(folder, Credentials())
    environment = ray_environment(folder)
    assert environment["RAY_USE_TLS"] == "1"
    assert environment["RAY_AUTH_MODE"] == "token"
    contents = {
        "RAY_TLS_SERVER_CERT": "cert",
        "RAY_TLS_SERVER_KEY": "key",
        "RAY_TLS_CA_CERT": "ca",
        "RAY_AUTH_TOKEN_PATH": "epoch-7",
    }
    assert {name: Path(environment[name]).read_text() for name in contents} == contents
    assert "epoch-7" not in environment.values(), "an environment is easily shown: name the file, not the token"


def test_a_new_epoch_leaves_nothing_of_the_last_one_and_lets_nobody_in(tmp_path: Path) -> None:
    folder = tmp_path / "ray"
    prepare_folder(folder, Credentials())
    (folder / "t").mkdir()
    (folder / "t" / "ray_current_cluster").write_text("127.0.0.1:1")
    prepare_folder(folder, Credentials(token="epoch-8"))
    assert sorted(path.name for path in folder.iterdir()) == ["ca.pem", "cert.pem", "key.pem", "token"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert (folder / "token").read_text() == "epoch-8"


def test_a_folder_that_somebody_planted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ray").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="not ours"):
        prepare_folder(tmp_path / "ray", Credentials())


def test_a_deep_data_folder_has_a_short_stand_in_of_its_own() -> None:
    here = Path("/var/lib/parvada/slots/1/ray")
    assert short_folder(here) == here
    deep = Path("/home/somebody/projects/a-customer/parvada/.parvada/slots")
    stand_ins = {short_folder(deep / number / "ray") for number in "123"}
    assert len(stand_ins) == 3
    socket = "/t/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store.1"
    assert all(len(str(folder) + socket) <= 107 for folder in stand_ins)
