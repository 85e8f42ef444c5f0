"""User namespaces, in which packages are set up without root."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from lyra_tasks.errors import PreconditionError
from lyra_tasks.processes import run_captured

_SUBORDINATE_ID_FILES = (Path("/etc/subuid"), Path("/etc/subgid"))
_OTHER_WAYS = "run this command with `sudo -E`, or set `image` or `archive` for the base"


def require_user_namespaces() -> None:
    """Raise PreconditionError if this user cannot set up packages in a user namespace."""
    if shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
        raise _error("newuidmap is not installed", "Run `sudo apt-get install uidmap`")
    user = _find_name()
    if not all(_has_range(file, user) for file in _SUBORDINATE_ID_FILES):
        fix = f"Run `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user or 'USER'}`"
        raise _error("/etc/subuid and /etc/subgid have no range for this user", fix)
    if run_captured(["unshare", "--user", "true"]).returncode:
        fix = "Permit them (sysctl kernel.unprivileged_userns_clone), leave the chroot if this is one"
        raise _error("the kernel permits no user namespaces", fix)


def _error(reason: str, fix: str) -> PreconditionError:
    return PreconditionError(
        f"Cannot build a root file system from packages as a user other than root: {reason}",
        hint=f"{fix}, {_OTHER_WAYS}",
    )


def _find_name() -> str:
    """Return the name of this user, "" for one without an entry in passwd."""
    import pwd

    with suppress(KeyError):
        return pwd.getpwuid(os.geteuid()).pw_name
    return ""


def _has_range(file: Path, user: str) -> bool:
    with suppress(OSError):
        return any(
            line.partition(":")[0] in {user, str(os.geteuid())} for line in file.read_text().splitlines() if user
        )
    return False
