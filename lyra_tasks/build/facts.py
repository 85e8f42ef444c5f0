"""What a build depends on, found out: the version, the bases as the lock pins them, the inputs as they are."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from lyra_tasks.build.caches import caches
from lyra_tasks.build.plan import BuildFacts
from lyra_tasks.config.git import missing_submodules
from lyra_tasks.config.inputs import dockerfile_path, ignore_patterns
from lyra_tasks.config.lock import LOCK_NAME
from lyra_tasks.config.lock import read as read_lock
from lyra_tasks.config.lock import write as write_lock
from lyra_tasks.config.platforms import Variant, variants
from lyra_tasks.engine import bases as engine_bases
from lyra_tasks.engine.builder import find_builder
from lyra_tasks.engine.buildx import require_buildx
from lyra_tasks.engine.connect import prepare
from lyra_tasks.engine.inputs import base_uses, current_inputs, with_stages
from lyra_tasks.engine.materials import base_arguments, materials, provide_bases
from lyra_tasks.engine.workspace import Workspace, selected
from lyra_tasks.errors import ConfigurationError, PreconditionError, UsageError
from lyra_tasks.rules.deviations import require_reasons
from lyra_tasks.rules.project import capacity_look


def chosen(work: Workspace, images: Sequence[str], platforms: Sequence[str] = ()) -> tuple[Variant, ...]:
    """The images to build, each for a platform: those chosen, or all; several platforms may stand in one word."""
    config = work.config
    if not config.images:
        raise ConfigurationError("there are no images to build", hint="write an [images.NAME] table")
    names = selected(images, list(config.images), "image")
    known = list(dict.fromkeys(each.platform for each in variants(config)))
    wanted = selected([one for each in platforms for one in each.split(",")], known, "platform")
    found = tuple(each for each in variants(config, names) if each.platform in wanted)
    if not found:
        raise UsageError(
            f"{' and '.join(names)}: not for {' or '.join(wanted)}",
            hint="`images.NAME.platforms` and `proxima.platforms` say what an image is built for",
        )
    return found


def gather(work: Workspace, builds: Sequence[Variant], *, dry: bool = False) -> BuildFacts:
    """The facts of `builds`; bases are resolved on the way and, unless it is `dry`, locked and provided."""
    built = tuple(dict.fromkeys(each.image for each in builds))
    require_reasons(work.config, [capacity_look(work.config)], datetime.date.today())
    _require_secrets(work, built)
    with ThreadPoolExecutor(1) as aside:
        aside.submit(prepare)  # while git is asked
        _require_submodules(work, built)
    engine = work.engine
    require_buildx(engine)
    uses = base_uses(work, builds)
    builder = find_builder(engine, work.config.builder.name) if work.config.builder.name else None
    elsewhere = builder is not None and builder.elsewhere
    base_arguments(work, uses, elsewhere=elsewhere)  # what cannot be given is told before anything is looked for
    resolution = bases(work, builds, dry=dry)
    found = resolution.bases
    if elsewhere and not dry:
        from lyra_tasks.build.carried import carried

        found = carried(engine, found, work.folder / "bases")
    return BuildFacts(
        materials=materials(work, uses, found, elsewhere=elsewhere),
        version=work.version.semver,
        image_tag=work.version.image_tag,
        commit=work.git.commit,
        dirty=work.git.dirty,
        epoch=work.git.time,
        source=work.git.remote,
        store=engine.facts.store,
        inputs=current_inputs(work, resolution.lock),
        builder=builder,
        archives=str(work.folder) if elsewhere else "",
        caches=caches(work.config.builder, builds, work.root),
    )


def _require_secrets(work: Workspace, built: Sequence[str]) -> None:
    """A build secret is needed by builds alone, so that it is not missed before."""
    missing = [
        f"images.{name}.secrets.{key}: there is no file {path}"
        for name in built
        for key, path in work.config.images[name].secrets.items()
        if not (work.root / path).is_file()
    ]
    if missing:
        raise ConfigurationError(missing[0], hint="write the secret into that file", details=tuple(missing[1:]))


def _require_submodules(work: Workspace, built: Sequence[str]) -> None:
    """A submodule that is not there is an empty folder, and would be missed only in the finished image."""
    for folder in missing_submodules(work.git.top):
        for name in built:
            image = work.config.images[name]
            context = (work.root / image.context).resolve()
            if not folder.is_relative_to(context):
                continue
            ignored = ignore_patterns(context, dockerfile_path(work.root, image))
            if not ignored.matches(folder.relative_to(context).as_posix()):
                path = folder.relative_to(work.git.top)
                raise PreconditionError(
                    f"the submodule {path} is not initialised, and images.{name} is built from it",
                    hint=f"git -C {work.git.top} submodule update --init {path}",
                )


def bases(
    work: Workspace, builds: Sequence[Variant] = (), *, update: bool = False, dry: bool = False
) -> engine_bases.Resolution:
    """Resolve the bases of `builds` (default: all), move the lock where it must move, and provide them.

    Those of stages that are checks are among them: `test` takes what is locked, and locks nothing.
    """
    path = work.root / LOCK_NAME
    client = work.engine.client  # what runs the builds must be known before it is asked what they need
    uses = with_stages(work, base_uses(work, builds or variants(work.config)))
    wanted = engine_bases.needs(work.config, uses)
    resolution = engine_bases.resolve(
        wanted, read_lock(path), client=client, root=work.root, cache=work.paths.cache, update=update
    )
    if not dry:
        if resolution.lock.bases or path.exists():
            write_lock(path, resolution.lock)
        provide_bases(work, resolution.bases.values())
    return resolution
