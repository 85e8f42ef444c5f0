"""What one command line works with: configuration, paths, journal, run id, and the engine once it is needed."""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.config.git import GitFacts, git_facts
from lyra_tasks.config.load import Loaded
from lyra_tasks.config.models import Configuration
from lyra_tasks.config.platforms import this_machine
from lyra_tasks.config.version import Version, version_of
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.connect import Engine, connect
from lyra_tasks.engine.guard import sweep
from lyra_tasks.engine.ownership import Owner
from lyra_tasks.records.checkouts import former, note_checkout
from lyra_tasks.records.evidence import EvidenceStore
from lyra_tasks.records.images import ImageStore
from lyra_tasks.records.journal import Entry, Journal
from lyra_tasks.run import LiveRuns, Paths, live_folder, live_runs, new_run_id, paths_of

SANDBOX_STARTED = "sandbox-started"


@dataclass(frozen=True)
class Workspace:
    """One run over one checkout; all words of a command line share it, and its run id.

    `live` is shared by copies of it, which a word makes to work with another configuration.
    """

    loaded: Loaded
    paths: Paths
    run: str
    live: LiveRuns

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
        return engine.facts.platform if isinstance(engine, Engine) else this_machine()

    @cached_property
    def folder(self) -> Path:
        """The run's own folder, made on first use; older ones beyond `resources.keep_runs` are dropped then.

        From then on the run is going on, for all others to see.
        """
        self.mark_live(self.run)
        return self.paths.run_folder(self.run, keep=self.config.resources.keep_runs)

    def mark_live(self, *runs: str) -> None:
        """Until `mark_ended` or the end of this process, no `clean` of another terminal touches what `runs` make."""
        self.live.begin(*runs)

    def mark_ended(self) -> None:
        """What this process made is done: it may be cleaned."""
        self.live.end()

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
        return self._git_facts()

    @cached_property
    def version(self) -> Version:
        """The version of the tree as it is."""
        return version_of(self.git, self.config.release.tag)

    def reread_git(self, *written: str) -> None:
        """Ask git again, since a word has changed something; `written` are files of Lyra's that count as clean."""
        vars(self).pop("version", None)
        vars(self)["git"] = self._git_facts(*written)

    def _git_facts(self, *written: str) -> GitFacts:
        outputs = (self.config.promotion.directory, ".lyra", *written)
        return git_facts(self.root, self.config.release.tag, outputs=outputs)

    @cached_property
    def engine(self) -> Engine:
        """The engine, connected on first use; a sandbox may have to be started for it, which is journaled."""
        running = sandbox.find(self.paths.state)
        engine = connect(self.config, self.paths)
        if engine.facts.sandboxed and running is None:
            self.journal.append(self.run, SANDBOX_STARTED, by="lyra")
        swept = sweep(engine, self.journal, self.paths.project_id, self.paths.state)
        if swept.gone:
            console.note(f"removed what a run that was killed had left: {', '.join(each.name for each in swept.gone)}")
        for each, reason in swept.left.items():
            console.warn(f"a run that was killed has left the {each.kind} {each.name}, which stays: {reason}")
        return engine

    def live_elsewhere(self) -> dict[str, int]:
        """The runs of this checkout that are going on in other processes, which are named."""
        folders = [self.paths.live, *(live_folder(each.state) for each in former(self.paths))]
        return {run: pid for folder in folders for run, pid in live_runs(folder).items() if run not in self.live}

    @property
    def bundles(self) -> Path:
        """Where this project's promotion bundles are."""
        return self.root / self.config.promotion.directory / self.config.project.name


def started_by_itself(entries: Iterable[Entry]) -> bool:
    """Whether the sandbox of a journal was last started by a word that needed it, not by `engine.up`."""
    return [entry.data.get("by") for entry in entries if entry.event == SANDBOX_STARTED][-1:] == ["lyra"]


def open_workspace(loaded: Loaded) -> Workspace:
    """A new run over the checkout that `loaded` was read from."""
    paths = paths_of(loaded.root, loaded.config.project.name)
    note_checkout(paths)
    live = LiveRuns(paths.live)
    atexit.register(live.end)
    return Workspace(loaded, paths, new_run_id(), live)


def selected(names: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    """The `known` names that `names` selects (none: all), in the order of `known`; UsageError for an unknown one."""
    from difflib import get_close_matches

    from lyra_tasks.errors import UsageError

    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known) or 'none'}"
            raise UsageError(f"there is no {what} named {name!r}", hint=hint)
    return tuple(name for name in known if not names or name in names)
