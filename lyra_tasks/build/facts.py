"""What a build depends on, found out: the version, the bases as the lock pins them, the inputs as they are."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from lyra_tasks.build.plan import BuildFacts
from lyra_tasks.config.lock import LOCK_NAME
from lyra_tasks.config.lock import read as read_lock
from lyra_tasks.config.lock import write as write_lock
from lyra_tasks.engine import bases as engine_bases
from lyra_tasks.engine.base_supply import provide
from lyra_tasks.engine.connect import require_buildx
from lyra_tasks.engine.inputs import base_uses, current_inputs
from lyra_tasks.engine.ownership import IMAGE
from lyra_tasks.engine.workspace import Workspace, selected
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.rules.deviations import capacity_breaches, require_reasons

_NAMED_CONTEXTS_FROM = (23, 0)


def names(work: Workspace, chosen: Sequence[str]) -> tuple[str, ...]:
    """The images to build: those chosen, or all."""
    if not work.config.images:
        raise ConfigurationError("there are no images to build", hint="write an [images.NAME] table")
    return selected(chosen, list(work.config.images), "image")


def gather(work: Workspace, built: Sequence[str]) -> BuildFacts:
    """The facts of building the images `built`; bases are resolved, locked and provided on the way."""
    require_reasons(work.config, capacity_breaches(work.config), datetime.date.today())
    require_buildx(work.engine)
    if work.engine.facts.release < _NAMED_CONTEXTS_FROM:
        raise PreconditionError(
            f"Docker Engine {work.engine.facts.version} knows no named build contexts, which bases are offered as",
            hint="build on Docker Engine 23.0 or newer; 20.10 is enough for receiving bundles",
        )
    resolution = bases(work, chosen=built)
    return BuildFacts(
        root=str(work.root),
        version=work.version.semver,
        image_tag=work.version.image_tag,
        commit=work.git.commit,
        dirty=work.git.dirty,
        epoch=work.git.time,
        source=work.git.remote,
        store=work.engine.facts.store,
        bases=engine_bases.by_image(work.config, base_uses(work, built), resolution.bases),
        inputs=current_inputs(work, resolution.lock),
    )


def bases(
    work: Workspace, *, chosen: Sequence[str] | None = None, update: bool = False, dry: bool = False
) -> engine_bases.Resolution:
    """Resolve the bases of the `chosen` images (default: all), move the lock where it must move, and provide them."""
    path = work.root / LOCK_NAME
    wanted = engine_bases.needs(work.config, base_uses(work, chosen or list(work.config.images)))
    resolution = engine_bases.resolve(
        wanted, read_lock(path), client=work.engine.client, root=work.root, cache=work.paths.cache, update=update
    )
    if not dry:
        if resolution.lock.bases or path.exists():
            write_lock(path, resolution.lock)
        _provide(work, resolution)
    return resolution


def _provide(work: Workspace, resolution: engine_bases.Resolution) -> None:
    supplies = engine_bases.plan(resolution.bases.values())
    if not supplies:
        return
    work.journal.extend(work.run, [("intent", {"kind": IMAGE, "name": each.tag}) for each in supplies])
    made = provide(supplies, work.engine.client, scratch=work.paths.cache)
    work.owner.made(IMAGE, made)
