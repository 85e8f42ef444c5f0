"""Writing what was planned: the configuration only after Lyra's own loader has taken it, nothing over what is there."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from lyra_tasks.config.find import shown
from lyra_tasks.config.load import load_file
from lyra_tasks.errors import ConfigurationError, LyraError, PreconditionError
from lyra_tasks.files import sync, sync_folder, write_file
from lyra_tasks.setup.facts import CONFIGURATION
from lyra_tasks.setup.plan import InitPlan, PlannedFile


def run(planned: InitPlan, root: Path) -> tuple[str, ...]:
    """Write the files of a plan; returns their paths. With a configuration there already, nothing is written.

    A configuration that the loader refuses is not written, and what was added to ignore files is taken back.
    """
    if planned.configured:
        return ()
    before: dict[Path, bytes | None] = {}
    try:
        for file in sorted(planned.files, key=lambda each: each.path == CONFIGURATION):
            if file.adds:
                path = (root / file.path).resolve()  # a link stays one
                before[path] = path.read_bytes() if path.exists() else None
                _rewrite(path, _lengthened(before[path] or b"", file.text))
            else:
                _write_new(root / file.path, file, check=file.path == CONFIGURATION)
                before[root / file.path] = None
    except (LyraError, OSError):
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                _rewrite(path, content)
        raise
    return tuple(file.path for file in planned.files)


def _lengthened(before: bytes, text: str) -> bytes:
    """What was there, byte for byte, and `text` behind it, its lines ended as the others are."""
    end = b"\r\n" if b"\r\n" in before else b"\n"
    gap = b"" if not before or before.endswith(b"\n") else end
    return before + gap + text.encode().replace(b"\n", end)


def _rewrite(path: Path, content: bytes) -> None:
    write_file(path, content, stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644)


def _write_new(path: Path, file: PlannedFile, *, check: bool) -> None:
    """Write a file that must not be there, whole or not at all; the loader sees it before its name is taken."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".lyra-init.", suffix=path.suffix)
    candidate = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(file.text.encode())
            stream.flush()
            with suppress(PermissionError):  # FAT has no modes of its own
                os.fchmod(stream.fileno(), 0o644)
            sync(stream.fileno())
        if check:
            _check(candidate)
        _name(path, candidate)
    except FileExistsError as error:
        raise PreconditionError(f"{path} is there by now", hint="nothing was written; look at it first") from error
    finally:
        candidate.unlink(missing_ok=True)
    sync_folder(path.parent)


def _name(path: Path, candidate: Path) -> None:
    """Give the file its name; FileExistsError where someone else was faster, which a rename alone would not see."""
    try:
        path.hardlink_to(candidate)
    except FileExistsError:
        raise
    except OSError:  # FAT knows one name per file
        if path.exists():
            raise FileExistsError(path) from None
        candidate.rename(path)


def _check(candidate: Path) -> None:
    try:
        load_file(candidate)
    except ConfigurationError as error:
        raise ConfigurationError(
            "what init would write is not a valid configuration, so nothing was written",
            hint="write .lyra.toml by hand; `init --dry-run` prints what it would have been",
            details=tuple(each.replace(shown(candidate), CONFIGURATION) for each in error.details or (error.message,)),
        ) from error
