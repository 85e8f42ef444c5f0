"""Build materials: bases as the lock file pins them, build arguments and secrets, for images and for stage checks."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.config.models import Configuration
from lyra_tasks.config.platforms import image_from_key, variants_by_key
from lyra_tasks.dockerfile.input_hashes import ImageInputs, scan_image
from lyra_tasks.dockerfile.lock_file import LOCK_FILE_NAME, build_context_name, lock_key, read_lock_file
from lyra_tasks.dockerfile.parse import ImageUse
from lyra_tasks.engine.bases.archive import ArchivedImage, write_archive_as
from lyra_tasks.engine.bases.inputs import collect_base_requests
from lyra_tasks.engine.bases.registry import find_local_image, image_diff_ids
from lyra_tasks.engine.bases.resolve import BaseInstall, ResolvedBase, plan_base_installs, resolve_bases
from lyra_tasks.engine.buildx.contexts import BuildSources, context_key
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.objects.containers import inspect_image
from lyra_tasks.engine.objects.ownership import Owner
from lyra_tasks.errors import BuildError, PreconditionError, StaleError

if TYPE_CHECKING:
    import docker

    from lyra_tasks.engine.client.connect import Engine
    from lyra_tasks.engine.workspace import Workspace

_NAMED_CONTEXTS_SINCE = (23, 0)


@dataclass(frozen=True)
class BuildMaterials:
    """The project's directory and the bases by build (as in `config.platforms`) and name.

    `arguments` is None if bases are passed as named contexts. For an engine that only takes build arguments, it maps
    each build's global ARGs to the names of its bases. `sources` are the contexts as they were hashed.
    """

    root: str
    bases: Mapping[str, Mapping[str, ResolvedBase]]
    arguments: Mapping[str, Mapping[str, str]] | None = None
    sources: BuildSources | None = None


@dataclass(frozen=True)
class BaseTargets:
    """The bake targets that build bases; `prerequisites` maps those that must be built first to their tags."""

    targets: Mapping[str, Any]
    prerequisites: Mapping[str, str]


def collect_materials(
    work: Workspace,
    uses: Mapping[str, Sequence[ImageUse]],
    bases: Mapping[str, ResolvedBase],
    *,
    separate_builder: bool = False,
    inputs: Mapping[str, ImageInputs] | None = None,
) -> BuildMaterials:
    """Collect the materials of the builds in `uses`, for the engine's own builder or a separate one.

    `inputs` are those that the builds were planned for; by default the contexts are hashed as they are now.
    """
    arguments = find_base_arguments(work, uses, separate_builder=separate_builder)
    sources = _collect_sources(work, uses, inputs)
    return BuildMaterials(str(work.root), group_bases_by_build(work.config, uses, bases), arguments, sources)


def _collect_sources(work: Workspace, builds: Iterable[str], inputs: Mapping[str, ImageInputs] | None) -> BuildSources:
    snapshots = {}
    for build in builds:
        image = work.config.images[image_from_key(build)]
        key = context_key(str(work.root), image)
        if key not in snapshots:
            snapshots[key] = inputs[build].source if inputs is not None else scan_image(work.root, image)
    return BuildSources(work.paths.state, work.paths.project_id, work.paths.work / "hashes", snapshots)


def group_bases_by_build(
    config: Configuration, uses: Mapping[str, Sequence[ImageUse]], bases: Mapping[str, ResolvedBase]
) -> dict[str, dict[str, ResolvedBase]]:
    """Return the resolved bases by build and name of the build context."""
    variants = variants_by_key(config)
    return {
        build: {
            build_context_name(use, variants[build].platform): bases[lock_key(config, variants[build].image, use)]
            for use in image_uses
        }
        for build, image_uses in uses.items()
    }


def find_base_arguments(
    work: Workspace, uses: Mapping[str, Sequence[ImageUse]], *, separate_builder: bool = False
) -> dict[str, dict[str, str]] | None:
    """Map each build's global ARGs to the names of its bases; None if the engine takes bases as named contexts.

    Raises PreconditionError if the engine cannot take one of the bases either way.
    """
    facts = work.engine.facts
    if separate_builder or facts.release >= _NAMED_CONTEXTS_SINCE:
        return None
    without_argument: list[str] = []
    ambiguous: list[str] = []
    for bases in uses.values():
        for base in bases:
            location = f"{base.location}: {base.reference}"
            if not base.argument:
                without_argument.append(location)
            elif any(other.argument == base.argument and other.platform != base.platform for other in bases):
                ambiguous.append(location)
    if without_argument:
        raise PreconditionError(
            f"Docker Engine {facts.version} can only replace a base that is named by a build argument",
            hint="Write `ARG BASE=…` and `FROM ${BASE}`, or build with Docker Engine 23.0 or newer",
            details=tuple(without_argument),
        )
    if ambiguous:
        raise PreconditionError(
            f"Docker Engine {facts.version} cannot use one build argument for a base on two platforms",
            hint="Use a second argument for the stage on $BUILDPLATFORM, or Docker Engine 23.0 or newer",
            details=tuple(dict.fromkeys(ambiguous)),
        )
    variants = variants_by_key(work.config)
    return {
        build: {base.argument: build_context_name(base, variants[build].platform) for base in bases}
        for build, bases in uses.items()
    }


def resolve_locked_bases(work: Workspace, uses: Mapping[str, Sequence[ImageUse]]) -> dict[str, ResolvedBase]:
    """Resolve the bases in `uses` as they are locked, or raise StaleError: only a build may change the lock file."""
    lock = read_lock_file(work.root / LOCK_FILE_NAME)
    requests = collect_base_requests(work.config, uses)
    missing = [location for request in requests if request.key not in lock.bases for location in request.locations]
    if not missing:
        resolution = resolve_bases(requests, lock, client=work.engine.client, root=work.root, cache=work.paths.cache)
        if resolution.lock == lock:
            return dict(resolution.bases)
    raise StaleError("A base differs from the lock file", hint="Run `build` first", details=tuple(missing))


def load_missing_bases(work: Workspace, bases: Iterable[ResolvedBase]) -> None:
    """Load the bases that the engine does not have; the journal records them first, so that `clean` removes them."""
    installs = plan_base_installs(bases)
    if not installs:
        return
    work.owner.record_image_intents(work.engine, [install.tag for install in installs], private=True)
    image_ids = install_bases(installs, work.engine.client, scratch=work.paths.cache)
    work.owner.record_created_images(work.engine, image_ids, foreign=True)


def create_base_targets(materials: BuildMaterials, builds: Iterable[str]) -> BaseTargets:
    """Return the bake targets that build the bases of `builds`."""
    targets: dict[str, Any] = {}
    prerequisites: dict[str, str] = {}
    for base in (base for build in builds for base in materials.bases[build].values()):
        if base.bake_target is None:
            continue
        if materials.arguments is None:
            targets[base.target_name] = {**base.bake_target, "output": ["type=cacheonly"]}
        else:
            targets[base.target_name] = {**base.bake_target, "tags": [base.tag], "output": ["type=docker"]}
            prerequisites[base.target_name] = base.tag
    return BaseTargets(targets, prerequisites)


def bake_target_inputs(config: Configuration, build: str, materials: BuildMaterials) -> dict[str, Any]:
    """Return the fields that every bake target of an image or one of its stages has."""
    image, bases = config.images[image_from_key(build)], materials.bases[build]
    arguments = materials.arguments[build] if materials.arguments is not None else {}
    context, dockerfile = context_key(materials.root, image)
    return {
        "context": context,
        "dockerfile": dockerfile,
        "args": {**image.args, **{argument: bases[name].reference for argument, name in arguments.items()}},
        "contexts": _named_contexts(bases) if materials.arguments is None else {},
        "secret": [f"id={key},src={materials.root}/{path}" for key, path in sorted(image.secrets.items())],
    }


def build_prerequisites(
    engine: Engine, owner: Owner, prerequisites: Mapping[str, str], build: Callable[[tuple[str, ...]], Any]
) -> None:
    """Build base targets before all others and record their tags, where an engine must find bases by tag."""
    if not prerequisites:
        return
    owner.record_image_intents(engine, list(prerequisites.values()), private=True)
    build(tuple(prerequisites))
    owner.record_created_images(
        engine, {tag: str(inspect_built_image(engine, tag)["Id"]) for tag in prerequisites.values()}
    )


def inspect_built_image(engine: Engine, reference: str) -> dict[str, Any]:
    """Inspect an image that was just built, or raise BuildError if it is not in the engine."""
    image = inspect_image(engine, reference)
    if image is None:
        raise BuildError(
            f"The build succeeded, but {reference} is not in the engine",
            hint="Use the default builder, or one that loads its results into the engine",
        )
    return image


def read_secret_lines(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the lines of secret files that must be redacted in build logs."""
    lines = (line.strip() for path in paths for line in Path(path).read_text(errors="replace").splitlines())
    return tuple(line for line in lines if len(line) >= 4)


