"""What the stages of images are built from: bases as the lock pins them, arguments, secrets.

The same for a build and for a stage that is built as a check.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.config.models import Configuration
from lyra_tasks.config.platforms import image_from_key, variants_by_key
from lyra_tasks.dockerfile.lock_file import LOCK_FILE_NAME, build_context_name
from lyra_tasks.dockerfile.lock_file import read_lock_file as read_lock
from lyra_tasks.dockerfile.parse import ImageUse
from lyra_tasks.engine.bases.archive import ArchivedImage, write_archive_as
from lyra_tasks.engine.bases.registry import find_local_image
from lyra_tasks.engine.bases.resolve import (
    BaseInstall,
    ResolvedBase,
    collect_base_requests,
    group_bases_by_build,
    plan_base_installs,
    resolve_bases,
)
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
    """The project's folder, and by what a build is called (`config.platforms`) its bases.

    `arguments` is None where bases are offered as named contexts. An older engine takes them as build arguments: then
    it holds, by build, which of its bases each global ARG stands for.
    """

    root: str
    bases: Mapping[str, Mapping[str, ResolvedBase]]
    arguments: Mapping[str, Mapping[str, str]] | None = None


@dataclass(frozen=True)
class BaseTargets:
    """The targets of a definition that make bases; `first` are those to be built before the others, with their tags."""

    targets: Mapping[str, Any]
    prerequisites: Mapping[str, str]


def collect_materials(
    work: Workspace,
    uses: Mapping[str, Sequence[ImageUse]],
    bases: Mapping[str, ResolvedBase],
    *,
    separate_builder: bool = False,
) -> BuildMaterials:
    """The materials of the images in `uses`, for the engine itself or a builder `elsewhere`.

    PreconditionError for a base that the engine cannot be given.
    """
    arguments = find_base_arguments(work, uses, separate_builder=separate_builder)
    return BuildMaterials(str(work.root), group_bases_by_build(work.config, uses, bases), arguments)


def find_base_arguments(
    work: Workspace, uses: Mapping[str, Sequence[ImageUse]], *, separate_builder: bool = False
) -> dict[str, dict[str, str]] | None:
    """The global ARGs that bases are given by, by build; None where they are offered as named contexts.

    PreconditionError for a base that the engine cannot be given.
    """
    facts = work.engine.facts
    has_named_contexts = separate_builder or facts.release >= _NAMED_CONTEXTS_SINCE
    return None if has_named_contexts else _map_base_arguments(work.config, uses, facts.version)


def resolve_locked_bases(work: Workspace, uses: Mapping[str, Sequence[ImageUse]]) -> dict[str, ResolvedBase]:
    """The bases in `uses` as the lock pins them; StaleError where it does not, since only a build moves the lock."""
    lock = read_lock(work.root / LOCK_FILE_NAME)
    requests = collect_base_requests(work.config, uses)
    missing = [location for request in requests if request.key not in lock.bases for location in request.locations]
    if not missing:
        resolution = resolve_bases(requests, lock, client=work.engine.client, root=work.root, cache=work.paths.cache)
        if resolution.lock == lock:
            return dict(resolution.bases)
    raise StaleError("a base is not as the lock pins it", hint="run `build` first", details=tuple(missing))


def load_missing_bases(work: Workspace, bases: Iterable[ResolvedBase]) -> None:
    """Bring into the engine what it lacks of `bases`; written down before, so that `clean` takes it away."""
    installs = plan_base_installs(bases)
    if not installs:
        return
    work.owner.record_image_intents(work.engine, [install.tag for install in installs], private=True)
    image_ids = install_bases(installs, work.engine.client, scratch=work.paths.cache)
    work.owner.record_created_images(work.engine, image_ids)


def create_base_targets(materials: BuildMaterials, builds: Iterable[str]) -> BaseTargets:
    """The targets that make the bases of `builds`."""
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
    """What every target of a definition has that builds a stage of an image, for the platform of `build`."""
    image = config.images[image_from_key(build)]
    context = f"{materials.root}/{image.context}"
    return {
        "context": context,
        "dockerfile": f"{context}/{image.dockerfile}",
        "args": {**image.args, **_argument_values(build, materials)},
        "contexts": _named_contexts(build, materials),
        "secret": [f"id={key},src={materials.root}/{path}" for key, path in sorted(image.secrets.items())],
    }


def build_prerequisites(
    engine: Engine, owner: Owner, prerequisites: Mapping[str, str], build: Callable[[tuple[str, ...]], Any]
) -> None:
    """Let `build` make the targets `first`, so that what is built on them finds their tags in the engine."""
    if not prerequisites:
        return
    owner.record_image_intents(engine, list(prerequisites.values()), private=True)
    build(tuple(prerequisites))
    owner.record_created_images(
        engine, {tag: str(inspect_built_image(engine, tag)["Id"]) for tag in prerequisites.values()}
    )


def inspect_built_image(engine: Engine, reference: str) -> dict[str, Any]:
    """What the engine says of an image that a build has just made; BuildError if it does not hold it."""
    image = inspect_image(engine, reference)
    if image is None:
        raise BuildError(
            f"the build ended well, but the engine does not hold {reference}",
            hint="the builder does not load its results into the engine; use the default builder",
        )
    return image


def read_secret_lines(paths: Iterable[str]) -> tuple[str, ...]:
    """The lines of secret files, so that a build step that prints one does not put it into the log."""
    values = []
    for path in paths:
        values += [line.strip() for line in Path(path).read_text(errors="replace").splitlines()]
    return tuple(value for value in values if len(value) >= 4)


def list_secret_paths(config: Configuration, root: str, names: Iterable[str]) -> tuple[str, ...]:
    """The secret files that builds of the images `names` read."""
    return tuple(f"{root}/{path}" for name in names for path in config.images[name].secrets.values())


def _named_contexts(build: str, materials: BuildMaterials) -> dict[str, str]:
    """BuildKit asks for `NAME::PLATFORM` first; the platform is said where a build needs a base for two."""
    bases = materials.bases[build] if materials.arguments is None else {}
    references = {name: name.removesuffix(f"@{base.platform}") for name, base in bases.items()}
    reference_counts = Counter(references.values())
    return {
        references[name]
        if reference_counts[references[name]] == 1
        else f"{references[name]}::{base.platform}": base.context
        for name, base in bases.items()
    }


def _argument_values(build: str, materials: BuildMaterials) -> dict[str, str]:
    arguments = materials.arguments[build] if materials.arguments is not None else {}
    return {argument: materials.bases[build][name].reference for argument, name in arguments.items()}


def _map_base_arguments(
    config: Configuration, uses: Mapping[str, Sequence[ImageUse]], version: str
) -> dict[str, dict[str, str]]:
    """By build, the base that each global ARG stands for; PreconditionError for a base that is named without one."""
    without_argument = tuple(
        f"{base.location}: {base.reference}" for bases in uses.values() for base in bases if not base.argument
    )
    if without_argument:
        raise PreconditionError(
            f"Docker Engine {version} takes a base only as the build argument that a FROM consists of",
            hint="write `ARG BASE=…` and `FROM ${BASE}`, or build on Docker Engine 23.0 or newer",
            details=without_argument,
        )
    ambiguous = tuple(
        f"{base.location}: {base.reference}"
        for bases in uses.values()
        for base in bases
        if len({other.platform for other in bases if other.argument == base.argument}) > 1
    )
    if ambiguous:
        raise PreconditionError(
            f"Docker Engine {version} takes a base for one platform by one build argument",
            hint="use an argument of its own for the stage that is built on $BUILDPLATFORM, or a newer engine",
            details=tuple(dict.fromkeys(ambiguous)),
        )
    variants = variants_by_key(config)
    return {
        build: {base.argument: build_context_name(base, variants[build].platform) for base in bases}
        for build, bases in uses.items()
    }


def install_bases(installs: Iterable[BaseInstall], client: docker.DockerClient, *, scratch: Path) -> dict[str, str]:
    """Load and tag what was planned; returns the engine's image ids by tag. `scratch` takes an archive's copy."""
    ids = {}
    for install in installs:
        with translate_errors(f"providing the base {install.tag}"):
            if install.archive:
                _load_archive(install.tag, install.archive, client, scratch)
            else:
                repository, _, tag = install.tag.rpartition(":")
                client.api.tag(install.image_id, repository, tag)
            ids[install.tag] = _verify_installed(install, client)
    return ids


def _load_archive(tag: str, archive: ArchivedImage, client: docker.DockerClient, scratch: Path) -> None:
    api: Any = client.api
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=scratch) as copy:
        write_archive_as(archive, tag, copy)
        copy.seek(0)
        for _ in api.load_image(copy):
            pass


def _verify_installed(install: BaseInstall, client: docker.DockerClient) -> str:
    """The id of the image that now has the tag, after a look at whether it is the one that was meant."""
    image = find_local_image(client, install.tag)
    expected_diff_ids = install.archive.diff_ids if install.archive else None
    if image is None or (
        expected_diff_ids is not None and tuple(image["RootFS"].get("Layers") or ()) != expected_diff_ids
    ):
        source = install.archive.path if install.archive else install.image_id
        raise PreconditionError(
            f"the engine did not take over {source}",
            hint="see that the archive is whole, and made for its platform",
        )
    return str(image["Id"])
