"""Paths of a project: its directories in the checkout, in the state directory and in the cache."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.digests import sha256_hex
from lyra_tasks.errors import PreconditionError
from lyra_tasks.locks import active_runs, run_locks_directory


@dataclass(frozen=True)
class Paths:
    """The directories of a checkout: `root` (of `.lyra.toml`), `work` (`.lyra/`), `state`, and the shared `cache`."""

    root: Path
    work: Path
    state: Path
    cache: Path
    project_id: str

    @property
    def runs(self) -> Path:
        """The parent of the run directories, which hold logs, metrics, results and build definitions."""
        return self.work / "runs"

    @property
    def journal(self) -> Path:
        """The journal, which is append-only and hash-chained."""
        return self.state / "journal.jsonl"

    @property
    def run_locks(self) -> Path:
        """The directory with one lock per active run."""
        return run_locks_directory(self.state)

    def create_run_directory(self, run_id: str, *, keep: int) -> Path:
        """Create a run's directory, and remove the oldest ones beyond `keep` except those of active runs.

        Also writes the `.gitignore` by which git ignores `.lyra/`.
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
    """Return an XDG base directory (`XDG_STATE_HOME`, `XDG_CACHE_HOME`), by default `default` below HOME."""
    value = os.environ.get(variable, "")
    if value.startswith("/"):
        return Path(value)
    with suppress(RuntimeError):  # no HOME, and no entry for this user in the user database
        if os.environ.get("HOME", "/").startswith("/"):
            return Path.home() / default
    raise PreconditionError(
        f"No state directory: neither {variable} nor HOME is an absolute path", hint=f"Set HOME or {variable}"
    )


def project_paths(root: Path, name: str) -> Paths:
    """Return the directories of the checkout at `root`; each checkout of a project has its own project id."""
    root = root.resolve()
    project_id = f"{name}-{sha256_hex(os.fsencode(root))[:10]}"
    return Paths(
        root=root,
        work=root / ".lyra",
        state=xdg_directory("XDG_STATE_HOME", ".local/state") / "lyra" / project_id,
        cache=xdg_directory("XDG_CACHE_HOME", ".cache") / "lyra",
        project_id=project_id,
    )
