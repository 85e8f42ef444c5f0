"""Paths of a project: its directories in the checkout, in the state directory and in the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.errors import PreconditionError
from lyra_tasks.locks import active_runs, run_locks_directory


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
    def run_locks(self) -> Path:
        """One lock per run that is going on."""
        return run_locks_directory(self.state)

    def create_run_directory(self, run_id: str, *, keep: int) -> Path:
        """Make the folder of a run and drop the oldest beyond `keep`, but none of a run that is going on.

        `.lyra/` ignores itself in git.
        """
        directory = self.runs / run_id
        directory.mkdir(parents=True, exist_ok=True)
        if oldest := sorted(self.runs.iterdir())[:-keep]:
            protected = {run_id, *active_runs(self.run_locks)}
            for path in oldest:
                if path.name not in protected:
                    shutil.rmtree(path, ignore_errors=True)
        gitignore = self.work / ".gitignore"
        if not gitignore.exists():
            gitignore.write_text("*\n")
        return directory


def xdg_directory(variable: str, default: str) -> Path:
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


def project_paths(root: Path, name: str) -> Paths:
    """The folders of the checkout at `root`; two checkouts of one project have two project ids."""
    root = root.resolve()
    project_id = f"{name}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:10]}"
    return Paths(
        root=root,
        work=root / ".lyra",
        state=xdg_directory("XDG_STATE_HOME", ".local/state") / "lyra" / project_id,
        cache=xdg_directory("XDG_CACHE_HOME", ".cache") / "lyra",
        project_id=project_id,
    )
