"""Errors that Lyra foresees, as one tree: message, hint and exit code.

A `LyraError` is raised where the cause is known and shown once by `tasks/`. Its message must never contain a secret,
the arguments of another program or an environment value.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lyra_tasks.console.text import escape, sanitize


class LyraError(Exception):
    """A foreseen error: `message` says what happened, `hint` what to do, `details` are further lines (a log's end).

    File names, answers and values of others may stand in all of them: the message is one line, and what a terminal
    would obey is a visible escape, wherever the error is shown or recorded.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", details: tuple[str, ...] = ()) -> None:
        self.message = escape(message)
        self.hint = sanitize(hint)
        self.details = tuple(map(sanitize, details))
        super().__init__(self.message)


class ConfigurationError(LyraError):
    """`.lyra.toml`, the lock file or another file of the user is invalid; `details` lists every problem."""

    exit_code = 2


class UsageError(LyraError):
    """The command line names something unknown, or combines options that exclude each other."""

    exit_code = 2


class PreconditionError(LyraError):
    """Something required is missing: an engine, a tool, a git state, disk space, a lock."""

    exit_code = 3


class EngineUnavailableError(PreconditionError):
    """No Docker engine answers, or the one that answers must not be used."""


class StaleError(PreconditionError):
    """A build or test result is older than its inputs."""


class OvercommitError(PreconditionError):
    """The requested limits exceed the capacity of the host (R10)."""


class LockedError(PreconditionError):
    """Another process holds a lock."""


class NoSpaceError(PreconditionError):
    """A disk is full, or would be."""


class BuildError(LyraError):
    """An image could not be built."""

    exit_code = 4


class CheckFailedError(LyraError):
    """A check or a rule failed, or a deviation has expired."""

    exit_code = 5


class BundleError(LyraError):
    """A bundle is corrupt or rejected."""

    exit_code = 6


class ImmutableError(BundleError):
    """The version exists already, with other digests."""


class LeftoverError(LyraError):
    """Objects remain after a cleanup."""

    exit_code = 7


class InterruptedRunError(LyraError):
    """The user or the system interrupted the run."""

    exit_code = 130


_DEVICE_ERRNOS = {errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ENOTCONN}
_PATH_CONFLICT_ERRNOS = {errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR}


@contextmanager
def name_unreadable_file(path: Path | str) -> Iterator[None]:
    """Let OSErrors in the block, which only reads a file, name it; of the system's calls, only `open` does."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def is_disk_full(error: OSError) -> bool:
    """Return whether a disk, or the user's quota on it, is full."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def disk_full_error(path: object) -> NoSpaceError:
    """Return the error for a file that a full disk does not take."""
    return NoSpaceError(f"Cannot write {path}: no space left on device", hint="Free some space and rerun the command")


def from_os_error(error: OSError, path: str) -> PreconditionError | None:
    """Convert an OSError (disk full or failing, permission, path conflict, …) to a PreconditionError, or return None.

    `path` is used where the error does not name a file.
    """
    if error.errno in _DEVICE_ERRNOS:
        return PreconditionError(
            f"A disk or medium fails{f' at {error.filename}' if error.filename else ''}: {error.strerror}",
            hint="Check it and its connection, and run the command again",
        )
    path = error.filename or path
    if is_disk_full(error):
        return disk_full_error(path)
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return PreconditionError(f"{path}: {error.strerror}", hint="Make it writable, or give it to its user")
    if error.errno == errno.EBADF:
        return PreconditionError(f"Cannot write {path}: it is closed", hint="Redirect it, for example to a file")
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return PreconditionError("Too many open files", hint="Raise the limit, for example with `ulimit -n 1024`")
    if error.errno in _PATH_CONFLICT_ERRNOS:
        return PreconditionError(
            f"{path}: {error.strerror}", hint="Move the existing file, or choose another directory"
        )
    return None
