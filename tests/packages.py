"""Programs from Debian packages, unpacked without installing them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lyra_tasks.engine.debian.mirror import host_codename
from lyra_tasks.engine.debian.packages import AptWorkspace, unpack_debs


def unpacked(into: Path, cache: Path, *names: str, suite: str = "", packages: Path | None = None) -> Path:
    """Unpack packages of `suite` (default: this machine's release) into a directory, and return it.

    The packages are kept in the directory `packages`, if given, so that they need not be downloaded again.
    """
    suite = suite or host_codename()
    workspace = AptWorkspace(cache / "tests" / "apt", (suite,))
    workspace.update()
    with tempfile.TemporaryDirectory() as temporary:
        specifiers = [f"{name}/{suite}" for name in names]
        unpack_debs(workspace.download(specifiers, packages or Path(temporary), lambda _: None), into)
    return into
