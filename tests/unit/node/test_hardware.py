"""What a node may use of its machine, from the files of a kernel that is made up, in both versions of cgroups."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from node.hardware import BOOT_ID, Machine, memory_limit, quota_of, read_machine

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
FOUR = (0, 1, 2, 3)


def write(root: Path, **files: str) -> Path:
    """Names with `__` for slashes."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def kernel(root: Path, boot: str = "b-1", cgroup: str = "0::/") -> Path:
    write(root, **{BOOT_ID.replace("/", "__"): boot, "proc__self__cgroup": cgroup})
    (root / "sys/fs/cgroup").mkdir(parents=True, exist_ok=True)
    return root


def container(root: Path, cpu: str, memory: str = "max") -> Path:
    groups = root / "sys/fs/cgroup"
    kernel(root)
    (groups / "cpu.max").write_text(cpu + "\n")
    (groups / "memory.max").write_text(memory + "\n")
    return root


def first_version(root: Path, cpu: str, memory: str, group: str = "/") -> Path:
    """A container of cgroup v1 sees its group as the topmost, whatever its name."""
    kernel(root, cgroup=f"9:name=systemd:{group}\n4:memory:{group}\n2:cpu,cpuacct:{group}")
    quota, _, period = cpu.partition(" ")
    groups = root / "sys/fs/cgroup"
    for folder, name, text in (
        ("cpu", "cpu.cfs_quota_us", quota),
        ("cpu", "cpu.cfs_period_us", period),
        ("memory", "memory.limit_in_bytes", memory),
    ):
        (groups / folder).mkdir(parents=True, exist_ok=True)
        (groups / folder / name).write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000", None), ("150000 100000", 1.5), ("-1 100000", None), ("", None), (" ", None), ("what 7", None)],
)
def test_a_quota(text: str, cores: float | None) -> None:
    assert quota_of(text) == cores


def test_without_limits_a_node_has_the_cores_that_it_may_run_on(tmp_path: Path) -> None:
    found = read_machine(root=kernel(tmp_path), allowed=FOUR)
    assert (found.cores, found.memory_bytes, found.memory_is_own) == (4, MACHINE, False)
    assert read_machine(0, kernel(tmp_path), (2, 3)).cores == 2


@pytest.mark.parametrize(
    "limited",
    [
        lambda root: container(root, "250000 100000", str(1 << 20)),
        lambda root: first_version(root, "250000 100000", str(1 << 20)),
        lambda root: first_version(root, "250000 100000", str(1 << 20), "/docker/0123"),
    ],
    ids=["version 2", "version 1", "version 1 without its own names"],
)
def test_a_container_with_limits_keeps_to_them(tmp_path: Path, limited: Callable[[Path], Path]) -> None:
    found = read_machine(0, limited(tmp_path), FOUR)
    assert (found.cores, found.memory_bytes, found.memory_is_own) == (2, 1 << 20, True)


@pytest.mark.parametrize(
    "unlimited",
    [
        lambda root: container(root, "max 100000"),
        lambda root: container(root, "900000 100000"),
        lambda root: first_version(root, "-1 100000", "9223372036854771712"),
    ],
    ids=["version 2", "a quota above what there is", "version 1"],
)
def test_limits_that_do_not_bind_are_none(tmp_path: Path, unlimited: Callable[[Path], Path]) -> None:
    assert read_machine(0, unlimited(tmp_path), FOUR) == read_machine(0, kernel(tmp_path / "bare"), FOUR)


def test_a_fraction_of_a_core_is_one(tmp_path: Path) -> None:
    assert read_machine(0, container(tmp_path, "50000 100000"), FOUR).cores == 1


def test_the_limit_of_a_group_above_binds(tmp_path: Path) -> None:
    kernel(tmp_path, cgroup="0::/system.slice/parvada.service")
    write(tmp_path / "sys/fs/cgroup/system.slice", **{"cpu.max": "300000 100000", "memory.max": "4096"})
    write(tmp_path / "sys/fs/cgroup/system.slice/parvada.service", **{"cpu.max": "max 100000", "memory.max": "8192"})
    assert read_machine(0, tmp_path, FOUR).cores == 3
    assert memory_limit(tmp_path) == (4096, True)


def test_a_group_outside_of_what_is_seen_is_no_way_out(tmp_path: Path) -> None:
    kernel(tmp_path / "root", cgroup="0::/../../elsewhere")
    write(tmp_path / "root/sys/fs/elsewhere", **{"cpu.max": "100000 100000"})
    assert read_machine(0, tmp_path / "root", FOUR).cores == 4


def test_the_word_of_the_operator_is_taken(tmp_path: Path) -> None:
    found = read_machine(3, container(tmp_path, "100000 100000"), FOUR)
    assert (found.cores, found.given) == (3, True)
    assert found.key == read_machine(0, tmp_path, FOUR).key, "it is on that machine all the same"


# ---------------------------------------------------------------- which machine it is
def test_who_has_the_same_cores_knows_it(tmp_path: Path) -> None:
    one = read_machine(0, kernel(tmp_path / "one"), FOUR)
    assert one.key == read_machine(0, kernel(tmp_path / "two"), FOUR).key
    assert one.key != read_machine(0, kernel(tmp_path / "other", boot="b-2"), FOUR).key, "another kernel"
    assert one.key != read_machine(0, kernel(tmp_path / "one"), (0, 1)).key, "another cpuset"


def test_containers_with_quotas_share_with_nobody_but_who_is_in_the_same_one(tmp_path: Path) -> None:
    one, two = (container(tmp_path / name, "200000 100000") for name in ("one", "two"))
    assert read_machine(0, one, FOUR).key == read_machine(0, one, FOUR).key
    assert len({read_machine(0, root, FOUR).key for root in (one, two, kernel(tmp_path / "three"))}) == 3


def test_where_the_kernel_does_not_say_which_it_is_nothing_is_shared(tmp_path: Path) -> None:
    found = read_machine(0, tmp_path, FOUR)
    assert (found.cores, found.key, found.name("c-1")) == (4, "", "")


def test_the_name_of_a_machine_tells_nothing_of_it(tmp_path: Path) -> None:
    machine = Machine(4, 1, False, False, "0d7e-boot 0,1,2,3")
    name = machine.name("c-1")
    assert name == machine.name("c-1") != machine.name("c-2")
    assert not any(part in name for part in machine.key.split())
    assert len(name) <= 64


def test_this_machine_is_known(tmp_path: Path) -> None:
    assert read_machine().name("c-1") == read_machine().name("c-1") != ""
    assert 1 <= read_machine().cores <= (os.cpu_count() or 1)
