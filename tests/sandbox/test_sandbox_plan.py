"""Planning a private engine."""

from __future__ import annotations

import os
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from lyra_tasks.engine.debian.mirror import find_mirror_in_sources
from lyra_tasks.engine.sandbox import cgroups, layout, network, packages, start
from lyra_tasks.engine.sandbox.stop import clear_sandbox
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
    paths = layout.SandboxPaths(state)
    return start.SandboxPlan(paths, Path("/cache/engines/trixie"), "trixie", store, None, None)


def test_socket_path_is_short_for_any_state_path(tmp_path: Path) -> None:
    paths = layout.SandboxPaths(tmp_path / ("a b,c:d" * 30))
    assert len(str(paths.socket)) < 60
    assert not set(str(paths.socket)) & set(" ,:")


def test_sandbox_name_identifies_state_directory(tmp_path: Path) -> None:
    one, other = layout.SandboxPaths(tmp_path / "one"), layout.SandboxPaths(tmp_path / "other")
    assert one.name != other.name
    assert layout.SandboxPaths(tmp_path / "x" / ".." / "one").name == one.name


def test_suite_and_store_have_separate_data(tmp_path: Path) -> None:
    paths = layout.SandboxPaths(tmp_path)
    assert len({paths.data("trixie", "graph"), paths.data("trixie", "containerd"), paths.data("sid", "graph")}) == 3


def test_daemon_config_sets_containerd_store_explicitly(tmp_path: Path) -> None:
    assert start.create_daemon_config(plan(tmp_path))["features"] == {"containerd-snapshotter": True}
    # Newer engines use it by default.
    assert start.create_daemon_config(plan(tmp_path, "graph"))["features"] == {"containerd-snapshotter": False}


def test_daemon_config_uses_cgroup_of_sandbox(tmp_path: Path) -> None:
    config = start.create_daemon_config(plan(tmp_path))
    assert config["cgroup-parent"] == f"/{layout.SandboxPaths(tmp_path).name}"


def test_daemon_config_bounds_what_is_kept_of_builds(tmp_path: Path) -> None:
    history = start.create_daemon_config(plan(tmp_path))["builder"]["history"]
    assert history["maxEntries"] <= 50
    # BuildKit keeps a record until it is beyond both limits
    assert history["maxAge"] == "1m"


def test_long_log_of_a_running_engine_is_shortened(tmp_path: Path) -> None:
    log = layout.SandboxPaths(tmp_path).log
    log.parent.mkdir()
    with log.open("ab") as daemon:
        daemon.write(b"short\n")
        daemon.flush()
        layout.limit_log(tmp_path)
        assert log.read_bytes() == b"short\n"
        daemon.write(b"x" * (5 << 20) + b"the last line\n")
        daemon.flush()
        layout.limit_log(tmp_path)
        assert log.read_bytes().endswith(b"xxxthe last line\n")
        daemon.write(b"more\n")
    assert log.read_bytes().endswith(b"the last line\nmore\n")
    assert log.stat().st_size < 1 << 20


def test_sandbox_networks_do_not_overlap(tmp_path: Path) -> None:
    config = start.create_daemon_config(plan(tmp_path))
    pool = IPv4Network(config["default-address-pools"][0]["base"])
    bridge = IPv4Network(config["bip"], strict=False)
    assert not pool.overlaps(bridge)
    assert not any(subnet.overlaps(pool) or subnet.overlaps(bridge) for _, subnet in network.list_free_links([]))


def test_free_links_avoid_networks_in_use() -> None:
    names = [name for name, _ in network.list_free_links([])]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 15
    _, first = next(network.list_free_links([]))
    assert all(not subnet.overlaps(first) for _, subnet in network.list_free_links([first]))
    assert list(network.list_free_links([IPv4Network("10.0.0.0/8")]))
    assert not list(network.list_free_links([IPv4Network("0.0.0.0/0")]))


def test_bookworm_recipe_has_only_classic_store() -> None:
    assert packages.select_recipe("bookworm").stores == ("graph",)
    assert packages.select_recipe("trixie").stores == ("containerd", "graph")
    assert packages.select_recipe("bookworm").suites == ("bookworm", "trixie")


def test_ubuntu_recipe_uses_own_release() -> None:
    noble = packages.select_recipe("noble", ubuntu=True)
    assert noble.suites == ("noble", "noble-updates")
    assert not any("/" in package for package in noble.packages)
    assert {"docker.io", "docker-compose-v2", "libelf1t64"} < set(noble.packages)
    assert "libelf1" in packages.select_recipe("jammy", ubuntu=True).packages


def test_recipe_of_unknown_suite_lists_known_suites() -> None:
    with pytest.raises(UsageError, match="potato") as error:
        packages.select_recipe("potato")
    assert "trixie" in error.value.hint


