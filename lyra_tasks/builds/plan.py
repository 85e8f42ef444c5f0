"""Plan a build: one bake definition, the references it creates and the inputs it was planned for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lyra_tasks.config.models import Configuration
from lyra_tasks.config.platforms import Variant, platform_slug
from lyra_tasks.digests import canonical_json, sha256_hex
from lyra_tasks.dockerfile.input_hashes import ImageInputs
from lyra_tasks.engine.bases.materials import BuildMaterials, bake_target_inputs, create_base_targets, list_secret_paths
from lyra_tasks.engine.buildx.builder import Builder


@dataclass(frozen=True)
class BuildFacts:
    """The facts a build is planned from; `inputs` and `caches` are by variant key (`config.platforms`).

    A builder that does not load images into the engine writes them to `archive_directory`. Builds in `always_built`
    use something that may change elsewhere, or write a cache.
    """

    materials: BuildMaterials
    version: str
    image_tag: str
    commit: str
    is_dirty: bool
    source_date_epoch: int
    source_url: str
    image_store: str
    inputs: Mapping[str, ImageInputs]
    builder: Builder | None = None
    archive_directory: str = ""
    caches: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    always_built: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PlannedImage:
    """An image to build for one platform; `archive` is a file to load into the engine after the build, or empty.

    `key` is that of the variant, `target` a name in the bake definition; `bases` are pinned digests by FROM reference.
    `definition` is a hash of all that the builder is told, or empty if the image must be built in any case.
    """

    key: str
    name: str
    target: str
    reference: str
    platform: str
    inputs: ImageInputs
    bases: Mapping[str, str]
    archive: str = ""
    definition: str = ""


@dataclass(frozen=True)
class BuildPlan:
    """A bake definition and its images; `base_targets` (with their tags) are built before the others."""

    config: Configuration
    definition: Mapping[str, Any]
    images: tuple[PlannedImage, ...]
    facts: BuildFacts
    secrets: tuple[str, ...] = ()
    base_targets: Mapping[str, str] = field(default_factory=dict)


def plan_build(
    config: Configuration,
    facts: BuildFacts,
    builds: Sequence[Variant],
    *,
    no_cache: bool = False,
    pull: bool = False,
) -> BuildPlan:
    """Plan one parallel build with a target for each image and platform."""
    options = {name: True for name, is_set in (("no-cache", no_cache), ("pull", pull)) if is_set}
    base_build = create_base_targets(facts.materials, [build.key for build in builds])
    targets: dict[str, Any] = dict(base_build.targets)
    images = []
    for build in builds:
        target = _target_name(build)
        reference = _image_reference(config, build, facts.image_tag)
        archive = f"{facts.archive_directory}/{target}.tar" if facts.archive_directory else ""
        bake_target = _bake_target(config, build, reference, archive, facts)
        targets[target] = bake_target | options
        must_build = bool(options) or build.key in facts.always_built
        images.append(
            PlannedImage(
                key=build.key,
                name=build.image,
                target=target,
                reference=reference,
                platform=build.platform,
                inputs=facts.inputs[build.key],
                bases={name: base.digest for name, base in facts.materials.bases[build.key].items()},
                archive=archive,
                definition="" if must_build else _hash_definition(build, bake_target, facts),
            )
        )
    definition = {"group": {"default": {"targets": [image.target for image in images]}}, "target": targets}
    secrets = list_secret_paths(config, facts.materials.root, dict.fromkeys(build.image for build in builds))
    return BuildPlan(config, definition, tuple(images), facts, secrets, base_build.prerequisites)


def _hash_definition(build: Variant, bake_target: Mapping[str, Any], facts: BuildFacts) -> str:
    """Return a hash of a target, its bases and its builder; its reference and the run's directory count for nothing."""
    builder = facts.builder
    definition = {
        "target": {key: value for key, value in bake_target.items() if key != "tags"},
        "bases": create_base_targets(facts.materials, [build.key]).targets,
        "epoch": facts.source_date_epoch,
        "builder": [builder.name, builder.driver, builder.context] if builder is not None else [],
    }
    text = canonical_json(definition)
    return sha256_hex((text.replace(facts.archive_directory, "") if facts.archive_directory else text).encode())


def _image_reference(config: Configuration, build: Variant, tag: str) -> str:
    """Return the reference, one for each platform, because a classic store keeps one platform per tag."""
    suffix = "" if build.key == build.image else f"-{platform_slug(build.platform)}"
    return f"{config.project.name}/{build.image}:{tag}{suffix}"


def _bake_target(
    config: Configuration, build: Variant, reference: str, archive: str, facts: BuildFacts
) -> dict[str, Any]:
    image = config.images[build.image]
    target: dict[str, Any] = {
        **bake_target_inputs(config, build.key, facts.materials),
        "labels": _make_oci_labels(config, build, facts),
        "tags": [reference],
        "platforms": [build.platform],
        "output": [_bake_output(archive, facts.image_store)],
    }
    if image.target:
        target["target"] = image.target
    return target | {key: list(entries) for key, entries in facts.caches.get(build.key, {}).items() if entries}


def _bake_output(archive: str, image_store: str) -> str:
    if archive:
        return f"type=docker,oci-mediatypes=true,dest={archive}"
    # with the containerd store, type=docker would load the image a second time
    return "type=image,oci-mediatypes=true" if image_store == "containerd" else "type=docker"


def _make_oci_labels(config: Configuration, build: Variant, facts: BuildFacts) -> dict[str, str]:
    """Return the OCI labels, without the version, so that tagging a tested commit changes no byte."""
    prefix = "org.opencontainers.image"
    values = {
        "title": f"{config.project.name}/{build.image}",
        "description": config.project.description,
        "source": config.project.source or facts.source_url,
        "revision": facts.commit,
        "licenses": config.project.licenses,
    }
    bases = facts.materials.bases[build.key]
    if len(bases) == 1:
        ((reference, base),) = bases.items()
        values |= {"base.name": reference, "base.digest": base.digest}
    return {f"{prefix}.{key}": value for key, value in sorted(values.items()) if value}


def _target_name(build: Variant) -> str:
    """Return a unique target name: bake allows no dots, and a platform comes first."""
    name = f"image-{build.image.replace('.', '_')}"
    return name if build.key == build.image else f"{platform_slug(build.platform)}-{name}"
