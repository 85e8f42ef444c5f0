"""Private engines that run without their state directory: it was moved away or removed, and their record with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.engine.sandbox.cgroups import list_cgroup_processes, list_cgroup_trees, unescape_mount_path
from lyra_tasks.engine.sandbox.layout import (
    SandboxPaths,
    is_sandbox_process_alive,
    read_marker,
    read_sandbox_record,
)
from lyra_tasks.errors import EngineUnavailableError, PreconditionError
from lyra_tasks.locks import is_locked

_RUNTIME_DIRECTORY = Path("/run")
_INNER_DATA = "/run/data"
_DELETED = "//deleted"


@dataclass(frozen=True)
class StraySandbox:
    """A private engine that no record leads to; `pid` is its first process.

    `state` is where its state directory was, `data` where the images and volumes are now, None if that is unknown or
    they were removed.
    """

    state: Path
    pid: int
    data: Path | None

    @property
    def description(self) -> str:
        """Say what runs, and what became of its data."""
        place = f"; its data are in {self.data} now" if self.data else ", which was moved or removed"
        return f"a private engine (pid {self.pid}) runs without its state directory {self.state}{place}"


def find_stray_sandbox(state: Path) -> StraySandbox | None:
    """Return the engine that runs for a state directory although the record there does not say so."""
    paths = SandboxPaths(state)
    record = read_sandbox_record(paths)
    if (record is not None and is_sandbox_process_alive(record)) or not (pids := list_sandbox_processes(paths)):
        return None
    pid = _find_first_process(paths, pids)
    return StraySandbox(paths.state, pid, _find_data(pid))


def list_stray_sandboxes() -> Iterator[StraySandbox]:
    """Yield the stray engines of all projects on this machine."""
    for runtime in sorted(_RUNTIME_DIRECTORY.glob("lyra-*")):
        with suppress(OSError, PreconditionError):  # not ours, not readable, or removed meanwhile
            state = (runtime / "state").readlink()
            is_of_that_state = SandboxPaths(state).runtime == runtime
            if is_of_that_state and not is_locked(SandboxPaths(state).lock) and (stray := find_stray_sandbox(state)):
                yield stray


def list_used_engine_directories() -> list[Path]:
    """Return the directories of unpacked engines that run for any project on this machine."""
    directories = []
    for runtime in _RUNTIME_DIRECTORY.glob("lyra-*"):
        with suppress(OSError):  # removed meanwhile, or another user's, who has another cache
            directories.append((runtime / "engine").readlink())
    return directories


def require_no_stray_sandbox(state: Path) -> None:
    """Raise EngineUnavailableError if an engine runs for a state directory that its record does not lead to."""
    if stray := find_stray_sandbox(state):
        raise EngineUnavailableError(
            f"{stray.description[:1].upper()}{stray.description[1:]}",
            hint="Run `clean`, which ends it and keeps its data, then repeat this command",
        )


def list_sandbox_processes(paths: SandboxPaths) -> list[int]:
    """Return the processes in the control group of a sandbox."""
    trees = list_cgroup_trees()
    return sorted({pid for tree in trees for pid in list_cgroup_processes(tree.path / paths.name)})


def _find_first_process(paths: SandboxPaths, pids: list[int]) -> int:
    """Return the first process of a running sandbox, whose end is the end of all others."""
    marker = read_marker(paths)
    if marker is not None and is_sandbox_process_alive(marker):
        return marker.pid
    with suppress(OSError, ValueError):  # no such file, or not two numbers
        first = int((paths.runtime / "pids").read_text().split()[0])
        return first if first in pids else pids[0]
    return pids[0]


def _find_data(pid: int) -> Path | None:
    """Return the directory that a sandbox has mounted as its data, by the name that it has now."""
    try:
        inner, outer = (_read_mounts(process) for process in (str(pid), "self"))
    except OSError:
        return None
    device, root = next(((device, root) for device, root, point in inner if point == _INNER_DATA), ("", ""))
    if not device or root.endswith(_DELETED):
        return None
    for outer_device, outer_root, point in outer:
        if outer_device == device and Path(root).is_relative_to(outer_root):
            path = Path(point) / Path(root).relative_to(outer_root)
            if path.is_dir():
                return path
    return None


def _read_mounts(process: str) -> list[tuple[str, str, str]]:
    """Return device, root and mount point of each mount of a process."""
    lines = Path("/proc", process, "mountinfo").read_text(errors="surrogateescape").splitlines()
    fields = [line.split(" ") for line in lines]
    return [(field[2], unescape_mount_path(field[3]), unescape_mount_path(field[4])) for field in fields]
