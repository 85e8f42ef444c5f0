"""Programs from Debian packages, unpacked without installing them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lyra_tasks.digests import sha256_hex
from lyra_tasks.engine.debian.mirror import host_codename
from lyra_tasks.engine.debian.packages import AptWorkspace, unpack_debs
from lyra_tasks.locks import file_lock


def unpacked(cache: Path, *names: str, suite: str = "") -> Path:
    """Return a directory with the packages of `suite` (default: this machine's release), which is only to be read.

    It is kept in the user's cache: once it is there, neither the mirror nor apt is asked.
    """
    suite = suite or host_codename()
    specifiers = [f"{name}/{suite}" for name in names]
    kept = cache / "tests" / "unpacked" / f"{names[0]}-{sha256_hex(' '.join(specifiers).encode())[:16]}"
    with file_lock(kept.with_name(f"{kept.name}.lock"), resource="unpacked packages", timeout=600):
        if not kept.exists():
            workspace = AptWorkspace(cache / "tests" / "apt", (suite,))
            workspace.update()
            with tempfile.TemporaryDirectory(dir=kept.parent) as temporary:
                debs = workspace.download(specifiers, Path(temporary, "debs"), lambda _: None)
                unpack_debs(debs, Path(temporary, "root"))
                Path(temporary, "root").rename(kept)
    return kept
