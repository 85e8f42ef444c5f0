"""Run build and test again after each change of the project."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.dockerfile.lock_file import LOCK_FILE_NAME
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.files import display_path

_DEBOUNCE_MS = 300  # at most so long is a burst of changes collected
_QUIET_MS = 50
_FIRST_ROUND_MS = 200  # the watch has begun by then
_UNWATCHED_DIRECTORIES = frozenset({".git", ".lyra", "__pycache__", ".pytest_cache"})
_MAX_NAMES_SHOWN = 3
_INTERRUPTED = 130


def watch_tests(work: Workspace, options: Sequence[str]) -> None:
    """Run `build test` with some options, and again after each change, until Ctrl-C.

    Each round is a process and a run of its own, which reads the configuration anew.
    """
    command = [sys.executable, "-P", "-m", "lyra_tasks", "build", "test", "--failed-first", *options]
    environment = {**os.environ, "LYRA_CONFIG": str(work.loaded.file)}
    for changed in _wait_for_changes(work):
        if changed:
            console.print(f"\nchanged: {_format_names(changed)}")
        started = time.monotonic()
        exit_code = _run_round(command, work.root, environment)
        if exit_code == _INTERRUPTED:
            return
        outcome = console.style("passed", "green") if exit_code == 0 else console.style("failed", "red", "bold")
        console.print(f"{outcome} in {time.monotonic() - started:.1f} s; waiting for a change (Ctrl-C ends)")


def _run_round(command: Sequence[str], root: Path, environment: dict[str, str]) -> int:
    """Run the tasks in a session of their own, so that a Ctrl-C reaches them once; wait until they have cleaned up."""
    with subprocess.Popen(
        command, cwd=root, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
    ) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)


def _wait_for_changes(work: Workspace) -> Iterator[list[str]]:
    """Yield an empty list at once, and then the paths that have changed; those that git ignores do not count.

    What changes during a round is yielded after it.
    """
    import watchfiles

    reports = {test.junit.file for test in work.config.tests if test.junit is not None}
    unwatched = {work.root / path for path in (LOCK_FILE_NAME, work.config.promotion.directory, *reports)}

    def is_watched(_change: watchfiles.Change, path: str) -> bool:
        parts = Path(path).relative_to(work.root).parts
        parents = {work.root.joinpath(*parts[:count]) for count in range(1, len(parts) + 1)}
        is_staged = Path(path).name.startswith(f".{LOCK_FILE_NAME}")  # by a build that changes the lock file
        return not is_staged and _UNWATCHED_DIRECTORIES.isdisjoint(parts) and unwatched.isdisjoint(parents)

    is_first = True
    for changes in watchfiles.watch(
        work.root,
        watch_filter=is_watched,
        debounce=_DEBOUNCE_MS,
        step=_QUIET_MS,
        rust_timeout=_FIRST_ROUND_MS,
        yield_on_timeout=True,
        raise_interrupt=True,
    ):
        names = sorted({os.path.relpath(path, work.root) for _, path in changes})
        if is_first:
            is_first = False
            yield []
        elif names and (changed := _drop_ignored(work.root, names)):
            yield changed


def _drop_ignored(root: Path, names: Sequence[str]) -> list[str]:
    """Return the paths that git does not ignore; all of them if git cannot tell."""
    completed = subprocess.run(
        ["git", "check-ignore", "-z", "--stdin"],
        cwd=root,
        input=b"\0".join(map(os.fsencode, names)),
        capture_output=True,
        check=False,
    )
    ignored = {os.fsdecode(name) for name in completed.stdout.split(b"\0")}
    return [name for name in names if name not in ignored]


def _format_names(names: Sequence[str]) -> str:
    shown = ", ".join(display_path(Path(name)) for name in names[:_MAX_NAMES_SHOWN])
    return f"{shown} and {len(names) - _MAX_NAMES_SHOWN} more" if len(names) > _MAX_NAMES_SHOWN else shown
