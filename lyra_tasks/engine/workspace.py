"""What one command line works with: configuration, paths, journal, run id, and the engine once it is needed."""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.config.load import LoadedConfig
from lyra_tasks.config.models import Configuration
from lyra_tasks.config.platforms import host_platform
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine, connect_engine
from lyra_tasks.engine.objects.lifeline import remove_orphans
from lyra_tasks.engine.objects.ownership import Owner
from lyra_tasks.locks import RunLocks, active_runs, new_run_id, run_locks_directory
from lyra_tasks.paths import Paths, project_paths
from lyra_tasks.records.checkouts import list_former_states, record_checkout
from lyra_tasks.records.evidence import EvidenceStore
from lyra_tasks.records.images import ImageStore
from lyra_tasks.records.journal import Journal, JournalEntry
from lyra_tasks.versions.git import GitFacts, collect_git_facts
from lyra_tasks.versions.version import CheckoutVersion, compute_version

SANDBOX_STARTED = "sandbox-started"


@dataclass(frozen=True)
class Workspace:
    """One run over one checkout; all words of a command line share it, and its run id.

    `live` is shared by copies of it, which a word makes to work with another configuration.
    """

    loaded: LoadedConfig
    paths: Paths
    run: str
    active_runs: RunLocks

    @property
    def config(self) -> Configuration:
        """The effective configuration."""
        return self.loaded.config

    @property
    def root(self) -> Path:
        """The folder that holds `.lyra.toml`."""
        return self.loaded.root

    @property
    def build_platform(self) -> str:
        """The platform that builds run on: the engine's, or this machine's as long as no engine is needed."""
        engine = vars(self).get("engine")
        return engine.facts.platform if isinstance(engine, Engine) else host_platform()

    @cached_property
    def run_directory(self) -> Path:
        """The run's own folder, made on first use; older ones beyond `resources.keep_runs` are dropped then.

        From then on the run is going on, for all others to see.
        """
        self.mark_active(self.run)
        return self.paths.create_run_directory(self.run, keep=self.config.resources.keep_runs)

    def mark_active(self, *runs: str) -> None:
        """Until `mark_ended` or the end of this process, no `clean` of another terminal touches what `runs` make."""
        self.active_runs.acquire(*runs)

    def mark_finished(self) -> None:
        """What this process made is done: it may be cleaned."""
        self.active_runs.release()

    @cached_property
    def journal(self) -> Journal:
        """The checkout's journal."""
        return Journal(self.paths.journal)

    @cached_property
    def owner(self) -> Owner:
        """Who this run's objects belong to."""
        return Owner(self.journal, self.run, self.paths.project_id)

    @cached_property
    def images(self) -> ImageStore:
        """The records of built images."""
        return ImageStore(self.paths.state)

    @cached_property
    def evidence(self) -> EvidenceStore:
        """The verdicts over tested sets."""
        return EvidenceStore(self.paths.state)

    @cached_property
    def git(self) -> GitFacts:
        """What git says about the tree, read once; again only after `reread_git`."""
        return self._read_git_facts()

    @cached_property
    def version(self) -> CheckoutVersion:
        """The version of the tree as it is."""
        return compute_version(self.git, self.config.release.tag)

    def refresh_git(self, *generated_files: str) -> None:
        """Ask git again, since a word has changed something; `written` are files of Lyra's that count as clean."""
        vars(self).pop("version", None)
        vars(self)["git"] = self._read_git_facts(*generated_files)

    def _read_git_facts(self, *generated_files: str) -> GitFacts:
        outputs = (self.config.promotion.directory, ".lyra", *generated_files)
        return collect_git_facts(self.root, self.config.release.tag, outputs=outputs)

    @cached_property
    def engine(self) -> Engine:
        """The engine, connected on first use; a sandbox may have to be started for it, which is journaled."""
        running_sandbox = sandbox.find_sandbox(self.paths.state)
        engine = connect_engine(self.config, self.paths)
        if engine.facts.sandboxed and running_sandbox is None:
            self.journal.append(self.run, SANDBOX_STARTED, by="lyra")
        cleanup = remove_orphans(engine, self.journal, self.paths.project_id, self.paths.state)
        if cleanup.removed:
            console.info(
                f"removed what a run that was killed had left: {', '.join(each.name for each in cleanup.removed)}"
            )
        for owned_object, reason in cleanup.failed.items():
            console.warn(
                f"a run that was killed has left the {owned_object.kind} {owned_object.name}, which stays: {reason}"
            )
        return engine

    def find_other_active_runs(self) -> dict[str, int]:
        """The runs of this checkout that are going on in other processes, which are named."""
        directories = [
            self.paths.run_locks,
            *(run_locks_directory(checkout.state) for checkout in list_former_states(self.paths)),
        ]
        return {
            run: pid
            for directory in directories
            for run, pid in active_runs(directory).items()
            if run not in self.active_runs
        }

    @property
    def bundles(self) -> Path:
        """Where this project's promotion bundles are."""
        return self.root / self.config.promotion.directory / self.config.project.name


def was_auto_started(entries: Iterable[JournalEntry]) -> bool:
    """Whether the sandbox of a journal was last started by a word that needed it, not by `engine.up`."""
    return [entry.data.get("by") for entry in entries if entry.event == SANDBOX_STARTED][-1:] == ["lyra"]


def open_workspace(loaded: LoadedConfig) -> Workspace:
    """A new run over the checkout that `loaded` was read from."""
    paths = project_paths(loaded.root, loaded.config.project.name)
    record_checkout(paths)
    active_runs = RunLocks(paths.run_locks)
    atexit.register(active_runs.release)
    return Workspace(loaded, paths, new_run_id(), active_runs)


def select_known(names: Sequence[str], known: Sequence[str], kind: str) -> tuple[str, ...]:
    """The `known` names that `names` selects (none: all), in the order of `known`; UsageError for an unknown one."""
    from difflib import get_close_matches

    from lyra_tasks.errors import UsageError

    for name in names:
        if name not in known:
            suggestions = get_close_matches(name, known, 1)
            hint = f"did you mean {suggestions[0]}?" if suggestions else f"there are: {', '.join(known) or 'none'}"
            raise UsageError(f"there is no {kind} named {name!r}", hint=hint)
    return tuple(name for name in known if not names or name in names)