def list_secret_paths(config: Configuration, root: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the paths of the secret files that builds of these images read."""
    return tuple(f"{root}/{path}" for name in names for path in config.images[name].secrets.values())


def _named_contexts(bases: Mapping[str, ResolvedBase]) -> dict[str, str]:
    """Return the named contexts of a build: `NAME`, or `NAME::PLATFORM` for a base used on two platforms."""
    references = {name: name.removesuffix(f"@{base.platform}") for name, base in bases.items()}
    counts = Counter(references.values())
    contexts = {}
    for name, base in bases.items():
        reference = references[name]
        contexts[reference if counts[reference] == 1 else f"{reference}::{base.platform}"] = base.context
    return contexts


def install_bases(installs: Iterable[BaseInstall], client: docker.DockerClient, *, scratch: Path) -> dict[str, str]:
    """Load and tag images; return their ids by tag. Copies of archives are written below `scratch`."""
    ids = {}
    for install in installs:
        with translate_errors(f"loading base {install.tag}"):
            if install.archive:
                _load_archive(install.tag, install.archive, client.api, scratch)
            else:
                repository, _, tag = install.tag.rpartition(":")
                client.api.tag(install.image_id, repository, tag)
            ids[install.tag] = _verify_installed(install, client)
    return ids


def _load_archive(tag: str, archive: ArchivedImage, api: Any, scratch: Path) -> None:
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=scratch) as copy:
        write_archive_as(archive, tag, copy)
        copy.seek(0)
        for _ in api.load_image(copy):
            pass


def _verify_installed(install: BaseInstall, client: docker.DockerClient) -> str:
    """Return the id of the image that has the tag, or raise PreconditionError if it is not the one from the archive."""
    image = find_local_image(client, install.tag)
    if image and (not install.archive or image_diff_ids(image) == install.archive.diff_ids):
        return str(image["Id"])
    source = install.archive.path if install.archive else install.image_id
    raise PreconditionError(
        f"The engine did not load {source}",
        hint="Check that the archive is complete and made for the engine's platform",
    )
