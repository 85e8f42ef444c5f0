"""The Dockerfile as hadolint sees it, where that is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from lyra_tasks.errors import PreconditionError
from lyra_tasks.rules import catalogue
from lyra_tasks.rules.breach import Look

_TIMEOUT = 30.0  # seconds
_TOLD = {"error", "warning"}


def hadolint() -> str | None:
    """The program: beside this Python, as the extra `lint` installs it, or on PATH."""
    beside = Path(sys.executable).with_name("hadolint")
    return str(beside) if beside.is_file() else shutil.which("hadolint")


def lint_look(name: str, dockerfile: Path, root: Path) -> Look:
    """What hadolint says of a Dockerfile; its own `.hadolint.yaml` in `root` holds.

    PreconditionError if it is installed and cannot be run.
    """
    scope = f"images.{name}"
    program = hadolint()
    if program is None:
        return Look(catalogue.DOCKERFILE, scope, skipped="hadolint is not installed")
    shown = dockerfile.relative_to(root) if dockerfile.is_relative_to(root) else dockerfile
    command = [program, "--no-fail", "--format", "json", str(dockerfile)]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, check=True, timeout=_TIMEOUT, stdin=subprocess.DEVNULL
        )
        found = json.loads(done.stdout or b"[]")
        said = tuple(
            f"{shown}:{each['line']}: {each['code']}: {each['message']}" for each in found if each["level"] in _TOLD
        )
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        lines = (getattr(error, "stderr", None) or b"").decode(errors="replace").splitlines()
        raise PreconditionError(
            f"hadolint could not read {shown}", hint="mend it, or take it off PATH", details=tuple(lines[-5:])
        ) from error
    return Look(catalogue.DOCKERFILE, scope, said)
