"""Odd surroundings of a run: it works, or says in a line what is missing."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Outcome, Project

READ_ONLY = "mount --bind . /mnt && mount -o remount,ro,bind /mnt && cd /mnt"
SURROUNDINGS = {
    "no temporary directory": ("export TMPDIR=/nonexistent", 0, ""),
    "read-only temporary directory": ("mkdir -m 755 /mnt/t; mount -t tmpfs -o ro x /mnt; export TMPDIR=/mnt", 0, ""),
    "no home": ("unset HOME", 0, ""),
    "missing home": ("export HOME=/nonexistent", 0, ""),
    "few open files": ("ulimit -n 64", 0, ""),
    "very few open files": ("ulimit -n 12", 3, "Too many open files"),
    "read-only project": (READ_ONLY, 3, "Read-only file system"),
}


def run_in(project: Project, preparation: str, *arguments: str) -> Outcome:
    """Run the program in a mount namespace of its own, after a shell command."""
    command = ["unshare", "--mount", "sh", "-c", f'{preparation}; exec "$@"', "sh", *project.command(*arguments)]
    result = subprocess.run(
        command, cwd=project.root, env=project.environment, capture_output=True, text=True, check=False
    )
    return Outcome(result.returncode, result.stdout, result.stderr)


@pytest.mark.parametrize("name", list(SURROUNDINGS))
def test_odd_surroundings_end_in_a_documented_way(tiny: Project, name: str) -> None:
    preparation, code, message = SURROUNDINGS[name]
    result = run_in(tiny, preparation, "build", "test")
    assert result.code == code, result.text
    assert message in result.err
    assert "Traceback" not in result.err


CHROOT = """mount --rbind / /mnt && set -- chroot /mnt sh -c 'cd "$0" && exec "$@"' "$PWD" "$@\""""


def test_private_engine_is_refused_in_chroot(lonely: Project, tmp_path: Path) -> None:
    project = replace(lonely, environment={**lonely.environment, "DOCKER_CONFIG": str(tmp_path)})
    up = run_in(project, CHROOT, "engine.up")
    assert up.code == 3, up.text
    assert "cannot run in a chroot" in up.err
    project.replace(".lyra.toml", "[images.web]", '[engine]\nsandbox = "always"\n\n[images.web]')
    doctor = run_in(project, CHROOT, "doctor", "--json")
    sandbox, *_ = [item for item in json.loads(doctor.out) if item["subject"] == "sandbox"]  # others: stray engines
    assert sandbox["state"] == "error"
    assert "this is a chroot" in sandbox["message"]
