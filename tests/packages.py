"""Programs out of Debian packages, unpacked and not installed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lyra_tasks.engine.debian.mirror import host_codename
from lyra_tasks.engine.debian.packages import AptWorkspace, unpack_debs


def unpacked(into: Path, cache: Path, *names: str, suite: str = "", packages: Path | None = None) -> Path:
    """`into`, where what these packages hold lies as below the root; of this machine's release, or of `suite`.

    The packages themselves stay in the folder `packages`, if one is named, and need not be downloaded again.
    """
    suite = suite or host_codename()
    workspace = AptWorkspace(cache / "tests" / "apt", (suite,))
    workspace.update()
    with tempfile.TemporaryDirectory() as folder:
        wanted = [f"{name}/{suite}" for name in names]
        unpack_debs(workspace.download(wanted, packages or Path(folder), lambda _: None), into)
    return into
