"""What a build will do, as a value: one bake definition, the references it makes, the inputs it was planned for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lyra_tasks.config.models import Configuration
from lyra_tasks.engine.builder import Builder
from lyra_tasks.engine.materials import Materials, base_targets, ingredients, secret_paths


@dataclass(frozen=True)
class BuildFlags:
    """The flags that Docker users know."""

    no_cache: bool = False
    pull: bool = False


@dataclass(frozen=True)
class BuildFacts:
    """What was found out before planning; `inputs` are by image name.

    `builder` is a named one, if any, and `archives` the folder that takes its results where it does not put them into
    the engine. `caches` are by image name.
    """

    materials: Materials
    version: str
    image_tag: str
    commit: str
    dirty: bool
    epoch: int
    source: str
    store: str
    inputs: Mapping[str, Mapping[str, str]]
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
    made = base_targets(facts.materials, names)
    targets: dict[str, Any] = dict(made.targets)
    images = []
    for name in names:
        target = f"image-{_target_name(name)}"
        reference = f"{config.project.name}/{name}:{facts.image_tag}"
        targets[target] = _target(config, name, reference, platform, facts, flags)
        pinned = {reference: base.digest for reference, base in facts.materials.bases[name].items()}
        archive = f"{facts.archives}/{target}.tar" if facts.archives else ""
        images.append(PlannedImage(name, target, reference, platform, facts.inputs[name], pinned, archive))
    definition = {"group": {"default": {"targets": [image.target for image in images]}}, "target": targets}
    secrets = secret_paths(config, facts.materials.root, names)
    return BuildPlan(config, definition, tuple(images), facts, secrets, made.first)


def _target(
    config: Configuration, name: str, reference: str, platform: str, facts: BuildFacts, flags: BuildFlags
) -> dict[str, Any]:
    image = config.images[name]
    target: dict[str, Any] = {
        **ingredients(config, name, facts.materials),
        "labels": labels(config, name, facts),
        "tags": [reference],
        "platforms": [platform],
        "output": [_output(name, facts)],
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
    bases = facts.materials.bases[name]
    if len(bases) == 1:
        ((reference, base),) = bases.items()
        found |= {"base.name": reference, "base.digest": base.digest}
    return {f"{prefix}.{key}": value for key, value in sorted(found.items()) if value}


def _target_name(name: str) -> str:
    """Bake's target names know no dots."""
    return name.replace(".", "_")
