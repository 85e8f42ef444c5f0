"""Watch the source: sync what changes, and restart, rebuild or run commands as `dev.on_change` says."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.develop.changes import ChangeTracker, FileChanges
from lyra_tasks.develop.copies import copy_into_container
from lyra_tasks.develop.lab import create_dev_lab, lock_dev_lab, plan_create
from lyra_tasks.develop.reactions import Reaction, list_rules, plan_reactions
from lyra_tasks.develop.restart import restart_services
from lyra_tasks.develop.sync import SourceSync, find_source_syncs, upload_changes
from lyra_tasks.engine.client.exec import exec_command
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import CheckFailedError, LyraError
from lyra_tasks.records.dev import DevLab, DevStore
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.results.development import Upload

_DEBOUNCE_MS = 400  # at most so long is a burst of changes collected before it is uploaded
_QUIET_MS = 50  # so long without a change ends a burst
_IDLE_MS = 250  # so often is looked whether the environment still exists; first, for changes from before the watch
_IGNORED_DIRECTORIES = {".git", ".lyra"}


class EnvironmentGoneError(LyraError):
    """The environment was stopped, or replaced by another one, while its source was watched."""


@dataclass(frozen=True)
class WatchListener:
    """What is called with what happens: a sync, an action on services and its seconds, an error, new containers."""

    uploaded: Callable[[Upload], None]
    reacted: Callable[[str, Sequence[str], float], None]
    failed: Callable[[LyraError], None]
    replaced: Callable[[DevLab], None]


@dataclass
class SourceWatch:
    """A watch over the source of a service, or of all if it is empty; `work` has the development profile.

    `build_images` builds those of the given images that are stale, and returns the records of all.
    """

    work: Workspace
    lab: DevLab
    service: str
    listener: WatchListener
    build_images: Callable[[Workspace, Collection[str]], Mapping[str, ImageRecord]]

    def __post_init__(self) -> None:
        """Remember the files as they are, so that only later changes count."""
        excluded = self.work.root / self.work.config.promotion.directory
        selected = [self.service] if self.service else list(self.lab.services)
        names = [name for name in selected if name in self.work.config.services]
        self._rules = list_rules(self.work.config, names)
        self._tracker = ChangeTracker(self.work.root, excluded, self._rules)

    @property
    def directories(self) -> set[Path]:
        """Return the directories to watch."""
        return {sync.context for sync in self._find_syncs()} | self._tracker.directories

    def run(self) -> None:
        """Sync and react until the user interrupts; errors are reported, and the watch goes on.

        All files are compared each time, so that a lost event does no harm.

        Raises:
            EnvironmentGoneError: The environment does not exist any more.
        """
        pending, is_first = FileChanges(), True
        for has_changes in _iterate_bursts(self.directories):
            self._require_lab()
            if not has_changes and not is_first:
                continue
            is_first = False
            changes = pending.join(self._tracker.find_changes())  # what changes until the upload is found again
            try:
                uploaded = self._upload()
            except LyraError as error:
                pending = changes
                self._report(error)
                continue
            pending = FileChanges()
            try:
                self._react(changes.join(uploaded))  # the first upload includes changes from before the watch
            except LyraError as error:
                self._report(error)

    def _report(self, error: LyraError) -> None:
        self._require_lab()
        self.listener.failed(error)

    def _require_lab(self) -> None:
        lab = DevStore(self.work.paths.state).read()
        if lab is None or lab.run != self.lab.run:
            raise EnvironmentGoneError("The development environment was stopped")
        self.lab = lab

    def _find_syncs(self) -> tuple[SourceSync, ...]:
        syncs = find_source_syncs(self.work, self.lab)
        return tuple(sync for name, sync in syncs.items() if self.service in {"", name})

    def _upload(self) -> FileChanges:
        """Sync all source volumes, and return the files by path relative to the project."""
        written: list[str] = []
        deleted: list[str] = []
        for sync in self._find_syncs():
            upload = upload_changes(sync)
            if upload.uploaded or upload.deleted:
                self.listener.uploaded(upload)
            context = Path(sync.source.context)
            written += [(context / name).as_posix() for name in upload.uploaded]
            deleted += [(context / name).as_posix() for name in upload.deleted]
        return FileChanges(tuple(written), tuple(deleted))

    def _react(self, changes: FileChanges) -> None:
        reactions = plan_reactions(self._rules, changes.written, changes.deleted)
        if not reactions:
            return
        with self.work.active_runs.running_task("dev.restart", self.work.run):
            self._require_lab()  # `clean` may have been running
            self._rebuild([reaction.service for reaction in reactions if reaction.is_rebuilt])
            for reaction in reactions:
                self._copy(reaction)
            self._restart([reaction.service for reaction in reactions if reaction.is_restarted])
            for reaction in reactions:
                self._run_commands(reaction)

    def _rebuild(self, names: Sequence[str]) -> None:
        if not names:
            return
        started = time.monotonic()
        used = {self.work.config.services[name].image for name in names}
        images = [name for name in self.work.config.images if name in used]
        with lock_dev_lab(self.work):
            create_plan = plan_create(self.work, self.build_images(self.work, images))
            result = create_dev_lab(create_plan, yes=True)
        self.lab = result.lab
        self.listener.replaced(self.lab)
        self.listener.reacted("rebuilt", names, time.monotonic() - started)
        if result.failures:
            raise result.failures[0]

    def _copy(self, reaction: Reaction) -> None:
        if not reaction.copies and not reaction.removals:
            return
        started = time.monotonic()
        container = self.lab.services[reaction.service].id
        copy_into_container(self.work.engine, container, self.work.root, reaction.copies, reaction.removals)
        self.listener.reacted("updated", [reaction.service], time.monotonic() - started)

    def _restart(self, names: Sequence[str]) -> None:
        if names:
            started = time.monotonic()
            restart_services(self.work, self.lab, names)
            self.listener.reacted("restarted", names, time.monotonic() - started)

    def _run_commands(self, reaction: Reaction) -> None:
        for command in reaction.commands:
            started = time.monotonic()
            code, output = exec_command(self.work.engine, self.lab.services[reaction.service].id, command)
            if code != 0:
                raise CheckFailedError(
                    f"{reaction.service}: {command[0]} exited with code {code}",
                    hint=f"Fix the source, or the command in [services.{reaction.service}.dev] on_change",
                    details=tuple(output.splitlines()),
                )
            self.listener.reacted(f"ran {command[0]} in", [reaction.service], time.monotonic() - started)


def _iterate_bursts(directories: Iterable[Path]) -> Iterator[bool]:
    """Yield True after each burst of changes in these directories, and False now and then without one."""
    from watchfiles import watch

    bursts = watch(
        *directories,
        watch_filter=lambda _change, path: not _IGNORED_DIRECTORIES & set(Path(path).parts),
        debounce=_DEBOUNCE_MS,
        step=_QUIET_MS,
        raise_interrupt=True,
        rust_timeout=_IDLE_MS,
        yield_on_timeout=True,
    )
    for changes in bursts:
        yield bool(changes)
