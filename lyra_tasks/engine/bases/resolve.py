"""Where every FROM comes from: a registry or the engine, an archive, or packages; what the lock pins wins.

`resolve` finds out and changes nothing in the engine; `plan` says what the engine lacks; `provide` brings it in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.config.models import Base, Configuration, Rootfs
from lyra_tasks.config.platforms import expand_platform, image_from_key, variants_by_key
from lyra_tasks.dockerfile.lock_file import (
    LockedArchive,
    LockedBase,
    LockedImage,
    LockedRootfs,
    LockFile,
    base_key,
    build_context_name,
    lock_key,
)
from lyra_tasks.dockerfile.parse import ImageUse
from lyra_tasks.engine.bases.archive import ArchivedImage, read_archived_image
from lyra_tasks.engine.bases.registry import (
    RegistryLookup,
    content_digest,
    find_local_image,
    image_platform,
    is_for_platform,
    pin_reference,
    strip_tag,
)
from lyra_tasks.engine.bases.rootfs import ROOTFS_TAR, BuiltRootfs, build_rootfs
from lyra_tasks.engine.debian.mirror import to_debian_architecture
from lyra_tasks.engine.debian.mirror import to_docker_platform as debian_platform
from lyra_tasks.engine.debian.packages import file_sha256
from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    import docker

# Nothing listens there, so an engine that wants to ask the registry of this name is refused at once and takes its own.
BASE_REPOSITORY = "127.0.0.1:1/lyra-base"
_DOCKERFILE = f"""\
FROM scratch
ADD {ROOTFS_TAR} /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["/bin/sh"]
"""


@dataclass(frozen=True)
class BaseRequest:
    """A base that builds ask for, for one platform: its key in the lock, its sources, the places that name it."""

    key: str
    base: Base
    locations: tuple[str, ...]
    platform: str = "linux/amd64"

    @property
    def name(self) -> str:
        """What `[bases]` calls it, or the reference in FROM."""
        return self.key.removesuffix(f"@{self.platform}")


@dataclass(frozen=True)
class BaseInstall:
    """An image that the engine must hold as `tag` before the build: one of its own, or that of an archive."""

    tag: str
    image_id: str = ""
    archive: ArchivedImage | None = None


@dataclass(frozen=True)
class ResolvedBase:
    """A base for one platform as a build uses it: `context` is the value of a named build context.

    If `bake_target` is given, the definition must hold it as `target_name`; if `supply` is, it must be provided first.
    An engine without named contexts takes `reference` instead: for a bake target that is `tag`, once it is built.
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
        """What the lock pins, as `sha256:…`."""
        return f"sha256:{self.pin.sha256}" if isinstance(self.pin, LockedRootfs) else self.pin.digest

    @property
    def reference(self) -> str:
        """The image reference for `FROM ${ARG}` on engines without named contexts."""
        return self.tag or self.context.partition("docker-image://")[2]


@dataclass(frozen=True)
class BaseResolution:
    """The lock as it must be now, and the bases by key."""

    lock: LockFile
    bases: Mapping[str, ResolvedBase] = field(default_factory=dict)


def collect_base_requests(config: Configuration, uses: Mapping[str, Sequence[ImageUse]]) -> tuple[BaseRequest, ...]:
    """What the builds in `uses` ask for, once each; `uses` holds the external bases by what a build is called."""
    requests: dict[str, BaseRequest] = {}
    for build, froms in uses.items():
        for instruction in froms:
            image = image_from_key(build)
            key = lock_key(config, image, instruction)
            base_config = config.bases.get(base_key(config, image, instruction.reference)) or Base(
                image=instruction.reference
            )
            request = requests.get(key) or BaseRequest(
                key, _expand_platform(base_config, instruction.platform), (), instruction.platform
            )
            location = f"{instruction.location}: {instruction.reference}"
            requests[key] = (
                request if location in request.locations else replace(request, locations=(*request.locations, location))
            )
    return tuple(requests[key] for key in sorted(requests))


