"""Files that a run makes for itself and takes away, and that only one which was killed leaves behind."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from lyra_tasks.files import STAGING
from lyra_tasks.run import Paths

_ASIDE = re.compile(r"\..+\.[a-z0-9_]{8}")  # as files.write_file names what it has not renamed yet


def temporary_files(paths: Paths, bundles: Path) -> list[Path]:
    """Bundles that were not finished, secrets placed for old engines, files that were not renamed into place."""
    found = [*bundles.glob(f"{STAGING}*"), *paths.runs.glob("*/mounts"), *_aside(paths.state), *_aside(bundles)]
    return sorted(found)


def remove(files: Iterable[Path]) -> None:
    """Delete them; what cannot be deleted is found again by the next look."""
    for path in files:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _aside(folder: Path) -> Iterator[Path]:
    """Of a folder and those directly below it; an engine's own data is none of them."""
    for pattern in ("*", "*/*"):
        for path in folder.glob(pattern):
            if _ASIDE.fullmatch(path.name) and path.parent.name != "sandbox" and path.is_file():
                yield path
