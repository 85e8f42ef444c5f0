"""All tasks, as Invoke collections, with the project's own beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from invoke.collection import Collection
from invoke.exceptions import Exit
from invoke.tasks import Task

from lyra_tasks.errors import UsageError
from lyra_tasks.suggest import select_known
from lyra_tasks.tasks import bundle, configuration, development, engine, lifecycle, overview, releases
from lyra_tasks.tasks.task import LyraTask

TASK_GROUPS: dict[str, tuple[LyraTask[..., Any], ...]] = {
    "Start": (configuration.init, overview.doctor, overview.status, overview.explain),
    "Develop": (
        development.create,
        development.dev_shell,
        development.dev_exec,
        development.dev_sync,
        development.dev_restart,
        development.dev_stop,
    ),
    "Build and test": (lifecycle.build, lifecycle.test, overview.logs, overview.stats),
    "Release and promote": (
        releases.release,
        releases.release_version,
        releases.release_list,
        lifecycle.promote,
        bundle.verify,
        bundle.diff,
        bundle.bundle_list,
        bundle.bundle_pack,
        bundle.bundle_rehearse,
        bundle.bundle_remove,
    ),
    "Clean up": (lifecycle.clean, overview.history),
    "Look up": (
        configuration.config_show,
        configuration.config_schema,
        configuration.rules_list,
        configuration.rules_explain,
    ),
    "Engine and lock file": (
        engine.engine_up,
        engine.engine_down,
        engine.engine_status,
        engine.lock_show,
        engine.lock_update,
    ),
}
"""All tasks, in the order of work."""

ALL_TASKS = tuple(task for group in TASK_GROUPS.values() for task in group)


def create_collection(
    own_items: Sequence[Any] = (),
    *,
    only: Iterable[str] = (),
    replace: Iterable[str] = (),
    config: Path | None = None,
) -> Collection:
    """Return Lyra's tasks, with further tasks, collections or modules of the project beside them.

    Args:
        own_items: Tasks, collections or modules of the project.
        only: Include only these tasks and collections of Lyra's; default: all.
        replace: Leave these out, because an own task or collection has the name.
        config: The configuration file that all of Lyra's tasks are about; default: the one of the working directory.

    Raises:
        Exit: A name is not known, or an own item has the name of one of Lyra's and `replace` does not list it.
    """
    try:
        root = _lyra_collection(_select(only, default=True), _select(replace, default=False), config)
        for item in own_items:
            _add_own_item(root, item)
    except UsageError as error:  # raised while Invoke imports `tasks.py`, which shows no other error well
        raise Exit(f"error: tasks.py: {error.message}\nhint: {error.hint}", code=error.exit_code) from error
    return root


def _select(names: Iterable[str], *, default: bool) -> frozenset[str]:
    """Return the commands that are named, by themselves or by their collection."""
    names = (names,) if isinstance(names, str) else tuple(names)
    commands = [task.command for task in ALL_TASKS]
    if not names:
        return frozenset(commands if default else ())
    known = list(dict.fromkeys([*commands, *(command.partition(".")[0] for command in commands)]))
    selected = select_known(names, known, "task")
    return frozenset(command for command in commands if command in selected or command.partition(".")[0] in selected)


def _lyra_collection(included: frozenset[str], excluded: frozenset[str], config: Path | None) -> Collection:
    root = Collection()
    collections: dict[str, Collection] = {}
    for task in ALL_TASKS:
        if task.command not in included - excluded:
            continue
        bound_task = task if config is None else task.bind(config)
        name, _, subtask = task.command.partition(".")
        if name == "release" or subtask:  # `release` is a collection whose default task has its name
            collections.setdefault(name, Collection(name)).add_task(bound_task, default=not subtask)
        else:
            root.add_task(bound_task)
    for collection in collections.values():
        root.add_collection(collection)
    return root


def _add_own_item(root: Collection, item: Any) -> None:
    if isinstance(item, ModuleType):
        item = Collection.from_module(item)
    is_collection = isinstance(item, Collection)
    if not is_collection and not isinstance(item, Task):
        raise UsageError(
            f"{item!r} is not a task, a collection or a module", hint="Decorate a function with invoke's `@task`"
        )
    if not item.name:
        raise UsageError("A collection without a name cannot be added", hint='Give it one: Collection("name", ...)')
    taken = {*root.task_names, *root.collections}
    for name in {item.name, *getattr(item, "aliases", ())} & taken:
        raise UsageError(
            f"`{name}` is the name of one of Lyra's tasks",
            hint=f'Rename yours, or replace Lyra\'s: lyra_tasks.collection(..., replace=["{name}"])',
        )
    if is_collection:
        root.add_collection(item)
    else:
        root.add_task(item)
