"""A private Docker engine for one project, made of Debian packages: nothing is installed, `down` leaves nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from lyra_tasks.engine.sandbox.layout import Sandbox, Store, find, places_of
from lyra_tasks.engine.sandbox.start import up
from lyra_tasks.engine.sandbox.stop import DownReport, down
from lyra_tasks.errors import ResidueError

__all__ = [
    "DownReport",
    "Sandbox",
    "Store",
    "behind",
    "down",
    "engine_ids",
    "exec_in_network",
    "find",
    "has_data",
    "is_recorded",
    "require_nothing_left",
    "up",
]


def has_data(state: Path) -> bool:
    """Whether an engine of this state folder, running or not, may hold images and volumes."""
    return (places_of(state).folder / "data").is_dir()


def engine_ids(state: Path) -> set[str]:
    """The ids of the engines whose data there is, as far as they are written down: from Engine 23.0 on."""
    return {path.read_text().strip() for path in (places_of(state).folder / "data").glob("*/engine-id")}


def is_recorded(state: Path) -> bool:
    """Whether an engine of this state folder was started and never ended in order; it may be running."""
    return places_of(state).record.exists()


def behind(host: str) -> Sandbox | None:
    """The running sandbox that a `DOCKER_HOST` leads to, also another project's; None for any other engine."""
    link = Path(host.removeprefix("unix://")).parent / "state"
    found = find(link.resolve()) if link.is_symlink() else None
    return found if found and host == f"unix://{found.socket}" else None


def require_nothing_left(report: DownReport) -> None:
    """ResidueError naming what `down` could not take away."""
    if report.left:
        raise ResidueError(
            f"{len(report.left)} thing(s) of the sandbox engine are left",
            hint="remove them by hand",
            details=report.left,
        )


def exec_in_network(sandbox: Sandbox, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program of this machine where the sandbox's 127.0.0.1 is; its output is in the result."""
    command = ["nsenter", f"--net=/proc/{sandbox.pid}/ns/net", "--", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False)
