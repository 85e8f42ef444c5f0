"""What a build will do, as a value: one bake definition, the references it makes, the inputs it was planned for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lyra_tasks.config.models import Configuration
from lyra_tasks.engine.bases import ResolvedBase
from lyra_tasks.engine.builder import Builder


@dataclass(frozen=True)
class BuildFlags:
    """The flags that Docker users know."""

    no_cache: bool = False
    pull: bool = False


@dataclass(frozen=True)
class BuildFacts:
    """What was found out before planning; `bases` and `inputs` are by image name.

    `arguments` is None where bases are offered as named contexts. An older engine takes them as build arguments: then
    it holds, by image name, the reference that each global ARG stands for. `builder` is a named one, if any, and
    `archives` the folder that takes its results where it does not put them into the engine. `caches` are by image name.
    """

    root: str
    version: str
    image_tag: str
    commit: str
    dirty: bool
    epoch: int
    source: str
    store: str
    bases: Mapping[str, Mapping[str, ResolvedBase]]
    inputs: Mapping[str, Mapping[str, str]]
    arguments: Mapping[str, Mapping[str, str]] | None = None
    builder: Builder | None = None
    archives: str = ""
    caches: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedImage:
    """One image of a build: its target in the definition, its reference and what it is built from.

    `archive` is the file that has to be loaded into the engine afterwards, if the builder does not put it there.
    """

    name: str
    target: str
    reference: str
    platform: str
    inputs: Mapping[str, str]
    bases: Mapping[str, str]
    archive: str = ""


@dataclass(frozen=True)
class BuildPlan:
    """A bake definition and what comes out of it; `first` are the targets to be built before, with their tags."""

    config: Configuration
    definition: Mapping[str, Any]
    images: tuple[PlannedImage, ...]
    facts: BuildFacts
    secrets: tuple[str, ...] = ()
    first: Mapping[str, str] = field(default_factory=dict)


def plan(config: Configuration, facts: BuildFacts, names: Sequence[str], flags: BuildFlags = BuildFlags()) -> BuildPlan:
    """Plan one parallel build of the images `names`."""
    platform = config.proxima.platforms[0]
    targets: dict[str, Any] = {}
    first: dict[str, str] = {}
    images = []
    for name in names:
        bases = facts.bases[name]
        for base in bases.values():
            if base.bake_target is None:
                continue
            if facts.arguments is None:
                targets[base.target_name] = {**base.bake_target, "output": ["type=cacheonly"]}
            else:
                targets[base.target_name] = {**base.bake_target, "tags": [base.tag], "output": ["type=docker"]}
                first[base.target_name] = base.tag
        target = f"image-{_target_name(name)}"
        reference = f"{config.project.name}/{name}:{facts.image_tag}"
        targets[target] = _target(config, name, reference, platform, facts, flags)
        pinned = {reference: base.digest for reference, base in bases.items()}
        archive = f"{facts.archives}/{target}.tar" if facts.archives else ""
        images.append(PlannedImage(name, target, reference, platform, facts.inputs[name], pinned, archive))
    definition = {"group": {"default": {"targets": [image.target for image in images]}}, "target": targets}
    secrets = tuple(f"{facts.root}/{path}" for name in names for path in config.images[name].secrets.values())
    return BuildPlan(config, definition, tuple(images), facts, secrets, first)


def _target(
    config: Configuration, name: str, reference: str, platform: str, facts: BuildFacts, flags: BuildFlags
) -> dict[str, Any]:
    image = config.images[name]
    context = f"{facts.root}/{image.context}"
    target: dict[str, Any] = {
        "context": context,
        "dockerfile": f"{context}/{image.dockerfile}",
        "args": {**image.args, **_base_arguments(name, facts)},
        "contexts": _contexts(name, facts),
        "labels": labels(config, name, facts),
        "tags": [reference],
        "platforms": [platform],
        "output": [_output(name, facts)],
        "secret": [f"id={key},src={facts.root}/{path}" for key, path in sorted(image.secrets.items())],
    }
    if image.target:
        target["target"] = image.target
    target |= {key: list(entries) for key, entries in facts.caches.get(name, {}).items() if entries}
    if flags.no_cache:
        target["no-cache"] = True
    if flags.pull:
        target["pull"] = True
    return target


def _output(name: str, facts: BuildFacts) -> str:
    if facts.archives:
        return f"type=docker,oci-mediatypes=true,dest={facts.archives}/image-{_target_name(name)}.tar"
    # a docker-archive type would be loaded twice; on the containerd store the image is exported in place
    return "type=image,oci-mediatypes=true" if facts.store == "containerd" else "type=docker"


def _contexts(name: str, facts: BuildFacts) -> dict[str, str]:
    bases = facts.bases[name] if facts.arguments is None else {}
    return {reference: base.context for reference, base in bases.items()}


def _base_arguments(name: str, facts: BuildFacts) -> dict[str, str]:
    arguments = facts.arguments[name] if facts.arguments is not None else {}
    return {argument: facts.bases[name][reference].reference for argument, reference in arguments.items()}


def labels(config: Configuration, name: str, facts: BuildFacts) -> dict[str, str]:
    """The OCI labels of an image: never the version, so that tagging a tested commit changes no byte."""
    prefix = "org.opencontainers.image"
    found = {
        "title": f"{config.project.name}/{name}",
        "description": config.project.description,
        "source": config.project.source or facts.source,
        "revision": facts.commit,
        "licenses": config.project.licenses,
    }
    bases = facts.bases[name]
    if len(bases) == 1:
        ((reference, base),) = bases.items()
        found |= {"base.name": reference, "base.digest": base.digest}
    return {f"{prefix}.{key}": value for key, value in sorted(found.items()) if value}


def _target_name(name: str) -> str:
    """Bake's target names know no dots."""
    return name.replace(".", "_")
