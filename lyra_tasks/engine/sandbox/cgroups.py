"""The control group of a sandbox, which limits everything that runs in it.

cgroup v1 has one tree per controller, v2 a single tree; the group has the same name in each.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.errors import EngineUnavailableError

MOUNTS_FILE = Path("/proc/self/mounts")
DAEMON_LEAF = "daemon"  # for the engine's own processes: in v2 only leaves may have processes
_CPU_PERIOD_US = 100_000
_REMOVAL_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class CgroupTree:
    """A mounted control group tree and its controllers."""

    path: Path
    version: int
    controllers: frozenset[str]


def list_mounts(table: str | None = None) -> Iterator[tuple[Path, str, str]]:
    """Yield mount point, type and options of each entry of a mount table, by default of this process.

    Systems other than Linux have no such table.
    """
    if table is None:
        table = MOUNTS_FILE.read_text() if MOUNTS_FILE.exists() else ""
    for line in table.splitlines():
        _, mount_point, fs_type, options, *_ = line.split(" ")
        yield Path(unescape_mount_path(mount_point)), fs_type, options


def unescape_mount_path(text: str) -> str:
    """Return a path of a mount table, which writes blanks and the like as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def list_cgroup_trees(mounts: str | None = None) -> list[CgroupTree]:
    """List the control group trees in a mount table, by default in this machine's."""
    cgroup_trees = []
    for path, fs_type, options in list_mounts(mounts):
        if fs_type == "cgroup":
            cgroup_trees.append(CgroupTree(path, 1, frozenset(options.split(","))))
        elif fs_type == "cgroup2":
            cgroup_trees.append(CgroupTree(path, 2, _read_controllers(path)))
    return cgroup_trees


def create_cgroup(name: str, *, memory: int | None, cpus: float | None, is_required: bool = True) -> bool:
    """Create the group with its limits (`memory` in bytes) in each tree with a memory or CPU controller.

    Returns whether all limits are in force; raises EngineUnavailableError if one that `is_required` is not.
    """
    limited_trees = [tree for tree in list_cgroup_trees() if tree.controllers & {"memory", "cpu"}]
    are_set = True
    try:
        for tree in limited_trees:
            group = tree.path / name
            group.mkdir(exist_ok=True)
            if tree.version == 2:
                _delegate_controllers(tree.path)
            are_set &= _write_limits(group, cgroup_limit_files(tree, memory, cpus), is_required=is_required)
            if tree.version == 2:
                _delegate_controllers(group)
            (group / DAEMON_LEAF).mkdir(exist_ok=True)
    except OSError as error:
        raise EngineUnavailableError(
            f"Cannot create the control group {name}: {error.strerror}",
            hint="Run on the machine itself, or in a container that may write to /sys/fs/cgroup",
        ) from error
    available = {controller for tree in limited_trees for controller in tree.controllers}
    for controller, limit in (("memory", memory), ("cpu", cpus)):
        if limit is not None and controller not in available:
            if not is_required:
                return False
            raise EngineUnavailableError(
                f"The kernel of this machine cannot limit {controller}",
                hint="Remove the limit from [engine], or use another machine",
            )
    return are_set


def _write_limits(group: Path, files: Mapping[str, str], *, is_required: bool) -> bool:
    """Write the limits of a group; return whether all could be set, which kernels in containers may refuse."""
    for file, value in files.items():
        if (group / file).exists() or file != "memory.memsw.limit_in_bytes":
            try:
                (group / file).write_text(value)
            except OSError:
                if is_required:
                    raise
                return False
    return True


def cgroup_limit_files(tree: CgroupTree, memory: int | None, cpus: float | None) -> dict[str, str]:
    """Return the files of a group and their values, in the order of writing."""
    files: dict[str, str] = {}
    if memory is not None and "memory" in tree.controllers:
        if tree.version == 2:
            files |= {"memory.max": str(memory), "memory.swap.max": "0"}
        else:
            files |= {"memory.limit_in_bytes": str(memory), "memory.memsw.limit_in_bytes": str(memory)}
    if cpus is not None and "cpu" in tree.controllers:
        quota = int(cpus * _CPU_PERIOD_US)
        if tree.version == 2:
            files["cpu.max"] = f"{quota} {_CPU_PERIOD_US}"
        else:
            files |= {"cpu.cfs_period_us": str(_CPU_PERIOD_US), "cpu.cfs_quota_us": str(quota)}
    return files


def add_to_cgroup(name: str, pids: list[int]) -> None:
    """Move processes into the engine's leaf, which their children inherit."""
    for tree in list_cgroup_trees():
        leaf = tree.path / name / DAEMON_LEAF
        if leaf.is_dir():
            for pid in pids:
                (leaf / "cgroup.procs").write_text(str(pid))


def kill_container_processes(name: str) -> None:
    """Kill all processes of the group except the engine's own, so that the engine stops without waiting."""
    for tree in list_cgroup_trees():
        for directory in _descendants(tree.path / name):
            if directory.name != DAEMON_LEAF and directory != tree.path / name:
                for pid in _read_processes(directory):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def kill_remaining_processes(name: str) -> bool:
    """Kill all processes that are left in the group; return whether there were any."""
    pids = {pid for tree in list_cgroup_trees() for pid in list_cgroup_processes(tree.path / name)}
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(pids)


def list_cgroup_processes(group: Path) -> list[int]:
    """List the processes of a group, if it exists, and of all groups below it."""
    return [pid for directory in _descendants(group) for pid in _read_processes(directory)]


def remove_cgroup(name: str) -> list[Path]:
    """Remove the group from every tree; return the groups that could not be removed in time."""
    deadline = time.monotonic() + _REMOVAL_TIMEOUT_S
    while True:
        for tree in list_cgroup_trees():
            for directory in _descendants(tree.path / name):
                with suppress(OSError):
                    directory.rmdir()
        remaining = [tree.path / name for tree in list_cgroup_trees() if (tree.path / name).exists()]
        if not remaining or time.monotonic() > deadline:
            return remaining
        time.sleep(0.05)


def _delegate_controllers(group: Path) -> None:
    """Enable the controllers for the level below, as v2 requires; not every controller can be enabled everywhere."""
    for controller in _read_controllers(group):
        with suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _read_controllers(group: Path) -> frozenset[str]:
    try:
        return frozenset((group / "cgroup.controllers").read_text().split())
    except OSError:
        return frozenset()


def _descendants(group: Path) -> list[Path]:
    """List the group and all groups below it, deepest first."""
    return [Path(directory) for directory, _, _ in os.walk(group, topdown=False)]


def _read_processes(group: Path) -> list[int]:
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split() if pid != "0"]
    except OSError:
        return []
