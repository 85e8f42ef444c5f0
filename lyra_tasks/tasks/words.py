"""All words, as Invoke collections."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from invoke.collection import Collection

from lyra_tasks.tasks import (
    configuration,
    development,
    doctor,
    engine,
    lifecycle,
    overview,
    promotion,
    release,
    rules,
    runs,
    setting_up,
    telling,
)


def lyra_collection(*own: Any) -> Collection:
    """Lyra's words; `own` are further tasks, collections or modules, added beside them."""
    top = Collection(
        setting_up.init,
        doctor.doctor,
        overview.status,
        lifecycle.build,
        lifecycle.test,
        lifecycle.promote,
        lifecycle.clean,
        promotion.verify,
        promotion.diff,
        development.create,
        runs.logs,
        runs.stats,
        telling.explain,
        telling.history,
    )
    top.add_collection(Collection("dev", development.shell, development.execute, development.sync, development.stop))
    top.add_collection(Collection("engine", engine.up, engine.down, engine.status))
    top.add_collection(Collection("bases", engine.bases_build, engine.bases_update))
    top.add_collection(Collection("rules", rules.listing, rules.explain))
    top.add_collection(Collection("config", configuration.show, configuration.schema))
    top.add_collection(Collection("bundle", promotion.listing, promotion.pack, promotion.rehearse))
    releases = Collection("release", release.current, release.listing)
    releases.add_task(release.release, default=True)
    top.add_collection(releases)
    for each in own:
        if isinstance(each, Collection | ModuleType):
            top.add_collection(each if isinstance(each, Collection) else Collection.from_module(each))
        else:
            top.add_task(each)
    return top
