"""Every fault that is foreseen, as one tree: message, hint and exit code.

A `LyraError` is raised where the cause is known, says what happened and what to do, and is shown once by `tasks/`.
Nothing in a message may come from a secret, an argument list of a foreign program, or an environment value.
"""

from __future__ import annotations

import errno


class LyraError(Exception):
    """A foreseen fault: `message` says what happened, `hint` what to do, `details` are further lines (a log's end)."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details


class ConfigurationError(LyraError):
    """`.lyra.toml`, the lock or another file the user wrote is not what it must be; `details` lists every problem."""

    exit_code = 2


class UsageError(LyraError):
    """The command line asks for something that does not exist or does not go together."""

    exit_code = 2


class PreconditionError(LyraError):
    """Something that must be there first is not: an engine, a tool, a git state, room on a disk, a lock."""

    exit_code = 3


class EngineUnavailableError(PreconditionError):
    """No Docker engine answers, or the one that does must not be used."""


class StaleError(PreconditionError):
    """What was built or tested is older than what it was made from."""


class OvercommitError(PreconditionError):
    """The limits asked for do not fit into what the host may give (R10)."""


class LockedError(PreconditionError):
    """Another process holds what is needed."""


class NoSpaceError(PreconditionError):
    """A disk is full, or would be."""


class BuildError(LyraError):
    """An image could not be built."""

    exit_code = 4


class CheckFailedError(LyraError):
    """A check or a rule failed, or a deviation has expired."""

    exit_code = 5


class BundleError(LyraError):
    """A bundle is corrupt or refused."""

    exit_code = 6


class ImmutableError(BundleError):
    """The version exists already, with other digests."""


class LeftoverError(LyraError):
    """Something of ours is left after cleaning."""

    exit_code = 7


class InterruptedRunError(LyraError):
    """The user, or the system, ended the run."""

    exit_code = 130


_PATH_CONFLICT_ERRNOS = {errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR}


def is_disk_full(error: OSError) -> bool:
    """Whether a system error says that there is no room left, on the disk or for this user."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def from_os_error(error: OSError, path: str) -> PreconditionError | None:
    """The fault behind a system error that is none of ours: no room, no right, read-only, something in the way.

    None for every other. `place` stands in where the error does not say which file it is about.
    """
    path = error.filename or path
    if is_disk_full(error):
        return NoSpaceError(f"no space left to write {path}", hint="free space there, then run the same word again")
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return PreconditionError(
            f"{path}: {error.strerror}", hint="give yourself the right to it, or the folder to its owner"
        )
    if error.errno in _PATH_CONFLICT_ERRNOS:
        return PreconditionError(f"{path}: {error.strerror}", hint="move aside what is there, or name another folder")
    return None