def _expand_platform(base: Base, platform: str) -> Base:
    archive = expand_platform(base.archive, platform) if base.archive is not None else None
    return base.model_copy(update={"image": expand_platform(base.image, platform), "archive": archive})


def group_bases_by_build(
    config: Configuration, uses: Mapping[str, Sequence[ImageUse]], bases: Mapping[str, ResolvedBase]
) -> dict[str, dict[str, ResolvedBase]]:
    """The resolved bases as builds need them: by what a build is called, then by what it calls its base (`named`)."""
    variants = variants_by_key(config)
    return {
        build: {
            build_context_name(instruction, variants[build].platform): bases[
                lock_key(config, variants[build].image, instruction)
            ]
            for instruction in froms
        }
        for build, froms in uses.items()
    }


def resolve_bases(
    requests: Iterable[BaseRequest],
    lock: LockFile,
    *,
    client: docker.DockerClient,
    root: Path,
    cache: Path,
    update: bool = False,
) -> BaseResolution:
    """Find every base: as the lock pins it, or anew with `update`, or where the lock has none that fits.

    Sources are tried in the order image, archive, rootfs. PreconditionError for one that cannot be had.
    """
    from lyra_tasks.engine.client.errors import translate_errors

    resolver = _BaseResolver(client, RegistryLookup(client), root, cache)
    pins, bases = dict(lock.bases), {}
    with translate_errors("looking for base images"):
        for request in requests:
            pin = lock.bases.get(request.key)
            if pin is None or update or not _is_configured_source(request, pin):
                pin = _pin_of_first_platform(request, pins) or resolver.create_pin(request)
            bases[request.key] = resolver.resolve_pin(request, pin)
            pins[request.key] = pin
    return BaseResolution(LockFile(bases=pins), bases)


def plan_base_installs(bases: Iterable[ResolvedBase]) -> tuple[BaseInstall, ...]:
    """What the engine lacks, by the names that it will get: to be written down before `provide` makes them."""
    installs = {base.install.tag: base.install for base in bases if base.install}
    return tuple(installs[tag] for tag in sorted(installs))


def _pin_of_first_platform(request: BaseRequest, pins: Mapping[str, LockedBase]) -> LockedBase | None:
    """The pin of the same reference for Proxima's first platform, if it is a registry's: its digest is that of all."""
    first_pin = pins.get(request.name) if request.name != request.key else None
    is_same_reference = (
        isinstance(first_pin, LockedImage) and not first_pin.local and first_pin.reference == request.base.image
    )
    return first_pin if is_same_reference else None


