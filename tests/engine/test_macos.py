"""A client on macOS, as far as Linux can show it: without the names and the file systems that only Linux has."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from tests.conftest import Outcome, Project

LINUX_NAMES = """
import fcntl, os, select, signal
NAMES = {
    os: (
        "copy_file_range eventfd fdatasync getrandom getresgid getresuid getxattr listxattr memfd_create pidfd_open"
        " pipe2 posix_fadvise posix_fallocate removexattr sched_getaffinity sched_setaffinity setns setresgid"
        " setresuid setxattr splice unshare O_DIRECT O_LARGEFILE O_NOATIME O_PATH O_RSYNC O_TMPFILE SCHED_BATCH"
    ),
    fcntl: "F_ADD_SEALS F_GETPIPE_SZ F_OFD_GETLK F_OFD_SETLK F_OFD_SETLKW F_SETPIPE_SZ",
    select: "epoll EPOLLIN",
    signal: "pidfd_send_signal sigtimedwait sigwaitinfo SIGPWR SIGSTKFLT SIGRTMIN SIGRTMAX",
}
for module, names in NAMES.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
"""


@pytest.fixture
def run_on_macos(tiny: Project, box: sandbox.Sandbox, tmp_path: Path) -> Callable[..., Outcome]:
    """Return a function that runs the program, with an engine behind a socket like that of Docker Desktop.

    The program is where the engine's published ports are, since Docker Desktop forwards them to the loopback interface.
    """
    (tmp_path / "macos").mkdir()
    (tmp_path / "macos" / "sitecustomize.py").write_text(LINUX_NAMES)
    (tmp_path / "docker.sock").symlink_to(box.socket)
    environment = {
        **tiny.environment,
        "DOCKER_HOST": f"unix://{tmp_path}/docker.sock",
        "PYTHONPATH": f"{tmp_path / 'macos'}:{tiny.environment['PYTHONPATH']}",
        "PATH": f"{box.docker.parent}:{tiny.environment['PATH']}",
        "DOCKER_CONFIG": str(box.config_dir),
    }
    hide = 'mount -t tmpfs none /sys; mount -t tmpfs none /proc; exec "$@"'
    surroundings = ["nsenter", f"--net=/proc/{box.pid}/ns/net", "unshare", "--mount", "sh", "-c", hide, "sh"]

    def run(*arguments: str) -> Outcome:
        command = [*surroundings, *tiny.command(*arguments)]
        result = subprocess.run(
            command, cwd=tiny.root, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        return Outcome(result.returncode, result.stdout, result.stderr)

    return run


def test_workflow_needs_nothing_that_only_linux_has(run_on_macos: Callable[..., Outcome], tiny: Project) -> None:
    line = ("status", "doctor", "build", "test", "promote", "verify", "create", "engine.status", "engine.down")
    outcome = run_on_macos(*line)
    assert outcome.code == 0, outcome.text
    assert len(tiny.bundles()) == 1
    cleanup = run_on_macos("clean")
    assert cleanup.code == 0, cleanup.text
    assert "not visible on this system: processes, mounts, network interfaces" in cleanup.out
    report = next((tiny.root / ".lyra" / "runs").glob("*/cleanup.json"))
    assert json.loads(report.read_text())["after"]["not_seen"] == ["processes", "mounts", "network interfaces"]
