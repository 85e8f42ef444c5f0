"""Collect the facts of a build: version, locked bases, inputs and cache options."""

from __future__ import annotations

import datetime
import re
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.builds.plan import BuildFacts
from lyra_tasks.config.models import Builder
from lyra_tasks.config.platforms import Variant, image_from_key, list_variants
from lyra_tasks.dockerfile.context import ContextSnapshot, format_names, list_touched
from lyra_tasks.dockerfile.input_hashes import ImageInputs, dockerfile_path, read_ignore_patterns, scan_contexts
from lyra_tasks.dockerfile.lock_file import LOCK_FILE_NAME, read_lock_file, write_lock_file
from lyra_tasks.engine.bases.inputs import add_stage_uses, collect_base_requests, find_base_uses, hash_current_inputs
from lyra_tasks.engine.bases.materials import collect_materials, find_base_arguments, load_missing_bases
from lyra_tasks.engine.bases.resolve import BaseResolution, resolve_bases
from lyra_tasks.engine.buildx.bake import require_buildx
from lyra_tasks.engine.buildx.builder import find_builder
from lyra_tasks.engine.buildx.docker_cli import preload_docker_cli
from lyra_tasks.engine.client.connect import import_docker_sdk
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import ConfigurationError, PreconditionError, StaleError, UsageError
from lyra_tasks.files import display_path, quote_path
from lyra_tasks.images.third_party.prepare import warn_about_unused_bases
from lyra_tasks.rules.catalogue import SOURCE_COMMITTED
from lyra_tasks.rules.deviations import enforce_rules
from lyra_tasks.rules.engine_support import check_engine_settings
from lyra_tasks.rules.services import check_capacity
from lyra_tasks.rules.source import describe_uncommitted
from lyra_tasks.suggest import select_known
from lyra_tasks.versions.git import find_missing_submodules

_LOCAL_CACHE = "type=local"


def select_builds(
    work: Workspace, images: Sequence[str], platforms: Sequence[str] = ()
) -> tuple[tuple[Variant, ...], tuple[Variant, ...]]:
    """Return the variants to build and those to fetch: the selected ones, or all.

    A platform may be a comma-separated list.
    """
    config = work.config
    known_names = [*config.images, *config.third_party_images]
    if not known_names:
        raise ConfigurationError("No images configured", hint="Add an [images.NAME] table to .lyra.toml")
    names = select_known(images, known_names, "image")
    known_platforms = list(dict.fromkeys(variant.platform for variant in list_variants(config)))
    selected_platforms = select_known(
        [platform for argument in platforms for platform in argument.split(",")], known_platforms, "platform"
    )
    builds = tuple(variant for variant in list_variants(config, names) if variant.platform in selected_platforms)
    if not builds:
        raise UsageError(
            f"Cannot build {' and '.join(names)} for {' or '.join(selected_platforms)}: not configured",
            hint="Change `images.NAME.platforms` or `proxima.platforms`",
        )
    own = tuple(variant for variant in builds if variant.image in config.images)
    return own, tuple(variant for variant in builds if variant not in own)


def collect_build_facts(
    work: Workspace, builds: Sequence[Variant], snapshots: Mapping[str, ContextSnapshot], *, dry_run: bool = False
) -> BuildFacts:
    """Collect the facts of `builds`; bases are resolved and, unless `dry_run` is set, locked and loaded.

    `snapshots` are those of the contexts of all images. Whether they are still the same is found when a build ends.
    """
    image_names = tuple(dict.fromkeys(build.image for build in builds))
    settings_checks = [check_capacity(work.config), check_engine_settings(work.config)]
    enforce_rules(work.config, settings_checks, datetime.date.today())
    _require_secrets(work, image_names)
    with ThreadPoolExecutor(1) as executor:
        executor.submit(import_docker_sdk)  # while git runs
        _require_submodules(work, image_names)
    if not _seem_unchanged(work, builds):
        preload_docker_cli()
    if work.git.uncommitted_inputs and not work.git.accepts_uncommitted:
        console.warn(f"{describe_uncommitted(work.git)} (rule {SOURCE_COMMITTED}): this is a snapshot")
    engine = work.engine
    require_buildx(engine)
    uses = find_base_uses(work, builds)
    builder = find_builder(engine, work.config.builder.name) if work.config.builder.name else None
    is_remote = builder is not None and builder.is_separate
    find_base_arguments(work, uses, separate_builder=is_remote)  # fail before bases are resolved
    lock_before = _read_lock(work)
    resolution = prepare_bases(work, builds, dry_run=dry_run)
    resolved_bases = resolution.bases
    if is_remote and not dry_run:
        from lyra_tasks.builds.base_layouts import export_local_bases

        resolved_bases = export_local_bases(engine, resolved_bases, work.run_directory / "bases")
    # the lock file may be in a context
    has_same_lock = _read_lock(work) == lock_before
    current = snapshots if has_same_lock else scan_contexts(work.root, work.config.images)
    inputs = hash_current_inputs(work, current, resolution.lock)
    _require_unchanged(snapshots, inputs, work.root / LOCK_FILE_NAME)
    return BuildFacts(
        materials=collect_materials(work, uses, resolved_bases, separate_builder=is_remote, inputs=inputs),
        version=work.version.semver,
        image_tag=work.version.image_tag,
        commit=work.git.commit,
        is_dirty=work.git.is_dirty,
        source_date_epoch=work.git.commit_time,
        source_url=work.git.remote_url,
        image_store=engine.facts.store,
        inputs=inputs,
        builder=builder,
        archive_directory=str(work.run_directory) if is_remote else "",
        caches=resolve_caches(work.config.builder, builds, work.root),
        always_built=frozenset(
            build.key
            for build in builds
            if work.config.builder.cache_to
            or reads_remote_files(dockerfile_path(work.root, work.config.images[build.image]))
        ),
    )


