"""The files of a private engine, its record, and whether it is running."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lyra_tasks.digests import sha256_hex
from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import write_file
from lyra_tasks.processes import run_captured

StoreKind = Literal["containerd", "graph"]
_CONTAINERD_BLOBS = Path("containerd", "daemon", "io.containerd.content.v1.content", "blobs", "sha256")
_MAX_LOG_BYTES = 4 << 20
_KEPT_LOG_BYTES = 64 << 10
BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


class SandboxPaths:
    """The paths of the sandbox of a state directory."""

    def __init__(self, state: Path) -> None:
        self.state = state.resolve()
        self.name = f"lyra-{sha256_hex(os.fsencode(self.state))[:10]}"  # also of the control group
        self.lock = self.state / "sandbox.lock"
        self.directory = self.state / "sandbox"  # everything that outlives the engine's processes
        self.record = self.directory / "sandbox.json"
        self.config = self.directory / "config"  # the `DOCKER_CONFIG` directory with the plugins
        self.log = self.directory / "dockerd.log"
        self.runtime = Path("/run") / self.name  # short and plain: a socket's path is limited to 107 bytes
        self.socket = self.runtime / "docker.sock"
        self.engine = self.runtime / "engine"  # a link that PATH takes even if the cache's path has a colon
        self.owner = self.runtime / "state"  # a link by which the socket leads to its owner
        self.marker = self.runtime / "sandbox.json"  # the record again, where it is not lost with the state directory

    def data(self, suite: str, store: StoreKind) -> Path:
        """Return the data directory; engines of other suites and stores could not read it."""
        return self.directory / "data" / f"{suite}-{store}"


class SandboxRecord(BaseModel):
    """The content of `sandbox.json`: a started engine. `memory` is in bytes, `start_ticks` counts from boot."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    schema_version: Literal[1] = 1
    suite: str
    store: StoreKind
    pid: int = Field(gt=0, lt=1 << 31)
    start_ticks: int
    boot_id: str
    link: str
    address: str
    memory: int | None
    cpus: float | None


@dataclass(frozen=True)
class Sandbox:
    """A running private engine. Its published ports are reachable at `address`, from this machine only."""

    state: Path
    name: str
    suite: str
    store: StoreKind
    socket: Path
    address: str
    docker: Path
    config_dir: Path
    pid: int

    @property
    def blobs(self) -> Path | None:
        """The directory of the content of its images, each named by its digest; only a containerd store has one."""
        data = SandboxPaths(self.state).data(self.suite, self.store)
        return data / _CONTAINERD_BLOBS if self.store == "containerd" else None

    def environment(self) -> dict[str, str]:
        """Return the variables with which a Docker client uses this engine."""
        return {
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.config_dir),
            "PATH": f"{self.docker.parent}:{os.environ.get('PATH', os.defpath)}",
        }


def find_sandbox(state: Path) -> Sandbox | None:
    """Return the running engine of a state directory, or None, without contacting the engine."""
    paths = SandboxPaths(state)
    record = read_sandbox_record(paths)
    return to_sandbox(paths, record) if record and is_sandbox_process_alive(record) else None


def find_sandbox_at(host: str) -> Sandbox | None:
    """Return the running sandbox, of any project, behind a `DOCKER_HOST`; None for any other engine."""
    link = Path(host.removeprefix("unix://")).parent / "state"
    sandbox = find_sandbox(link.resolve()) if link.is_symlink() else None
    return sandbox if sandbox and host == f"unix://{sandbox.socket}" else None


def has_sandbox_data(state: Path) -> bool:
    """Return whether a sandbox, running or not, may have images and volumes."""
    return (SandboxPaths(state).directory / "data").is_dir()


def has_sandbox_record(state: Path) -> bool:
    """Return whether a sandbox was started and not stopped; it may have crashed."""
    return SandboxPaths(state).record.exists()


def read_engine_ids(state: Path) -> set[str]:
    """Return the ids of the engines that have data here; engines before 23.0 do not write theirs down."""
    return {
        path.read_text(errors="replace").strip()
        for path in (SandboxPaths(state).directory / "data").glob("*/engine-id")
    }


def count_data_directories(state: Path) -> int:
    """Return how many engines, running or not, have data here: one of each suite and store."""
    return sum(path.is_dir() for path in (SandboxPaths(state).directory / "data").glob("*"))


def run_in_sandbox_network(sandbox: Sandbox, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program of this machine in the network namespace of a sandbox and capture its output."""
    return run_captured(["nsenter", f"--net=/proc/{sandbox.pid}/ns/net", "--", *command])


def to_sandbox(paths: SandboxPaths, record: SandboxRecord) -> Sandbox:
    """Return the sandbox with this record."""
    return Sandbox(
        state=paths.state,
        name=paths.name,
        suite=record.suite,
        store=record.store,
        socket=paths.socket,
        address=record.address,
        docker=paths.engine / "cli" / "docker",
        config_dir=paths.config,
        pid=record.pid,
    )


def read_marker(paths: SandboxPaths) -> SandboxRecord | None:
    """Return the record in the runtime directory; None if it has none, or one of an older version."""
    try:
        return SandboxRecord.model_validate_json(paths.marker.read_bytes())
    except (OSError, ValidationError):
        return None


def read_sandbox_record(paths: SandboxPaths) -> SandboxRecord | None:
    """Return the record of a sandbox, running or not; None if it has none."""
    try:
        return SandboxRecord.model_validate_json(paths.record.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise PreconditionError(
            f"Cannot read the record of the private engine: {paths.record}",
            hint=f"Stop the processes of {paths.name}, delete the file and retry",
        ) from error


def answers_ping(path: Path, timeout_s: float) -> bool:
    """Return whether an engine answers a ping on a socket, since it accepts connections before it is ready."""
    with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
        connection.settimeout(timeout_s)
        connection.connect(str(path))
        connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return b" 200 " in connection.recv(64)
    return False


def write_sandbox_record(paths: SandboxPaths, record: SandboxRecord) -> None:
    """Replace the record and its copy in the runtime directory atomically and durably."""
    for path in (paths.record, paths.marker):
        write_file(path, (record.model_dump_json(indent=2) + "\n").encode(), mode=0o600)


def limit_log(state: Path) -> None:
    """Keep the end of a private engine's log only, once that is long: the engine may run for months."""
    log = SandboxPaths(state).log
    with suppress(OSError):
        if log.stat().st_size > _MAX_LOG_BYTES:
            with log.open("rb") as file:
                file.seek(-_KEPT_LOG_BYTES, os.SEEK_END)
                end = file.read()
            log.write_bytes(end)


def is_sandbox_process_alive(record: SandboxRecord) -> bool:
    """Return whether the recorded first process still exists; its id alone may have been reused."""
    return record.boot_id == read_boot_id() and read_start_ticks(record.pid) == record.start_ticks


def read_boot_id() -> str:
    """Return the kernel's id of this boot, "" on systems other than Linux."""
    return BOOT_ID_FILE.read_text().strip() if BOOT_ID_FILE.exists() else ""


def read_start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None for a zombie or if it does not exist."""
    fields = _read_stat(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def read_parent_pid(pid: int) -> int | None:
    """Return the id of a process's parent; None if the process does not exist."""
    fields = _read_stat(pid)
    return int(fields[1]) if fields else None


def _read_stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The second field is the command name in parentheses, which may contain blanks and parentheses.
    return text.rpartition(")")[2].split()
