"""What a release was asked to be and to do, from the options of the word."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from semver import Version

from lyra_tasks.errors import UsageError

Part = Literal["major", "minor", "patch"]
BUMPS = (*get_args(Part), "auto")


@dataclass(frozen=True)
class Wanted:
    """How far to go (`bump`), a pre-release of what (`pre`), or the very `version`; and what to do beside the tag.

    `push` pushes the tag; `changelog` is a file, relative to the project, that gets the changes; empty for none.
    """

    bump: str = "auto"
    pre: str = ""
    version: str = ""
    push: bool = False
    changelog: str = ""


def wanted(root: Path, *, bump: str, pre: str, version: str, push: bool, changelog: str) -> Wanted:
    """What the options ask for; UsageError where they make no sense."""
    if version and (bump or pre):
        raise UsageError("--version says it all; --bump and --pre do not go with it", hint="leave one of them out")
    if bump and bump not in BUMPS:
        raise UsageError(f"--bump takes {', '.join(BUMPS)}, not {bump!r}", hint="for example --bump minor")
    if version and not (version.isascii() and Version.is_valid(version)):
        raise UsageError(
            f"{version!r} is not a semantic version", hint="MAJOR.MINOR.PATCH, such as 1.4.0 or 1.4.0-rc.1, without a v"
        )
    if pre and not (pre.isascii() and Version.is_valid(f"1.0.0-{pre}.1")):
        raise UsageError(f"{pre!r} cannot be part of a version", hint="letters, digits and hyphens, such as --pre rc")
    return Wanted(bump or "auto", pre, version, push, _inside(root, changelog) if changelog else "")


def _inside(root: Path, file: str) -> str:
    path = Path(os.path.normpath(root / file))
    inside = path.is_relative_to(root) and path.parent.resolve().is_relative_to(root.resolve())
    if not inside or path == root or path.is_dir():
        raise UsageError(f"--changelog {file} is not a file of the project", hint=f"a path below {root}")
    if path.is_symlink():
        raise UsageError(f"--changelog {file} is a link", hint="name the file that it leads to")
    return str(path.relative_to(root))
