"""Odd surroundings of a run: it works, or says in a line what is missing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Outcome, Project
from tests.thorough import keep

READ_ONLY = "mount --bind . /mnt && mount -o remount,ro,bind /mnt && cd /mnt"
WORKING = {
    "no temporary directory": "export TMPDIR=/nonexistent",
    "read-only temporary directory": "mkdir -m 755 /mnt/t; mount -t tmpfs -o ro x /mnt; export TMPDIR=/mnt",
    "no home": "unset HOME",
    "missing home": "export HOME=/nonexistent",
    "few open files": "ulimit -n 64",
}
POOR = ("no temporary directory", "missing home", "few open files")
READ_ONLY_AND_POOR = ("read-only temporary directory", "no home", "few open files")
FAILING = {
    "very few open files": ("ulimit -n 12", "Too many open files"),
    "read-only project": (READ_ONLY, "Read-only file system"),
}


def run_in(project: Project, preparation: str, *arguments: str) -> Outcome:
    """Run the program in a mount namespace of its own, after a shell command."""
    command = ["unshare", "--mount", "sh", "-c", f'{preparation}; exec "$@"', "sh", *project.command(*arguments)]
    result = subprocess.run(
        command, cwd=project.root, env=project.environment, capture_output=True, text=True, check=False
    )
    return Outcome(result.returncode, result.stdout, result.stderr)


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    project = make_tiny()
    yield project
    project.clean()


@pytest.mark.parametrize("names", keep(2, [POOR, READ_ONLY_AND_POOR, *((name,) for name in WORKING)]), ids=" and ".join)
def test_odd_surroundings_are_enough(project: Project, names: Sequence[str]) -> None:
    page = project.root / "app" / "www" / "index.html"
    page.write_text(f"{page.read_text()}<!-- {names} -->\n")
    result = run_in(project, "; ".join(WORKING[name] for name in names), "build", "test")
    assert result.code == 0, result.text
    assert "4 of 4 checks passed" in result.out and "(cached)" not in result.out
    assert "Traceback" not in result.err


@pytest.mark.parametrize("name", FAILING)
def test_missing_surroundings_are_named(project: Project, name: str) -> None:
    preparation, message = FAILING[name]
    result = run_in(project, preparation, "build", "test")
    assert result.code == 3, result.text
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
