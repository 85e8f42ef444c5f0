"""A private Docker engine for one project, made of Debian packages: nothing is installed, `down` leaves nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from lyra_tasks.engine.sandbox.layout import Sandbox, StoreKind, find_sandbox, sandbox_paths
from lyra_tasks.engine.sandbox.start import launch_sandbox
from lyra_tasks.engine.sandbox.stop import StopReport, shut_down_sandbox
from lyra_tasks.errors import LeftoverError

__all__ = [
    "StopReport",
    "Sandbox",
    "StoreKind",
    "find_sandbox_at",
    "shut_down_sandbox",
    "read_engine_ids",
    "run_in_sandbox_network",
    "find_sandbox",
    "has_sandbox_data",
    "has_sandbox_record",
    "require_clean_stop",
    "launch_sandbox",
]


def has_sandbox_data(state: Path) -> bool:
    """Whether an engine of this state folder, running or not, may hold images and volumes."""
    return (sandbox_paths(state).directory / "data").is_dir()


def read_engine_ids(state: Path) -> set[str]:
    """The ids of the engines whose data there is, as far as they are written down: from Engine 23.0 on."""
    return {path.read_text().strip() for path in (sandbox_paths(state).directory / "data").glob("*/engine-id")}


def has_sandbox_record(state: Path) -> bool:
    """Whether an engine of this state folder was started and never ended in order; it may be running."""
    return sandbox_paths(state).record.exists()


def find_sandbox_at(host: str) -> Sandbox | None:
    """The running sandbox that a `DOCKER_HOST` leads to, also another project's; None for any other engine."""
    link = Path(host.removeprefix("unix://")).parent / "state"
    sandbox = find_sandbox(link.resolve()) if link.is_symlink() else None
    return sandbox if sandbox and host == f"unix://{sandbox.socket}" else None


def require_clean_stop(report: StopReport) -> None:
    """ResidueError naming what `down` could not take away."""
    if report.leftovers:
        raise LeftoverError(
            f"{len(report.leftovers)} thing(s) of the sandbox engine are left",
            hint="remove them by hand",
            details=report.leftovers,
        )


def run_in_sandbox_network(sandbox: Sandbox, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program of this machine where the sandbox's 127.0.0.1 is; its output is in the result."""
    command = ["nsenter", f"--net=/proc/{sandbox.pid}/ns/net", "--", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False)
