"""Write files atomically and durably, and walk directories without missing any."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from lyra_tasks import console
from lyra_tasks.errors import disk_full_error, is_disk_full

STAGING_PREFIX = ".staging-"
"""Prefix of the name of a directory that is still incomplete."""
_DAY_S = 24 * 3600
_umask_lock = threading.Lock()
_umask_users = 0
_original_umask = 0
_SURROGATE = re.compile("[\ud800-\udfff]")
_NEEDS_ESCAPE = re.compile(r"[\ud800-\udfff]|\\x[89a-f][0-9a-f]")


@contextmanager
def standard_umask() -> Iterator[None]:
    """Give what is created in the block the usual modes (0755, 0644), whatever umask the user has.

    Bundles, logs and records are read by others than their writer, and never written by them. The umask is that of the
    whole process: blocks in several threads share it until the last one ends.
    """
    global _umask_users, _original_umask
    with _umask_lock:
        if not _umask_users:
            _original_umask = os.umask(0o022)
        _umask_users += 1
    try:
        yield
    finally:
        with _umask_lock:
            _umask_users -= 1
            if not _umask_users:
                os.umask(_original_umask)


def write_file(path: Path, data: bytes, mode: int = 0o644, *, new: bool = False) -> None:
    """Replace `path` by `data`, atomically and durably: temporary sibling, fsync, rename, fsync of the directory.

    With `new`, raise FileExistsError if `path` exists by then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            with suppress(PermissionError):  # FAT has no modes, and refuses those that it cannot store
                os.fchmod(file.fileno(), mode)
            sync_to_disk(file.fileno())
        if new:
            _link_into_place(Path(temporary), path)
        else:
            Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and is_disk_full(error):
            raise disk_full_error(path) from error
        raise
    sync_directory(path.parent)


def _link_into_place(temporary: Path, path: Path) -> None:
    """Give a file its final name; raise FileExistsError if that exists, which a rename alone would not detect."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:  # FAT has no hard links
        if path.exists():
            raise FileExistsError(path) from None
        temporary.rename(path)
    else:
        temporary.unlink()


def link_or_copy(source: Path, target: Path) -> None:
    """Replace `target` by a link to a file that is never changed, or by a copy where links are not possible.

    A copy that fails, such as on a full disk, leaves nothing.
    """
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        try:
            shutil.copyfile(source, target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def measure_size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a directory; what cannot be read counts for nothing."""
    if not path.is_dir():
        with suppress(OSError):
            return path.lstat().st_size
        return 0
    size, directories = 0, [str(path)]
    while directories:
        with suppress(OSError), os.scandir(directories.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
                else:
                    with suppress(OSError):  # removed meanwhile
                        size += entry.stat(follow_symlinks=False).st_size
    return size


def mark_used(path: Path) -> None:
    """Note in a cached file's time of change that it was used, once a day."""
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > _DAY_S:
            os.utime(path)


def escape_name(name: str) -> str:
    r"""Return a file name as text: bytes that are not UTF-8 become `\xHH`.

    No two names become the same text: where a name has such a byte, or looks as if it had, its backslashes are doubled.
    """
    if not _NEEDS_ESCAPE.search(name):
        return name
    return escape_surrogates(name.replace("\\", "\\\\"))


def escape_surrogates(text: str) -> str:
    r"""Return a text in which bytes that were not UTF-8 became `\xHH`, so that it can be written to a file."""
    return _SURROGATE.sub(lambda match: _format_surrogate(ord(match[0])), text)


def _format_surrogate(code: int) -> str:
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def format_json(value: Any) -> str:
    """Return `value` as a JSON document that people read: indented, sorted keys, with a final newline."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return _SURROGATE.sub(lambda match: f"\\{_format_surrogate(ord(match[0]))}", text)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as a JSON document, atomically and durably."""
    write_file(path, format_json(value).encode())


def copy_directory(source: Path, target: Path, copy: Callable[[Path, Path], object] = shutil.copyfile) -> None:
    """Copy a directory of regular files with `copy`, if it exists.

    `shutil.copytree` would collect errors in one that hides a full disk.
    """
    for directory, _, filenames in walk_directory(source) if source.exists() else ():
        destination = target / directory.relative_to(source)
        destination.mkdir(parents=True, exist_ok=True)
        for filename in filenames:
            copy(directory / filename, destination / filename)


def walk_directory(top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield every directory from `top` down, with the names of its subdirectories and files.

    `os.walk` skips a directory that it cannot read as if it were empty, which raises here.
    """
    for directory, subdirectories, filenames in os.walk(top, onerror=_raise):
        yield Path(directory), subdirectories, filenames


def _raise(error: OSError) -> None:
    raise error


def sync_to_disk(fd: int, *, times_matter: bool = True) -> None:
    """Flush a file or directory to disk, by a cheaper call if its times do not matter; warn once where that fails."""
    # macOS has no fdatasync
    sync_function = os.fsync if times_matter else getattr(os, "fdatasync", os.fsync)
    try:
        sync_function(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
            raise
        _warn_not_synced()


@cache
def _warn_not_synced() -> None:
    console.warn("A file system does not support fsync: recent files may be lost in a power failure")


def sync_file(path: Path) -> None:
    """Flush a file to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        sync_to_disk(fd)
    finally:
        os.close(fd)


def sync_directory(directory: Path) -> None:
    """Flush the entries of a directory to disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_to_disk(fd)
    finally:
        os.close(fd)


def quote_path(path: Path) -> str:
    """Return a path for a command that is pasted into a shell, as `display_path` names it, and never as an option."""
    text = display_path(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def display_path(path: Path) -> str:
    """Return a path as messages name it: relative to the working directory where that is shorter."""
    try:
        relative = os.path.relpath(path)
    except FileNotFoundError:
        return console.escape(path)
    return console.escape(min(relative, str(path), key=len))
