"""All tasks, as Invoke collections."""

from __future__ import annotations

from itertools import chain
from types import ModuleType
from typing import Any

from invoke.collection import Collection

from lyra_tasks.tasks import bundle, configuration, development, engine, lifecycle, overview, release
from lyra_tasks.tasks.task import LyraTask


def create_collection(*project_tasks: Any) -> Collection:
    """Return Lyra's tasks, with further tasks, collections or modules of the project beside them."""
    root = Collection(
        configuration.init,
        overview.doctor,
        overview.status,
        lifecycle.build,
        lifecycle.test,
        lifecycle.promote,
        lifecycle.clean,
        bundle.verify,
        bundle.diff,
        development.create,
        overview.logs,
        overview.stats,
        overview.explain,
        overview.history,
    )
    root.add_collection(
        Collection("dev", development.dev_shell, development.dev_exec, development.dev_sync, development.dev_stop)
    )
    root.add_collection(Collection("engine", engine.engine_up, engine.engine_down, engine.engine_status))
    root.add_collection(Collection("bases", engine.bases_build, engine.bases_update))
    root.add_collection(Collection("rules", configuration.rules_list, configuration.rules_explain))
    root.add_collection(Collection("config", configuration.config_show, configuration.config_schema))
    root.add_collection(Collection("bundle", bundle.bundle_list, bundle.bundle_pack, bundle.bundle_rehearse))
    release_collection = Collection("release", release.release_version, release.release_list)
    release_collection.add_task(release.release, default=True)
    root.add_collection(release_collection)
    for item in project_tasks:
        if isinstance(item, ModuleType):
            root.add_collection(Collection.from_module(item))
        elif isinstance(item, Collection):
            root.add_collection(item)
        else:
            root.add_task(item)
    LyraTask.command_names = tuple(chain.from_iterable((name, *aliases) for name, aliases in root.task_names.items()))
    return root
