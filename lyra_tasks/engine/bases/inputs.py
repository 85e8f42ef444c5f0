"""Find the inputs of images: the base images their Dockerfiles name, and the hashes of all files.

Mappings by build have the keys of `config.platforms`, one for each image and platform.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lyra_tasks.config.models import Base, Configuration
from lyra_tasks.config.platforms import (
    Variant,
    expand_platform,
    image_from_key,
    list_variants,
    platform_build_args,
    variants_by_key,
)
from lyra_tasks.dockerfile.context import ContextSnapshot
from lyra_tasks.dockerfile.input_hashes import (
    ImageInputs,
    compute_input_hashes,
    dockerfile_path,
    hash_mapping,
)
from lyra_tasks.dockerfile.lock_file import (
    LOCK_FILE_NAME,
    LockedRootfs,
    LockFile,
    build_context_name,
    lock_key,
    read_lock_file,
    third_party_lock_key,
)
from lyra_tasks.dockerfile.parse import ImageUse, read_dockerfile
from lyra_tasks.dockerfile.stages import list_base_images
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.references import familiar_reference, normalize_reference

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace

_UNLOCKED = "not locked"


@dataclass(frozen=True)
class BaseRequest:
    """A base or third-party image for one platform: its key in the lock file, its sources, and where it is named."""

    key: str
    base: Base
    locations: tuple[str, ...]
    platform: str = "linux/amd64"

    @property
    def name(self) -> str:
        """Return the name in `[bases]`, or the reference in FROM or `image`."""
        return self.key.removesuffix(f"@{self.platform}")

    @property
    def references(self) -> tuple[str, ...]:
        """Return the references that it is named by in FROM or `image`."""
        return tuple(location.rpartition(": ")[2] for location in self.locations)

    @property
    def is_configured(self) -> bool:
        """Return whether `[bases]` has a table for it."""
        return self.base != Base(image=self.name)


def collect_base_requests(config: Configuration, uses: Mapping[str, Sequence[ImageUse]]) -> tuple[BaseRequest, ...]:
    """List the bases of all builds in `uses`, each once, sorted by key."""
    return merge_requests(
        _create_request(
            config,
            lock_key(config, image_from_key(build), use),
            Base(image=use.reference),
            use.platform,
            f"{use.location}: {use.reference}",
        )
        for build, image_uses in uses.items()
        for use in image_uses
    )


def create_third_party_request(config: Configuration, variant: Variant) -> BaseRequest:
    """Return the request for a third-party image, whose variant has the name of its service."""
    reference = config.services[variant.image].image
    key = third_party_lock_key(config, variant.image, variant.platform)
    location = f"services.{variant.image}.image: {reference}"
    return _create_request(config, key, Base(image=reference), variant.platform, location)


def merge_requests(requests: Iterable[BaseRequest]) -> tuple[BaseRequest, ...]:
    """Return the requests with each key once, sorted by key, with all locations."""
    merged: dict[str, BaseRequest] = {}
    for request in requests:
        locations = merged[request.key].locations if request.key in merged else ()
        merged[request.key] = replace(request, locations=tuple(dict.fromkeys((*locations, *request.locations))))
    return tuple(merged[key] for key in sorted(merged))


def list_requests(work: Workspace) -> tuple[BaseRequest, ...]:
    """Return the requests for all bases, those of checks included, and for all third-party images.

    Raises ConfigurationError if the short name of a table in `[bases]` is that of several references.
    """
    config = work.config
    uses = add_stage_uses(work, find_base_uses(work, list_variants(config, config.images)))
    variants = list_variants(config, config.third_party_images)
    third_party = [create_third_party_request(config, variant) for variant in variants]
    requests = merge_requests([*collect_base_requests(config, uses), *third_party])
    references_by_name: dict[str, set[str]] = {}
    for request in requests:
        references = {normalize_reference(reference) for reference in request.references}
        references_by_name.setdefault(request.name, set()).update(references)
    mapped = {name for image in config.images.values() for name in image.bases.values()}
    for name, references in references_by_name.items():
        if name in config.bases and not config.bases[name].image and name not in mapped and len(references) > 1:
            familiar = sorted(map(familiar_reference, references))
            raise ConfigurationError(
                f"[bases.{name}] may be any of {', '.join(familiar)}",
                hint=f'Name the table after one of them: [bases."{familiar[0]}"]',
                details=tuple(
                    location for request in requests if request.name == name for location in request.locations
                ),
            )
    return requests


def find_unused_bases(config: Configuration, requests: Iterable[BaseRequest]) -> tuple[str, ...]:
    """Return the names in `[bases]` that none of all `requests` of a project uses."""
    used = {request.name for request in requests}
    return tuple(name for name in config.bases if name not in used)


def _create_request(config: Configuration, key: str, default: Base, platform: str, location: str) -> BaseRequest:
    base = config.bases.get(key.removesuffix(f"@{platform}"), default)
    return BaseRequest(key, _expand_base(base, platform), (location,), platform)


def _expand_base(base: Base, platform: str) -> Base:
    archive = expand_platform(base.archive, platform) if base.archive is not None else None
    return base.model_copy(update={"image": expand_platform(base.image, platform), "archive": archive})


def find_base_uses(work: Workspace, builds: Iterable[Variant]) -> dict[str, tuple[ImageUse, ...]]:
    """Return the base images of each build, as its Dockerfile names them."""
    return {build.key: find_stage_uses(work, build, work.config.images[build.image].target) for build in builds}


def add_stage_uses(work: Workspace, uses: Mapping[str, tuple[ImageUse, ...]]) -> dict[str, tuple[ImageUse, ...]]:
    """Return `uses` extended by the base images of the stages that are built as checks."""
    extended = dict(uses)
    builds = variants_by_key(work.config)
    for test in work.config.tests:
        for key, image_uses in extended.items():
            if test.stage is not None and builds[key].image == test.image:
                stage_uses = find_stage_uses(work, builds[key], test.stage)
                extended[key] = tuple(dict.fromkeys((*image_uses, *stage_uses)))
    return extended


def find_stage_uses(work: Workspace, build: Variant, stage: str) -> tuple[ImageUse, ...]:
    """Return the base images of one stage, each with its platform."""
    dockerfile = read_dockerfile(dockerfile_path(work.root, work.config.images[build.image]))
    image_uses = list_base_images(dockerfile, stage, collect_from_arguments(work, build))
    return tuple(replace(use, platform=use.platform or build.platform) for use in image_uses)


def hash_stage_inputs(
    work: Workspace, build: Variant, stage: str, image_hashes: Mapping[str, str]
) -> dict[str, str | Mapping[str, str]]:
    """Return the input hashes of a stage that is built as a check.

    A stage can change while the image stays the same to the byte, so its bases are hashed on their own.
    """
    lock = read_lock_file(work.root / LOCK_FILE_NAME)
    bases = _pinned_digests(work, lock, build, find_stage_uses(work, build, stage))
    return {**{kind: image_hashes[kind] for kind in ("args", "context", "dockerfile")}, "bases": bases}


def hash_current_inputs(
    work: Workspace, snapshots: Mapping[str, ContextSnapshot], lock: LockFile | None = None
) -> dict[str, ImageInputs]:
    """Return the inputs of every build, from the `snapshots` of all images and the lock file alone."""
    lock = lock or read_lock_file(work.root / LOCK_FILE_NAME)
    commit, images = work.git.commit, work.config.images
    image_hashes = {name: compute_input_hashes(image, snapshots[name], commit) for name, image in images.items()}
    uses = find_base_uses(work, list_variants(work.config, work.config.images))
    return {
        build.key: replace(
            image_hashes[build.image],
            hashes={
                **image_hashes[build.image],
                "bases": hash_mapping(_pinned_digests(work, lock, build, uses[build.key])),
                "platform": build.platform,
            },
        )
        for build in list_variants(work.config, work.config.images)
    }


def read_locked_digests(work: Workspace, build: Variant) -> dict[str, str]:
    """Return the locked digest of each base of a build; an unlocked base has a text that matches no digest."""
    lock = read_lock_file(work.root / LOCK_FILE_NAME)
    return _pinned_digests(work, lock, build, find_base_uses(work, (build,))[build.key])


def collect_from_arguments(work: Workspace, build: Variant) -> dict[str, str]:
    """Return the arguments a FROM can use: BuildKit's platform arguments and those of the image."""
    return {**platform_build_args(work.build_platform, build.platform), **work.config.images[build.image].args}


def _pinned_digests(work: Workspace, lock: LockFile, build: Variant, uses: Iterable[ImageUse]) -> dict[str, str]:
    digests = {}
    for use in uses:
        pin = lock.bases.get(lock_key(work.config, build.image, use))
        digest = (pin.sha256 if isinstance(pin, LockedRootfs) else pin.digest) if pin else _UNLOCKED
        digests[build_context_name(use, build.platform)] = digest
    return digests