def _is_configured_source(request: BaseRequest, pin: LockedBase) -> bool:
    """Whether a pin is still one of the sources that the configuration names."""
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

    def create_pin(self, request: BaseRequest) -> LockedBase:
        """The first source of a base that answers, as a new pin."""
        base, failures = request.base, []
        if base.image:
            digest, reason = self.registry.find_digest(base.image)
            if digest:
                return LockedImage(reference=base.image, digest=digest)
            image = find_local_image(self.client, base.image)
            if image and is_for_platform(image, request.platform):
                return LockedImage(reference=base.image, digest=content_digest(image), local=True)
            engine_state = f"in the engine for {image_platform(image)}" if image else "not in the engine"
            failures.append(f"{base.image} is {engine_state}, and no registry gives it: {reason}")
        if base.archive:
            path = self.root / base.archive
            if path.exists():
                digest = read_archived_image(path, request.platform).digest
                return LockedArchive(path=base.archive, sha256=file_sha256(path), digest=digest)
            failures.append(f"{base.archive} does not exist")
        if base.rootfs:
            return self._build_rootfs(request, base.rootfs).pin
        raise _no_source_error(request, failures)

    def resolve_pin(self, request: BaseRequest, pin: LockedBase) -> ResolvedBase:
        """How a build gets what is pinned; PreconditionError if it cannot be had."""
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
            raise _missing_pin_error(request, pin, f"no registry gives {pin.reference} any more: {reason}")
        return ResolvedBase(request.key, pin, f"docker-image://{reference}", platform=request.platform)

    def _from_engine(self, request: BaseRequest, pin: LockedImage) -> ResolvedBase:
        for name in (pin.reference, _base_tag(request.key, pin.digest)):
            image = find_local_image(self.client, name)
            if image and content_digest(image) == pin.digest:
                return self._use_image(request, pin, image)
        current = find_local_image(self.client, pin.reference)
        raise _missing_pin_error(
            request, pin, f"the engine holds {content_digest(current)[7:19] if current else 'no'} {pin.reference}"
        )

    def _use_image(self, request: BaseRequest, pin: LockedImage, image: dict[str, Any]) -> ResolvedBase:
        tag = _base_tag(request.key, pin.digest)
        install = None if tag in (image.get("RepoTags") or []) else BaseInstall(tag, image_id=str(image["Id"]))
        return ResolvedBase(request.key, pin, f"docker-image://{tag}", install=install, platform=request.platform)

    def _from_archive(self, request: BaseRequest, pin: LockedArchive) -> ResolvedBase:
        path = self.root / pin.path
        if not path.exists():
            raise _missing_pin_error(request, pin, f"{pin.path} does not exist")
        image = read_archived_image(path, request.platform)
        if image.digest != pin.digest:
            raise _missing_pin_error(request, pin, f"{pin.path} now holds {image.digest[7:19]}")
        tag = _base_tag(request.key, pin.digest)
        loaded_image = find_local_image(self.client, tag)
        is_loaded = loaded_image is not None and tuple(loaded_image["RootFS"].get("Layers") or ()) == image.diff_ids
        install = None if is_loaded else BaseInstall(tag, archive=image)
        return ResolvedBase(request.key, pin, f"docker-image://{tag}", install=install, platform=request.platform)

    def _from_rootfs(self, request: BaseRequest, pin: LockedRootfs) -> ResolvedBase:
        built = self._build_rootfs(request, pin.spec, pin)
        name = f"base-{_slug(request.key)}-{pin.sha256[:12]}"
        return ResolvedBase(
            request.key, pin, f"target:{name}",
            target_name=name, bake_target=create_rootfs_target(built), tag=_base_tag(request.key, pin.sha256), platform=request.platform,
        )  # fmt: skip

    def _build_rootfs(self, request: BaseRequest, spec: Rootfs, pin: LockedRootfs | None = None) -> BuiltRootfs:
        architecture = to_debian_architecture(request.platform)
        return build_rootfs(spec, cache=self.cache, pin=pin, architecture=architecture, locations=request.locations)


def create_rootfs_target(built: BuiltRootfs) -> dict[str, Any]:
    """The target of a bake definition that makes an image of a root: the same config digest in every build.

    Its epoch is the root's own, so that the base does not change with the commit that is built on it.
    """
    dockerfile = built.context / "Dockerfile"
    if not dockerfile.exists() or dockerfile.read_text() != _DOCKERFILE:
        dockerfile.write_text(_DOCKERFILE)
    return {
        "context": str(built.context),
        "dockerfile": str(dockerfile),
        "args": {"SOURCE_DATE_EPOCH": str(built.pin.source_date_epoch)},
        "platforms": [debian_platform(built.pin.architecture)],
    }


def _base_tag(key: str, digest: str) -> str:
    return f"{BASE_REPOSITORY}/{_slug(key)}:{digest.removeprefix('sha256:')[:12]}"


def _slug(key: str) -> str:
    """A key as part of a repository name."""
    return re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-") or "base"


def _no_source_error(request: BaseRequest, failures: Sequence[str]) -> PreconditionError:
    return PreconditionError(
        f"the base {request.key} cannot be had",
        hint=f"`docker load` it into the engine first, or give [bases.{_slug(request.name)}] an `archive` or a `rootfs`",
        details=(*request.locations, *failures),
    )


def _missing_pin_error(request: BaseRequest, pin: LockedImage | LockedArchive, reason: str) -> PreconditionError:
    return PreconditionError(
        f"the lock pins {request.key} to {pin.digest[7:19]}, which cannot be had: {reason}",
        hint="bring it back (`docker load`, the archive, the registry), or run `bases.update` to move the lock",
        details=request.locations,
    )