def _read_lock(work: Workspace) -> bytes:
    with suppress(FileNotFoundError):
        return (work.root / LOCK_FILE_NAME).read_bytes()
    return b""


def _seem_unchanged(work: Workspace, builds: Sequence[Variant]) -> bool:
    """Return whether all images were built from this commit and these changes, before anything is hashed."""
    records = [work.images.read(build.image, build.platform) for build in builds]
    return all(
        record is not None and (record.commit, record.version) == (work.git.commit, work.version.semver)
        for record in records
    )


def _require_unchanged(
    snapshots: Mapping[str, ContextSnapshot], inputs: Mapping[str, ImageInputs], lock_file: Path
) -> None:
    """Raise StaleError if a context changed since it was hashed, except for the lock file."""
    for build, current in inputs.items():
        snapshot = snapshots[image_from_key(build)]
        touched = (snapshot.context / name for name in list_touched(snapshot, current.source))
        if paths := [display_path(path) for path in touched if path.resolve() != lock_file]:
            raise StaleError(f"{format_names(paths)} changed during the build", hint="Run `build` again")


def reads_remote_files(dockerfile: Path) -> bool:
    """Return whether an ADD of a Dockerfile may read something that is not in the context."""
    instructions = re.sub(r"[\\`][ \t]*\r?\n", " ", dockerfile.read_text(errors="replace"))
    return re.search(r"(?im)^\s*(ONBUILD\s+)?ADD\s.*(://|git@|\$)", instructions) is not None


def _require_secrets(work: Workspace, image_names: Sequence[str]) -> None:
    """Raise an error for missing files of build secrets, which only builds need."""
    missing = [
        f"images.{name}.secrets.{key}: {path} does not exist"
        for name in image_names
        for key, path in work.config.images[name].secrets.items()
        if not (work.root / path).is_file()
    ]
    if missing:
        raise ConfigurationError(missing[0], hint="Write the secret to the file", details=tuple(missing[1:]))


def _require_submodules(work: Workspace, image_names: Sequence[str]) -> None:
    """Raise an error for uninitialized submodules in a build context, which would be empty in the image."""
    for submodule in find_missing_submodules(work.git.top):
        for name in image_names:
            image = work.config.images[name]
            context = (work.root / image.context).resolve()
            if not submodule.is_relative_to(context):
                continue
            ignore_matcher = read_ignore_patterns(context, dockerfile_path(work.root, image))
            if not ignore_matcher.matches(submodule.relative_to(context).as_posix()):
                path = submodule.relative_to(work.git.top)
                raise PreconditionError(
                    f"Submodule {path} is not initialized, but images.{name} is built from it",
                    hint=f"Run `git -C {quote_path(work.git.top)} submodule update --init {shlex.quote(str(path))}`",
                )


def prepare_bases(work: Workspace, builds: Sequence[Variant] = (), *, dry_run: bool = False) -> BaseResolution:
    """Resolve the bases of `builds` (default: all), update the lock file and load missing bases.

    Bases of check stages are included, because `test` uses the lock file without changing it.
    """
    path = work.root / LOCK_FILE_NAME
    client = work.engine.client  # connect first, since the platforms depend on the engine
    uses = add_stage_uses(work, find_base_uses(work, builds or list_variants(work.config, work.config.images)))
    warn_about_unused_bases(work)
    base_requests = collect_base_requests(work.config, uses)
    resolution = resolve_bases(
        base_requests, read_lock_file(path), client=client, root=work.root, cache=work.paths.cache
    )
    if not dry_run:
        if resolution.lock.bases or path.exists():
            write_lock_file(path, resolution.lock)
        load_missing_bases(work, resolution.bases.values())
    return resolution


def resolve_caches(builder: Builder, builds: Sequence[Variant], root: Path) -> dict[str, dict[str, list[str]]]:
    """Return `cache-from` and `cache-to` by variant key, without reading local caches that do not exist."""
    caches = {}
    for build in builds:
        sources = [_expand_entry(entry, build, root) for entry in builder.cache_from]
        caches[build.key] = {
            "cache-from": [entry for entry in sources if _is_readable(entry)],
            "cache-to": [_expand_entry(entry, build, root) for entry in builder.cache_to],
        }
    return caches


def _expand_entry(entry: str, build: Variant, root: Path) -> str:
    """Return a cache entry for one image, with local directories relative to the project."""
    fields = entry.replace("{image}", build.key.replace("@", "-").replace("/", "-")).split(",")
    if _LOCAL_CACHE in fields:
        pairs = [(field, *field.partition("=")) for field in fields]
        fields = [f"{key}={root / value}" if key in {"src", "dest"} else field for field, key, _, value in pairs]
    return ",".join(fields)


def _is_readable(entry: str) -> bool:
    fields = entry.split(",")
    sources = [field.removeprefix("src=") for field in fields if field.startswith("src=")]
    return _LOCAL_CACHE not in fields or all(Path(source, "index.json").is_file() for source in sources)