def test_cgroup_trees_are_read_from_mount_table() -> None:
    joint, memory = cgroups.list_cgroup_trees(MOUNTS)
    assert (joint.path, joint.version, "cpu" in joint.controllers) == (Path("/sys/fs/cgroup/cpu,cpuacct"), 1, True)
    assert (memory.path, "memory" in memory.controllers) == (Path("/with blank/memory"), True)


def test_memory_limit_includes_swap() -> None:
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
def test_invalid_sandbox_record_is_refused(tmp_path: Path, change: str) -> None:
    paths = layout.SandboxPaths(tmp_path)
    paths.marker = tmp_path / "marker.json"  # not in /run, where it would stay
    paths.directory.mkdir()
    record = layout.SandboxRecord(
        suite="trixie", store="graph", pid=1, start_ticks=1, boot_id="b", link="l", address="a", memory=None, cpus=None
    )
    layout.write_sandbox_record(paths, record)
    assert layout.read_sandbox_record(paths) == record
    paths.record.write_text(paths.record.read_text().replace('"schema_version": 1', change))
    with pytest.raises(PreconditionError, match="Cannot read the record"):
        layout.find_sandbox(tmp_path)


def test_what_cannot_be_removed_is_a_leftover(tmp_path: Path) -> None:
    paths = layout.SandboxPaths(tmp_path)
    paths.runtime = tmp_path / "not a directory"
    paths.runtime.touch()
    assert clear_sandbox(paths).leftovers == (str(paths.runtime),)


def test_reused_process_id_is_not_the_sandbox(tmp_path: Path) -> None:
    start_ticks = layout.read_start_ticks(1)
    assert start_ticks is not None
    record = layout.SandboxRecord(
        suite="trixie",
        store="graph",
        pid=1,
        start_ticks=start_ticks,
        boot_id=layout.read_boot_id(),
        link="l",
        address="a",
        memory=None,
        cpus=None,
    )
    assert layout.is_sandbox_process_alive(record)
    assert not layout.is_sandbox_process_alive(record.model_copy(update={"start_ticks": start_ticks + 1}))
    assert not layout.is_sandbox_process_alive(record.model_copy(update={"boot_id": "another"}))


@pytest.mark.parametrize(
    ("text", "expected"),
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
        (
            "Types: deb\nURIs:\n http://many.example/debian\n# a comment\n http://other.example/debian\n"
            "Suites: bookworm\n bookworm-updates\nComponents:\n\tmain\n",
            "http://many.example/debian",
        ),
        (
            "deb https://vendor.example/apt bookworm main\ndeb http://one.example/debian bookworm main\n",
            "http://one.example/debian",
        ),
        ("deb https://vendor.example/apt bookworm main\n", "https://vendor.example/apt"),
        ("deb cdrom:[Debian GNU/Linux 12.5.0 _Bookworm_ - Official]/ bookworm main\n", ""),
        (
            "deb https://dl.example/chrome/deb stable main\ndeb http://one.example/debian/ stable main contrib\n",
            "http://one.example/debian/",
        ),
        ("deb [signed-by=/a.gpg arch=amd64] http://one.example/debian testing main\n", "http://one.example/debian"),
        ("Types: deb\nURIs: http://one.example/debian\nSuites: sid\nComponents: main\n", "http://one.example/debian"),
        (
            "Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\nSuites: unstable\nComponents: main\n",
            "mirror+file:///etc/apt/mirrors/debian.list",
        ),
        ("deb https://dl.example/chrome/deb stable main\n", ""),
        ("deb http://one.example/debian testing-security main\n", ""),
    ],
)
def test_mirror_is_found_in_apt_sources(text: str, expected: str) -> None:
    assert find_mirror_in_sources([text], "bookworm") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("deb http://one.example/debian-security testing-security main\n", "http://one.example/debian-security"),
        ("deb http://one.example/debian testing main\n", ""),
        ("deb http://ports.example/ubuntu-ports forky-security main\n", "http://ports.example/ubuntu-ports"),
    ],
)
def test_security_mirror_is_found_by_class(text: str, expected: str) -> None:
    assert find_mirror_in_sources([text], "forky-security") == expected


def test_shared_limits_leave_the_engine_enough_for_itself() -> None:
    memory, cpus = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), os.cpu_count() or 1
    assert start.compute_shared_limits(1.0) == (memory, cpus)
    assert start.compute_shared_limits(0.75) == (max(int(memory * 0.75), min(memory, 1 << 30)), max(cpus * 0.75, 0.5))
    assert start.compute_shared_limits(0.000001) == (min(memory, 1 << 30), 0.5)


def test_limit_that_the_kernel_refuses_is_left_out_only_where_it_may_be(tmp_path: Path) -> None:
    files = {"missing/memory.max": "1"}
    assert not cgroups._write_limits(tmp_path, files, is_required=False)
    with pytest.raises(OSError, match="missing"):
        cgroups._write_limits(tmp_path, files, is_required=True)
