"""Resolve base images: what the lock file pins, or else a registry, the engine, an archive or Debian packages.

Nothing here changes the engine. `plan_base_installs` lists what `install_bases` then loads and tags.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.config.models import Rootfs
from lyra_tasks.digests import file_sha256, hex_part
from lyra_tasks.dockerfile.lock_file import (
    LockedArchive,
    LockedBase,
    LockedImage,
    LockedRootfs,
    LockFile,
    pin_digest,
)
from lyra_tasks.engine.bases.archive import ArchivedImage, read_archived_image
from lyra_tasks.engine.bases.inputs import BaseRequest
from lyra_tasks.engine.bases.registry import (
    RegistryLookup,
    content_digest,
    find_local_image,
    image_diff_ids,
    image_platform,
    is_for_platform,
)
from lyra_tasks.engine.bases.rootfs import build_rootfs
from lyra_tasks.engine.bases.rootfs_cache import ROOTFS_TAR, BuiltRootfs
from lyra_tasks.engine.bases.sources import MissingImages, UnavailableImagesError, suggest_sources
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.debian.mirror import to_debian_architecture, to_docker_platform
from lyra_tasks.references import pin_reference, strip_tag

if TYPE_CHECKING:
    import docker

# Nothing listens on port 1: an engine that asks this registry is rejected at once and uses its local image.
BASE_REPOSITORY = "127.0.0.1:1/lyra-base"
_DOCKERFILE = f"""\
FROM scratch
ADD {ROOTFS_TAR} /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["/bin/sh"]
"""


@dataclass(frozen=True)
class BaseInstall:
    """An image to be tagged as `tag` before the build: one that the engine has, or one from an archive."""

    tag: str
    image_id: str = ""
    archive: ArchivedImage | None = None


@dataclass(frozen=True)
class ResolvedBase:
    """A base for one platform as a build uses it.

    `context` is the value of a named build context. The bake file must contain `bake_target`, if there is one, as
    `target_name`. `install` must be done before the build. An engine without named contexts uses `reference`, which
    for a bake target is `tag`, once it is built.
    """

    key: str
    pin: LockedBase
    context: str
    target_name: str = ""
    bake_target: Mapping[str, Any] | None = None
    tag: str = ""
    install: BaseInstall | None = None
    platform: str = "linux/amd64"

    @property
    def digest(self) -> str:
        """Return the digest in the lock file, as `sha256:…`."""
        return pin_digest(self.pin)

    @property
    def reference(self) -> str:
        """Return the image reference for `FROM ${ARG}` on engines without named contexts."""
        return self.tag or self.context.partition("docker-image://")[2]


@dataclass(frozen=True)
class BaseResolution:
    """The new lock file and the resolved bases by key."""

    lock: LockFile
    bases: Mapping[str, ResolvedBase] = field(default_factory=dict)


def resolve_bases(
    requests: Iterable[BaseRequest],
    lock: LockFile,
    *,
    client: docker.DockerClient,
    root: Path,
    cache: Path,
    moved: Container[str] = (),
) -> BaseResolution:
    """Resolve bases as the lock file pins them, those in `moved` anew, as `lock_images` does."""
    resolver = _BaseResolver(client, RegistryLookup(client), root, cache)
    pins, bases, missing = dict(lock.bases), {}, MissingImages()
    with translate_errors("resolving base images"):
        for request in requests:
            with missing.collect():
                pins[request.key] = resolver.select_pin(request, pins, moved)
                bases[request.key] = resolver.resolve_pin(request, pins[request.key])
    missing.require_none()
    return BaseResolution(LockFile(bases=pins), bases)


def lock_images(
    requests: Iterable[BaseRequest],
    lock: LockFile,
    *,
    client: docker.DockerClient,
    root: Path,
    cache: Path,
    moved: Container[str] = (),
) -> LockFile:
    """Return the lock file with a pin for each request.

    An image without a usable pin, or with its key in `moved`, is pinned to the first available of its image, archive
    and rootfs. Raises UnavailableImagesError with every image of which none is available.
    """
    resolver = _BaseResolver(client, RegistryLookup(client), root, cache)
    pins, missing = dict(lock.bases), MissingImages()
    with translate_errors("resolving images"):
        for request in requests:
            with missing.collect():
                pins[request.key] = resolver.select_pin(request, pins, moved)
    missing.require_none()
    return LockFile(bases=pins)


def plan_base_installs(bases: Iterable[ResolvedBase]) -> tuple[BaseInstall, ...]:
    """List the images that must be loaded or tagged in the engine, sorted by tag."""
    installs = {base.install.tag: base.install for base in bases if base.install}
    return tuple(installs[tag] for tag in sorted(installs))


def _pin_of_first_platform(request: BaseRequest, pins: Mapping[str, LockedBase]) -> LockedBase | None:
    """Return the registry pin of the same reference for the first platform: its digest covers all platforms."""
    pin = pins.get(request.name) if request.name != request.key else None
    is_same = isinstance(pin, LockedImage) and not pin.local and pin.reference == request.base.image
    return pin if is_same else None


def is_configured_source(request: BaseRequest, pin: LockedBase) -> bool:
    """Return whether a pin is for one of the sources in the configuration."""
    base = request.base
    if isinstance(pin, LockedRootfs):
        is_same_architecture = pin.architecture == to_debian_architecture(request.platform)
        return is_same_architecture and base.rootfs is not None and pin.matches(base.rootfs)
    return pin.path == base.archive if isinstance(pin, LockedArchive) else pin.reference == base.image


@dataclass(frozen=True)
class _BaseResolver:
    client: docker.DockerClient
    registry: RegistryLookup
    root: Path
    cache: Path

    def select_pin(self, request: BaseRequest, pins: Mapping[str, LockedBase], moved: Container[str]) -> LockedBase:
        """Return the pin of a request, or a new one."""
        pin = pins.get(request.key)
        if pin is not None and request.key not in moved and is_configured_source(request, pin):
            return pin
        return _pin_of_first_platform(request, pins) or self.create_pin(request)

    def create_pin(self, request: BaseRequest) -> LockedBase:
        """Pin a base to its first available source."""
        base, failures = request.base, []
        if base.image:
            digest, reason = self.registry.find_digest(base.image)
            if digest:
                return LockedImage(reference=base.image, digest=digest)
            image = find_local_image(self.client, base.image)
            if image and is_for_platform(image, request.platform):
                return LockedImage(reference=base.image, digest=content_digest(image), local=True)
            engine_state = f"in the engine for {image_platform(image)}" if image else "not in the engine"
            failures.append(f"{base.image} is {engine_state} and not available from its registry: {reason}")
        if base.archive:
            path = self.root / base.archive
            if path.exists():
                digest = read_archived_image(path, request.platform).digest
                return LockedArchive(path=base.archive, sha256=file_sha256(path), digest=digest)
            failures.append(f"{base.archive} does not exist")
        if base.rootfs:
            return self._build_rootfs(request, base.rootfs).pin
        raise UnavailableImagesError(
            (request,),
            f"Image {request.key} is not available",
            hint=suggest_sources(request),
            details=(*request.locations, *failures),
        )

    def resolve_pin(self, request: BaseRequest, pin: LockedBase) -> ResolvedBase:
        """Return how a build gets a pinned base, or raise UnavailableImagesError."""
        if isinstance(pin, LockedRootfs):
            return self._from_rootfs(request, pin)
        if isinstance(pin, LockedArchive):
            return self._from_archive(request, pin)
        return self._from_engine(request, pin) if pin.local else self._from_registry(request, pin)

    def _from_registry(self, request: BaseRequest, pin: LockedImage) -> ResolvedBase:
        reference = pin_reference(pin.reference, pin.digest)
        image = find_local_image(self.client, f"{strip_tag(pin.reference)}@{pin.digest}")
        if image and is_for_platform(image, request.platform):
            return self._use_image(request, pin, image)
        digest, reason = self.registry.find_digest(reference)
        if not digest:
            raise missing_pin_error(request, pin, f"not available from the registry: {reason}")
        return ResolvedBase(request.key, pin, f"docker-image://{reference}", platform=request.platform)

    def _from_engine(self, request: BaseRequest, pin: LockedImage) -> ResolvedBase:
        current = find_local_image(self.client, pin.reference)
        for image in (current, find_local_image(self.client, _base_tag(request.key, pin.digest))):
            if image and content_digest(image) == pin.digest:
                return self._use_image(request, pin, image)
        digest = content_digest(current)[7:19] if current else "no image"
        raise missing_pin_error(request, pin, f"the engine has {digest} as {pin.reference}")

    def _use_image(self, request: BaseRequest, pin: LockedImage, image: dict[str, Any]) -> ResolvedBase:
        tag = _base_tag(request.key, pin.digest)
        install = None if tag in (image.get("RepoTags") or []) else BaseInstall(tag, image_id=str(image["Id"]))
        return ResolvedBase(request.key, pin, f"docker-image://{tag}", install=install, platform=request.platform)

    def _from_archive(self, request: BaseRequest, pin: LockedArchive) -> ResolvedBase:
        path = self.root / pin.path
        if not path.exists():
            raise missing_pin_error(request, pin, f"{pin.path} does not exist")
        image = read_archived_image(path, request.platform)
        if image.digest != pin.digest:
            raise missing_pin_error(request, pin, f"{pin.path} contains {image.digest[7:19]}")
        tag = _base_tag(request.key, pin.digest)
        loaded = find_local_image(self.client, tag)
        is_loaded = loaded is not None and image_diff_ids(loaded) == image.diff_ids
        install = None if is_loaded else BaseInstall(tag, archive=image)
        return ResolvedBase(request.key, pin, f"docker-image://{tag}", install=install, platform=request.platform)

    def _from_rootfs(self, request: BaseRequest, pin: LockedRootfs) -> ResolvedBase:
        built = self._build_rootfs(request, pin.spec, pin)
        name = f"base-{_slug(request.key)}-{pin.sha256[:12]}"
        return ResolvedBase(
            request.key,
            pin,
            f"target:{name}",
            target_name=name,
            bake_target=create_rootfs_target(built),
            tag=_base_tag(request.key, pin.sha256),
            platform=request.platform,
        )

    def _build_rootfs(self, request: BaseRequest, spec: Rootfs, pin: LockedRootfs | None = None) -> BuiltRootfs:
        architecture = to_debian_architecture(request.platform)
        return build_rootfs(spec, cache=self.cache, pin=pin, architecture=architecture, locations=request.locations)


def create_rootfs_target(built: BuiltRootfs) -> dict[str, Any]:
    """Write the Dockerfile of a root file system and return its bake target, which always builds the same digest.

    The epoch comes from the root file system, so that the base does not change with the commit of the project.
    """
    dockerfile = built.context / "Dockerfile"
    if not dockerfile.exists() or dockerfile.read_text() != _DOCKERFILE:
        dockerfile.write_text(_DOCKERFILE)
    return {
        "context": str(built.context),
        "dockerfile": str(dockerfile),
        "args": {"SOURCE_DATE_EPOCH": str(built.pin.source_date_epoch)},
        "platforms": [to_docker_platform(built.pin.architecture)],
    }


def _base_tag(key: str, digest: str) -> str:
    return f"{BASE_REPOSITORY}/{_slug(key)}:{hex_part(digest)[:12]}"


def _slug(key: str) -> str:
    """Return a key as part of a repository name."""
    return re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-") or "base"


def missing_pin_error(request: BaseRequest, pin: LockedImage | LockedArchive, reason: str) -> UnavailableImagesError:
    """Return the error for an image that is not available as it is locked."""
    return UnavailableImagesError(
        (request,),
        f"Locked image {request.key} ({pin.digest[7:19]}) is not available: {reason}",
        hint=f"Restore it, or run `lock.update {request.name}` to lock what is there now. {suggest_sources(request)}",
        details=request.locations,
    )
