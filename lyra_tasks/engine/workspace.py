"""The shared state of a command line: configuration, paths, journal, run id, and the engine on first use."""

from __future__ import annotations

import atexit
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks import console
from lyra_tasks.config.load import LoadedConfig
from lyra_tasks.config.models import Configuration
from lyra_tasks.config.platforms import host_platform
from lyra_tasks.errors import EngineUnavailableError
from lyra_tasks.locks import new_run_id
from lyra_tasks.paths import Paths, project_paths
from lyra_tasks.records.checkouts import record_checkout
from lyra_tasks.records.evidence_store import EvidenceStore
from lyra_tasks.records.images import ImageStore
from lyra_tasks.records.journal import Journal
from lyra_tasks.records.journal_entry import JournalEntry
from lyra_tasks.records.retention import Limits
from lyra_tasks.task_locks import RunLocks
from lyra_tasks.versions.version import CheckoutVersion, compute_version

# What connects to an engine, or reads git, is imported on first use: many commands need neither.
if TYPE_CHECKING:
    from lyra_tasks.dockerfile.context import ContextSnapshot
    from lyra_tasks.engine.client.connect import Engine
    from lyra_tasks.engine.objects.ownership import Owner
    from lyra_tasks.versions.git import GitFacts

SANDBOX_STARTED = "sandbox-started"


@dataclass(frozen=True)
class Workspace:
    """One run in one checkout, shared by all tasks of a command line.

    Copies with another configuration share `active_runs`. `generated_files`, which the run has written, count as clean.
    Without `starts_engine` the run is a dry one, which uses an engine only if one is running.
    """

    loaded: LoadedConfig
    paths: Paths
    run: str
    active_runs: RunLocks
    generated_files: set[str] = field(default_factory=set)
    starts_engine: bool = True

    @property
    def config(self) -> Configuration:
        """The effective configuration."""
        return self.loaded.config

    @property
    def root(self) -> Path:
        """The directory of `.lyra.toml`."""
        return self.loaded.root

    @property
    def build_platform(self) -> str:
        """The platform that builds run on: the engine's if it is connected, else this machine's."""
        engine: Engine | None = vars(self).get("engine")
        return engine.facts.platform if engine is not None else host_platform()

    @cached_property
    def run_directory(self) -> Path:
        """The run's directory, created on first use.

        This also marks the run as active and removes old run directories beyond `resources.keep_runs`.
        """
        self.mark_active(self.run)
        return self.paths.create_run_directory(self.run, keep=self.config.resources.keep_runs)

    def mark_active(self, *runs: str) -> None:
        """Protect the objects of runs from `clean` in other processes until `mark_finished` or the process ends."""
        self.active_runs.acquire(*runs)

    def mark_finished(self) -> None:
        """Allow other processes to clean the objects of this process's runs."""
        self.active_runs.release()

    @cached_property
    def journal(self) -> Journal:
        """The checkout's journal."""
        return Journal(self.paths.journal)

    @cached_property
    def owner(self) -> Owner:
        """The owner of this run's engine objects."""
        from lyra_tasks.engine.objects.ownership import Owner

        return Owner(self.journal, self.run, self.paths.project_id)

    @cached_property
    def images(self) -> ImageStore:
        """The records of built images."""
        return ImageStore(self.paths.state)

    @cached_property
    def evidence(self) -> EvidenceStore:
        """The results of test runs."""
        resources = self.config.resources
        limits = Limits(resources.keep_tests, resources.evidence)
        return EvidenceStore(self.paths.state, self.journal, limits, self.bundles)

    @cached_property
    def git(self) -> GitFacts:
        """The state of the git repository, read once until `refresh_git`."""
        return self._read_git_facts()

    @cached_property
    def snapshots(self) -> dict[str, ContextSnapshot]:
        """What the builder gets for each image, as it was hashed before git was asked, and compared with HEAD."""
        from lyra_tasks.dockerfile.input_hashes import scan_contexts

        return scan_contexts(self.root, self.config.images)

    @cached_property
    def version(self) -> CheckoutVersion:
        """The version of the checkout."""
        return compute_version(self.git, self.config.release.tag)

    def refresh_git(self, *generated_files: str) -> None:
        """Read the state of git again; `generated_files` have been written by the run."""
        self.generated_files.update(generated_files)
        for name in ("version", "snapshots"):
            vars(self).pop(name, None)
        vars(self)["git"] = self._read_git_facts()

    def _read_git_facts(self) -> GitFacts:
        from lyra_tasks.engine.source import add_source_changes
        from lyra_tasks.versions.git import collect_git_facts

        outputs = (self.config.promotion.directory, ".lyra", *sorted(self.generated_files))
        snapshots = self.snapshots.values()
        facts = collect_git_facts(self.root, self.config.release.tag, outputs=outputs)
        return add_source_changes(facts, self.config, self.root, self.loaded.input_files, outputs, snapshots)

    @cached_property
    def engine(self) -> Engine:
        """The engine, connected on first use; a private engine is started if necessary, except by dry runs."""
        from lyra_tasks.engine import sandbox
        from lyra_tasks.engine.client.connect import connect_engine
        from lyra_tasks.engine.objects.lifeline import remove_orphans

        if not self.starts_engine:
            return self._require_running_engine()
        running_sandbox = sandbox.find_sandbox(self.paths.state)
        engine = connect_engine(self.config, self.paths)
        if engine.facts.sandboxed and running_sandbox is None:
            self.journal.append(self.run, SANDBOX_STARTED, by="lyra")
        cleanup = remove_orphans(engine, self.journal, self.paths.project_id, self.paths.state)
        if cleanup.removed:
            names = ", ".join(owned_object.name for owned_object in cleanup.removed)
            console.info(f"Removed leftovers of a killed run: {names}")
        for owned_object, reason in cleanup.failed.items():
            console.warn(f"Cannot remove the {owned_object.kind} {owned_object.name} of a killed run: {reason}")
        return engine

    def _require_running_engine(self) -> Engine:
        from lyra_tasks.engine.client.connect import connect_running_engine

        engine = connect_running_engine(self.config, self.paths)
        if engine is None:
            raise EngineUnavailableError(
                "No engine is running, and a dry run starts none",
                hint="Run `engine.up` first, or leave out --dry-run",
            )
        return engine

    @property
    def bundles(self) -> Path:
        """The directory of this project's bundles."""
        return self.root / self.config.promotion.directory / self.config.project.name


