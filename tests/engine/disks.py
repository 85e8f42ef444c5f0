"""Small disks that tests fill."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[None]:
    """Mount a small tmpfs on a directory, which hides its files meanwhile."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def fill(directory: Path, free: int) -> Path:
    """Fill the file system of `directory` except for `free` bytes."""
    filler = directory / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(directory).free - free))
    return filler
