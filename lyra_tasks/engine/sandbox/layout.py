"""Where a sandbox engine keeps its things, what is recorded of it, and whether it still runs."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import write_file

StoreKind = Literal["containerd", "graph"]
BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class SandboxPaths:
    """The folders of one sandbox; its short `name` also names its runtime folder and its control group."""

    state: Path
    name: str

    @property
    def directory(self) -> Path:
        """All that outlives the engine's processes."""
        return self.state / "sandbox"

    @property
    def record(self) -> Path:
        return self.directory / "sandbox.json"

    @property
    def config(self) -> Path:
        """A `DOCKER_CONFIG` with the buildx and compose plugins."""
        return self.directory / "config"

    @property
    def log(self) -> Path:
        return self.directory / "dockerd.log"

    @property
    def lock(self) -> Path:
        return self.state / "sandbox.lock"

    @property
    def runtime(self) -> Path:
        """Short and without special characters, whatever the state path is: a socket's path may have 107 bytes."""
        return Path("/run") / self.name

    @property
    def socket(self) -> Path:
        return self.runtime / "docker.sock"

    @property
    def engine(self) -> Path:
        """A link to the unpacked packages, fit for PATH even if the cache's own path holds a colon."""
        return self.runtime / "engine"

    @property
    def owner(self) -> Path:
        """A link to the state folder, so that the socket alone tells whose engine it is."""
        return self.runtime / "state"

    def data(self, suite: str, store: StoreKind) -> Path:
        """The engine's images, containers and volumes; other versions and stores could not read them."""
        return self.directory / "data" / f"{suite}-{store}"


class SandboxRecord(BaseModel):
    """What `sandbox.json` says about a started engine. `memory` in bytes; `started` in clock ticks since boot."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    schema_version: Literal[1] = 1
    suite: str
    store: StoreKind
    pid: int
    start_ticks: int
    boot_id: str
    link: str
    address: str
    memory: int | None
    cpus: float | None


@dataclass(frozen=True)
class Sandbox:
    """A running private engine. Ports that it publishes answer at `address`, from this machine alone."""

    state: Path
    name: str
    suite: str
    store: StoreKind
    socket: Path
    address: str
    docker: Path
    config_dir: Path
    log: Path
    pid: int
    cgroup: str
    memory: int | None
    cpus: float | None

    def environment(self) -> dict[str, str]:
        """The variables with which a Docker client finds this engine, and this engine only."""
        return {
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.config_dir),
            "PATH": f"{self.docker.parent}:{os.environ.get('PATH', os.defpath)}",
        }


def sandbox_paths(state: Path) -> SandboxPaths:
    """The folders of the sandbox that belongs to a state folder."""
    state = state.resolve()
    return SandboxPaths(state=state, name=f"lyra-{hashlib.sha256(os.fsencode(state)).hexdigest()[:10]}")


def find_sandbox(state: Path) -> Sandbox | None:
    """The engine that runs for a state folder, or None; reads two files, asks no engine."""
    paths = sandbox_paths(state)
    record = read_sandbox_record(paths)
    return to_sandbox(paths, record) if record and is_sandbox_process_alive(record) else None


def to_sandbox(paths: SandboxPaths, record: SandboxRecord) -> Sandbox:
    """A record and the folders it belongs to, as callers see them."""
    return Sandbox(
        state=paths.state,
        name=paths.name,
        suite=record.suite,
        store=record.store,
        socket=paths.socket,
        address=record.address,
        docker=paths.engine / "cli" / "docker",
        config_dir=paths.config,
        log=paths.log,
        pid=record.pid,
        cgroup=f"/{paths.name}",
        memory=record.memory,
        cpus=record.cpus,
    )


def read_sandbox_record(paths: SandboxPaths) -> SandboxRecord | None:
    """What is recorded of the sandbox, running or not; None if nothing is."""
    try:
        return SandboxRecord.model_validate_json(paths.record.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise PreconditionError(
            f"the record of the sandbox engine cannot be read: {paths.record}",
            hint=f"end the processes of {paths.name}, delete the file and try again",
        ) from error


def write_sandbox_record(paths: SandboxPaths, record: SandboxRecord) -> None:
    """Replace the record in one step; after a power cut it is whole or not there."""
    write_file(paths.record, (record.model_dump_json(indent=2) + "\n").encode(), mode=0o600)


def is_sandbox_process_alive(record: SandboxRecord) -> bool:
    """Whether the recorded first process is still that process: a number alone may belong to another by now."""
    return record.boot_id == read_boot_id() and read_start_ticks(record.pid) == record.start_ticks


def read_boot_id() -> str:
    """What tells this boot from the last one."""
    return BOOT_ID_FILE.read_text().strip()


def read_start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none or only its remains."""
    fields = _read_stat(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def read_parent_pid(pid: int) -> int | None:
    """The number of a process's parent."""
    fields = _read_stat(pid)
    return int(fields[1]) if fields else None


def _read_stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The command name comes second, in parentheses, and may itself hold blanks and parentheses.
    return text.rpartition(")")[2].split()
