"""What is decided about a sandbox engine before anything is made."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from lyra_tasks.engine.debian.mirror import find_mirror_in_sources
from lyra_tasks.engine.sandbox import cgroups, layout, network, packages, start
from lyra_tasks.errors import PreconditionError, UsageError

ONE_LINE = """\
#deb http://commented.example bookworm main
deb [arch=amd64] http://one.example/debian bookworm main contrib
"""
DEB822 = """\
Types: deb deb-src
# a comment
URIs: http://two.example/debian http://three.example/debian
Suites: bookworm bookworm-updates
Components: main
"""
MOUNTS = (
    "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n"
    "cgroup /with\\040blank/memory cgroup rw,memory 0 0\n"
    "tmpfs /run tmpfs rw 0 0\n"
)
MEMORY_1 = cgroups.CgroupTree(Path("/m"), 1, frozenset({"memory"}))
ALL_2 = cgroups.CgroupTree(Path("/c"), 2, frozenset({"memory", "cpu", "pids"}))


def plan(state: Path, store: layout.StoreKind = "containerd") -> start.SandboxPlan:
    places = layout.sandbox_paths(state)
    return start.SandboxPlan(places, Path("/cache/engines/trixie"), "trixie", store, None, None)


def test_a_socket_path_is_short_however_long_and_odd_the_state_path_is(tmp_path: Path) -> None:
    places = layout.sandbox_paths(tmp_path / ("a b,c:d" * 30))
    assert len(str(places.socket)) < 60
    assert not set(str(places.socket)) & set(" ,:")


def test_two_state_folders_have_two_names_and_one_has_one_however_it_is_written(tmp_path: Path) -> None:
    one, other = layout.sandbox_paths(tmp_path / "one"), layout.sandbox_paths(tmp_path / "other")
    assert one.name != other.name
    assert layout.sandbox_paths(tmp_path / "x" / ".." / "one").name == one.name


def test_each_suite_and_store_has_its_own_data(tmp_path: Path) -> None:
    places = layout.sandbox_paths(tmp_path)
    assert len({places.data("trixie", "graph"), places.data("trixie", "containerd"), places.data("sid", "graph")}) == 3


def test_the_containerd_store_is_switched_on_only_where_it_was_chosen(tmp_path: Path) -> None:
    assert start.create_daemon_config(plan(tmp_path))["features"] == {"containerd-snapshotter": True}
    # Newer engines would choose it by themselves.
    assert start.create_daemon_config(plan(tmp_path, "graph"))["features"] == {"containerd-snapshotter": False}


def test_containers_land_in_the_sandboxes_own_control_group(tmp_path: Path) -> None:
    config = start.create_daemon_config(plan(tmp_path))
    assert config["cgroup-parent"] == f"/{layout.sandbox_paths(tmp_path).name}"


def test_the_networks_inside_meet_neither_each_other_nor_the_uplink(tmp_path: Path) -> None:
    config = start.create_daemon_config(plan(tmp_path))
    pool = IPv4Network(config["default-address-pools"][0]["base"])
    bridge = IPv4Network(config["bip"], strict=False)
    assert not pool.overlaps(bridge)
    assert not any(subnet.overlaps(pool) or subnet.overlaps(bridge) for _, subnet in network.list_free_links([]))


def test_an_uplink_avoids_what_the_machine_uses() -> None:
    names = [name for name, _ in network.list_free_links([])]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 15
    _, first = next(network.list_free_links([]))
    assert all(not subnet.overlaps(first) for _, subnet in network.list_free_links([first]))
    assert list(network.list_free_links([IPv4Network("10.0.0.0/8")]))
    assert not list(network.list_free_links([IPv4Network("0.0.0.0/0")]))


def test_bookworm_has_the_classic_store_only() -> None:
    assert packages.select_recipe("bookworm").stores == ("graph",)
    assert packages.select_recipe("trixie").stores == ("containerd", "graph")
    assert packages.select_recipe("bookworm").suites == ("bookworm", "trixie")


def test_on_ubuntu_everything_comes_from_its_own_release() -> None:
    noble = packages.select_recipe("noble", ubuntu=True)
    assert noble.suites == ("noble", "noble-updates")
    assert not any("/" in package for package in noble.packages)
    assert {"docker.io", "docker-compose-v2", "libelf1t64"} < set(noble.packages)
    assert "libelf1" in packages.select_recipe("jammy", ubuntu=True).packages


def test_an_unknown_suite_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="potato") as fault:
        packages.select_recipe("potato")
    assert "trixie" in fault.value.hint


def test_the_mount_table_tells_the_control_group_trees() -> None:
    joint, memory = cgroups.list_cgroup_trees(MOUNTS)
    assert (joint.path, joint.version, "cpu" in joint.controllers) == (Path("/sys/fs/cgroup/cpu,cpuacct"), 1, True)
    assert (memory.path, "memory" in memory.controllers) == (Path("/with blank/memory"), True)


def test_memory_is_limited_together_with_swap() -> None:
    assert cgroups.cgroup_limit_files(MEMORY_1, 1000, 0.5) == {
        "memory.limit_in_bytes": "1000",
        "memory.memsw.limit_in_bytes": "1000",
    }
    assert cgroups.cgroup_limit_files(ALL_2, 1000, 0.5) == {
        "memory.max": "1000",
        "memory.swap.max": "0",
        "cpu.max": "50000 100000",
    }
    assert cgroups.cgroup_limit_files(ALL_2, None, None) == {}


@pytest.mark.parametrize("change", ['"schema_version": 1, "extra": 2', '"schema_version": 2', "nonsense"])
def test_a_record_that_cannot_be_understood_is_not_guessed(tmp_path: Path, change: str) -> None:
    places = layout.sandbox_paths(tmp_path)
    places.directory.mkdir()
    record = layout.SandboxRecord(
        suite="trixie", store="graph", pid=1, start_ticks=1, boot_id="b", link="l", address="a", memory=None, cpus=None
    )
    layout.write_sandbox_record(places, record)
    assert layout.read_sandbox_record(places) == record
    places.record.write_text(places.record.read_text().replace('"schema_version": 1', change))
    with pytest.raises(PreconditionError, match="cannot be read"):
        layout.find_sandbox(tmp_path)


def test_a_process_with_the_same_number_from_another_time_is_not_ours(tmp_path: Path) -> None:
    started = layout.read_start_ticks(1)
    assert started is not None
    alive = layout.SandboxRecord(
        suite="trixie",
        store="graph",
        pid=1,
        start_ticks=started,
        boot_id=layout.read_boot_id(),
        link="l",
        address="a",
        memory=None,
        cpus=None,
    )
    assert layout.is_sandbox_process_alive(alive)
    assert not layout.is_sandbox_process_alive(alive.model_copy(update={"started": started + 1}))
    assert not layout.is_sandbox_process_alive(alive.model_copy(update={"boot": "another"}))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (ONE_LINE, "http://one.example/debian"),
        (DEB822, "http://two.example/debian"),
        (
            f"Types: deb\nURIs: http://off.example\nSuites: bookworm\nComponents: main\nEnabled: no\n\n{DEB822}",
            "http://two.example/debian",
        ),
        (DEB822.replace("main", "contrib"), ""),
        (ONE_LINE.replace(" bookworm main", " bookworm-security main"), ""),
        (DEB822.replace("Types: deb deb-src", "Types: deb-src"), ""),
        ("", ""),
    ],
)
def test_the_machines_sources_tell_the_mirror(text: str, found: str) -> None:
    assert find_mirror_in_sources([text], "bookworm") == found
