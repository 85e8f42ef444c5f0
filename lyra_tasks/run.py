"""Where a run keeps its things: paths of a project, the run id, locks that the operating system frees."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.errors import LockedError, PreconditionError

_BEGAN = "%Y%m%dt%H%M%S"  # the first half of a run id


@dataclass(frozen=True)
class Paths:
    """The folders of one checkout: `root` (with `.lyra.toml`), `work` (`.lyra/`), `state` and `cache` (shared)."""

    root: Path
    work: Path
    state: Path
    cache: Path
    project_id: str

    @property
    def runs(self) -> Path:
        """One folder per run: logs, metrics, results, the generated build definition."""
        return self.work / "runs"

    @property
    def journal(self) -> Path:
        """The append-only, hash-chained journal."""
        return self.state / "journal.jsonl"

    @property
    def live(self) -> Path:
        """One lock per run that is going on."""
        return live_folder(self.state)

    def run_folder(self, run_id: str, *, keep: int) -> Path:
        """Make the folder of a run and drop the oldest beyond `keep`, but none of a run that is going on.

        `.lyra/` ignores itself in git.
        """
        folder = self.runs / run_id
        folder.mkdir(parents=True, exist_ok=True)
        if old := sorted(self.runs.iterdir())[:-keep]:
            spared = {run_id, *live_runs(self.live)}
            for each in old:
                if each.name not in spared:
                    shutil.rmtree(each, ignore_errors=True)
        ignore = self.work / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        return folder


def base_folder(variable: str, default: str) -> Path:
    """An XDG base folder (`XDG_STATE_HOME`, `XDG_CACHE_HOME`), absolute, or the default below HOME."""
    value = os.environ.get(variable, "")
    if value.startswith("/"):
        return Path(value)
    with suppress(RuntimeError):  # no HOME, and a user whom the system does not know
        if os.environ.get("HOME", "/").startswith("/"):
            return Path.home() / default
    raise PreconditionError(
        f"no state directory: neither {variable} nor HOME is an absolute path", hint=f"set HOME or {variable}"
    )


def paths_of(root: Path, name: str) -> Paths:
    """The folders of the checkout at `root`; two checkouts of one project have two project ids."""
    root = root.resolve()
    project_id = f"{name}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:10]}"
    return Paths(
        root=root,
        work=root / ".lyra",
        state=base_folder("XDG_STATE_HOME", ".local/state") / "lyra" / project_id,
        cache=base_folder("XDG_CACHE_HOME", ".cache") / "lyra",
        project_id=project_id,
    )


def new_run_id() -> str:
    """A run id that sorts by time and is a valid part of any Docker name: `20261123t211504-3f99a1c`.

    Three digits are a fraction of the second, so that of two within one the later comes last; four tell runs apart.
    """
    now = time.time()
    return f"{time.strftime(_BEGAN, time.gmtime(now))}-{int(now % 1 * 4096):03x}{secrets.token_hex(2)}"


def began_within(run_id: str, seconds: float) -> bool:
    """Whether a run is no older than that, as its id says."""
    return run_id >= time.strftime(_BEGAN, time.gmtime(time.time() - seconds))


def live_folder(state: Path) -> Path:
    """Where a state folder has one lock per run that is going on."""
    return state / "live"


def begin_run(folder: Path, run_id: str) -> int:
    """Mark a run as going on, by a lock in `folder` that the operating system frees; returns the lock's handle."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / run_id
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_there(handle):  # else it was swept between the two calls
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            return handle
        os.close(handle)


def end_run(folder: Path, run_id: str, handle: int) -> None:
    """Mark a run as ended."""
    (folder / run_id).unlink(missing_ok=True)
    os.close(handle)


class LiveRuns:
    """The runs of this process that are going on, each marked once, whoever asks for it, from whichever thread.

    A second lock on the same file would wait for the first, which this process holds itself.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handles: dict[str, int] = {}
        self._lock = threading.Lock()

    def __contains__(self, run: str) -> bool:
        return run in self._handles

    def begin(self, *runs: str) -> None:
        """Mark runs as going on, those that are not yet."""
        with self._lock:
            for run in runs:
                if run not in self._handles:
                    self._handles[run] = begin_run(self._folder, run)

    def end(self) -> None:
        """Mark all of them as ended."""
        with self._lock:
            while self._handles:
                run, handle = self._handles.popitem()
                end_run(self._folder, run, handle)


def live_runs(folder: Path) -> dict[str, int]:
    """The runs that are going on, and their processes; what is left of those that have ended is swept."""
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        with _opened(path) as handle:
            if handle is None:
                continue
            # shared, so that others who look at this moment do not take this process for the run
            if not _lock(handle, fcntl.LOCK_SH):
                said = os.pread(handle, 32, 0).decode(errors="replace").strip()
                found[path.name] = int(said) if said.isdecimal() else 0
            elif _lock(handle, fcntl.LOCK_EX) and _is_there(handle):
                path.unlink(missing_ok=True)
    return found


@contextmanager
def if_ended(path: Path) -> Iterator[bool]:
    """Whether the run behind a lock has ended and left it; then nobody else takes it while the block runs."""
    with _opened(path) as handle:
        yield handle is not None and _lock(handle, fcntl.LOCK_EX) and _is_there(handle)


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_there(handle: int) -> bool:
    """Whether the file still has a name; if not, it was swept, and the name may be another run's by now."""
    return os.fstat(handle).st_nlink > 0


@contextmanager
def locked(path: Path, *, what: str, wait: float = 0.0) -> Iterator[int]:
    """Hold an exclusive lock on `path` that dies with the process, and with children that are given the handle.

    Waits up to `wait` seconds; then `LockedError` names `what` and the process that holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
                    raise LockedError(
                        f"{what} is in use by another process (pid {holder})", hint="wait until it has finished"
                    ) from error
                time.sleep(0.05)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield handle
    finally:
        os.close(handle)
