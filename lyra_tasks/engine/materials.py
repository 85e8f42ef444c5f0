"""What the stages of images are built from: bases as the lock pins them, arguments, secrets.

The same for a build and for a stage that is built as a check.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.config.base_keys import named
from lyra_tasks.config.dockerfile import From
from lyra_tasks.config.lock import LOCK_NAME
from lyra_tasks.config.lock import read as read_lock
from lyra_tasks.config.models import Configuration
from lyra_tasks.config.platforms import image_of, variants_by_key
from lyra_tasks.engine import bases as engine_bases
from lyra_tasks.engine.base_supply import provide
from lyra_tasks.engine.bases import ResolvedBase
from lyra_tasks.engine.objects import inspect_image
from lyra_tasks.engine.ownership import Owner
from lyra_tasks.errors import BuildError, PreconditionError, StaleError

if TYPE_CHECKING:
    from lyra_tasks.engine.connect import Engine
    from lyra_tasks.engine.workspace import Workspace

_NAMED_CONTEXTS_FROM = (23, 0)


@dataclass(frozen=True)
class Materials:
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
    first: Mapping[str, str]


def materials(
    work: Workspace,
    uses: Mapping[str, Sequence[From]],
    bases: Mapping[str, ResolvedBase],
    *,
    elsewhere: bool = False,
) -> Materials:
    """The materials of the images in `uses`, for the engine itself or a builder `elsewhere`.

    PreconditionError for a base that the engine cannot be given.
    """
    arguments = base_arguments(work, uses, elsewhere=elsewhere)
    return Materials(str(work.root), engine_bases.by_build(work.config, uses, bases), arguments)


def base_arguments(
    work: Workspace, uses: Mapping[str, Sequence[From]], *, elsewhere: bool = False
) -> dict[str, dict[str, str]] | None:
    """The global ARGs that bases are given by, by build; None where they are offered as named contexts.

    PreconditionError for a base that the engine cannot be given.
    """
    facts = work.engine.facts
    named_contexts = elsewhere or facts.release >= _NAMED_CONTEXTS_FROM
    return None if named_contexts else _arguments(work.config, uses, facts.version)


def locked_bases(work: Workspace, uses: Mapping[str, Sequence[From]]) -> dict[str, ResolvedBase]:
    """The bases in `uses` as the lock pins them; StaleError where it does not, since only a build moves the lock."""
    lock = read_lock(work.root / LOCK_NAME)
    wanted = engine_bases.needs(work.config, uses)
    missing = [place for need in wanted if need.key not in lock.bases for place in need.places]
    if not missing:
        found = engine_bases.resolve(wanted, lock, client=work.engine.client, root=work.root, cache=work.paths.cache)
        if found.lock == lock:
            return dict(found.bases)
    raise StaleError("a base is not as the lock pins it", hint="run `build` first", details=tuple(missing))


def provide_bases(work: Workspace, bases: Iterable[ResolvedBase]) -> None:
    """Bring into the engine what it lacks of `bases`; written down before, so that `clean` takes it away."""
    supplies = engine_bases.plan(bases)
    if not supplies:
        return
    work.owner.intend_images(work.engine, [each.tag for each in supplies], private=True)
    made = provide(supplies, work.engine.client, scratch=work.paths.cache)
    work.owner.made_images(work.engine, made)


def base_targets(found: Materials, builds: Iterable[str]) -> BaseTargets:
    """The targets that make the bases of `builds`."""
    targets: dict[str, Any] = {}
    first: dict[str, str] = {}
    for base in (base for build in builds for base in found.bases[build].values()):
        if base.bake_target is None:
            continue
        if found.arguments is None:
            targets[base.target_name] = {**base.bake_target, "output": ["type=cacheonly"]}
        else:
            targets[base.target_name] = {**base.bake_target, "tags": [base.tag], "output": ["type=docker"]}
            first[base.target_name] = base.tag
    return BaseTargets(targets, first)


def ingredients(config: Configuration, build: str, found: Materials) -> dict[str, Any]:
    """What every target of a definition has that builds a stage of an image, for the platform of `build`."""
    image = config.images[image_of(build)]
    context = f"{found.root}/{image.context}"
    return {
        "context": context,
        "dockerfile": f"{context}/{image.dockerfile}",
        "args": {**image.args, **_base_arguments(build, found)},
        "contexts": _contexts(build, found),
        "secret": [f"id={key},src={found.root}/{path}" for key, path in sorted(image.secrets.items())],
    }


def build_bases(
    engine: Engine, owner: Owner, first: Mapping[str, str], build: Callable[[tuple[str, ...]], Any]
) -> None:
    """Let `build` make the targets `first`, so that what is built on them finds their tags in the engine."""
    if not first:
        return
    owner.intend_images(engine, list(first.values()), private=True)
    build(tuple(first))
    owner.made_images(engine, {tag: str(built_image(engine, tag)["Id"]) for tag in first.values()})


def built_image(engine: Engine, reference: str) -> dict[str, Any]:
    """What the engine says of an image that a build has just made; BuildError if it does not hold it."""
    found = inspect_image(engine, reference)
    if found is None:
        raise BuildError(
            f"the build ended well, but the engine does not hold {reference}",
            hint="the builder does not load its results into the engine; use the default builder",
        )
    return found


def secret_lines(paths: Iterable[str]) -> tuple[str, ...]:
    """The lines of secret files, so that a build step that prints one does not put it into the log."""
    values = []
    for path in paths:
        values += [line.strip() for line in Path(path).read_text(errors="replace").splitlines()]
    return tuple(value for value in values if len(value) >= 4)


def secret_paths(config: Configuration, root: str, names: Iterable[str]) -> tuple[str, ...]:
    """The secret files that builds of the images `names` read."""
    return tuple(f"{root}/{path}" for name in names for path in config.images[name].secrets.values())


def _contexts(build: str, found: Materials) -> dict[str, str]:
    """BuildKit asks for `NAME::PLATFORM` first; the platform is said where a build needs a base for two."""
    bases = found.bases[build] if found.arguments is None else {}
    references = {name: name.removesuffix(f"@{base.platform}") for name, base in bases.items()}
    count = Counter(references.values())
    return {
        references[name] if count[references[name]] == 1 else f"{references[name]}::{base.platform}": base.context
        for name, base in bases.items()
    }


def _base_arguments(build: str, found: Materials) -> dict[str, str]:
    arguments = found.arguments[build] if found.arguments is not None else {}
    return {argument: found.bases[build][name].reference for argument, name in arguments.items()}


def _arguments(config: Configuration, uses: Mapping[str, Sequence[From]], version: str) -> dict[str, dict[str, str]]:
    """By build, the base that each global ARG stands for; PreconditionError for a base that is named without one."""
    fixed = tuple(f"{each.where}: {each.reference}" for bases in uses.values() for each in bases if not each.argument)
    if fixed:
        raise PreconditionError(
            f"Docker Engine {version} takes a base only as the build argument that a FROM consists of",
            hint="write `ARG BASE=…` and `FROM ${BASE}`, or build on Docker Engine 23.0 or newer",
            details=fixed,
        )
    twice = tuple(
        f"{each.where}: {each.reference}"
        for bases in uses.values()
        for each in bases
        if len({other.platform for other in bases if other.argument == each.argument}) > 1
    )
    if twice:
        raise PreconditionError(
            f"Docker Engine {version} takes a base for one platform by one build argument",
            hint="use an argument of its own for the stage that is built on $BUILDPLATFORM, or a newer engine",
            details=tuple(dict.fromkeys(twice)),
        )
    known = variants_by_key(config)
    return {
        build: {each.argument: named(each, known[build].platform) for each in bases} for build, bases in uses.items()
    }