def was_auto_started(entries: Iterable[JournalEntry]) -> bool:
    """Return whether the private engine was last started on demand, not by `engine.up`."""
    return [entry.data.get("by") for entry in entries if entry.event == SANDBOX_STARTED][-1:] == ["lyra"]


def open_workspace(
    loaded: LoadedConfig, previous: Workspace | None = None, *, continues_run: bool = False
) -> Workspace:
    """Start a run in the checkout of a configuration, or continue that of `previous`; its engine is used again."""
    paths = project_paths(loaded.root, loaded.config.project.name)
    if previous is None or previous.paths != paths:
        record_checkout(paths)
        active_runs = RunLocks(paths.run_locks)
        atexit.register(active_runs.release)
        return Workspace(loaded, paths, new_run_id(), active_runs)
    run = previous.run if continues_run else new_run_id()
    work = Workspace(loaded, paths, run, previous.active_runs, previous.generated_files)
    engine: Engine | None = vars(previous).get("engine")
    if engine is not None and _is_usable(engine, work, previous):
        vars(work)["engine"] = engine
    return work


def _is_usable(engine: Engine, work: Workspace, previous: Workspace) -> bool:
    """Return whether a connection is still that of the configuration; a private engine may have been stopped."""
    from lyra_tasks.engine import sandbox

    is_same = work.config.engine == previous.config.engine and work.config.resources == previous.config.resources
    return is_same and not (engine.facts.sandboxed and sandbox.find_sandbox(work.paths.state) is None)
