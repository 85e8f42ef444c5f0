"""Where every FROM comes from: a registry or the engine, an archive, or packages; what the lock pins wins.

`resolve` finds out and changes nothing in the engine; `plan` says what the engine lacks; `provide` brings it in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.config.base_keys import key_of, named, pin_key
from lyra_tasks.config.dockerfile import From
from lyra_tasks.config.lock import Lock, LockedArchive, LockedBase, LockedImage, LockedRootfs
from lyra_tasks.config.models import Base, Configuration, Rootfs
from lyra_tasks.config.platforms import for_platform, image_of, variants_by_key
from lyra_tasks.engine import base_archive, rootfs
from lyra_tasks.engine.debian import sha256_of
from lyra_tasks.engine.mirror import architecture_of
from lyra_tasks.engine.mirror import platform_of as debian_platform
from lyra_tasks.engine.registry import Registry, content_digest, held, is_for, pinned, platform_of, without_tag
from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    import docker

# Nothing listens there, so an engine that wants to ask the registry of this name is refused at once and takes its own.
REPOSITORY = "127.0.0.1:1/lyra-base"
_DOCKERFILE = f"""\
FROM scratch
ADD {rootfs.TAR} /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["/bin/sh"]
"""


@dataclass(frozen=True)
class Need:
    """A base that builds ask for, for one platform: its key in the lock, its sources, the places that name it."""

    key: str
    base: Base
    places: tuple[str, ...]
    platform: str = "linux/amd64"

    @property
    def name(self) -> str:
        """What `[bases]` calls it, or the reference in FROM."""
        return self.key.removesuffix(f"@{self.platform}")


@dataclass(frozen=True)
class Supply:
    """An image that the engine must hold as `tag` before the build: one of its own, or that of an archive."""

    tag: str
    image: str = ""
    archive: base_archive.ArchivedImage | None = None


@dataclass(frozen=True)
class ResolvedBase:
    """A base for one platform as a build uses it: `context` is the value of a named build context.

    If `bake_target` is given, the definition must hold it as `target_name`; if `supply` is, it must be provided first.
    An engine without named contexts takes `reference` instead: for a bake target that is `tag`, once it is built.
    """

    key: str
    locked: LockedBase
    context: str
    target_name: str = ""
    bake_target: Mapping[str, Any] | None = None
    tag: str = ""
    supply: Supply | None = None
    platform: str = "linux/amd64"

    @property
    def digest(self) -> str:
        """What the lock pins, as `sha256:…`."""
        return f"sha256:{self.locked.sha256}" if isinstance(self.locked, LockedRootfs) else self.locked.digest

    @property
    def reference(self) -> str:
        """The image reference for `FROM ${ARG}` on engines without named contexts."""
        return self.tag or self.context.partition("docker-image://")[2]


@dataclass(frozen=True)
class Resolution:
    """The lock as it must be now, and the bases by key."""

    lock: Lock
    bases: Mapping[str, ResolvedBase] = field(default_factory=dict)


def needs(config: Configuration, uses: Mapping[str, Sequence[From]]) -> tuple[Need, ...]:
    """What the builds in `uses` ask for, once each; `uses` holds the external bases by what a build is called."""
    found: dict[str, Need] = {}
    for build, bases in uses.items():
        for each in bases:
            image = image_of(build)
            key = pin_key(config, image, each)
            table = config.bases.get(key_of(config, image, each.reference)) or Base(image=each.reference)
            need = found.get(key) or Need(key, _filled(table, each.platform), (), each.platform)
            place = f"{each.where}: {each.reference}"
            found[key] = need if place in need.places else replace(need, places=(*need.places, place))
    return tuple(found[key] for key in sorted(found))


def _filled(base: Base, platform: str) -> Base:
    archive = for_platform(base.archive, platform) if base.archive is not None else None
    return base.model_copy(update={"image": for_platform(base.image, platform), "archive": archive})


def by_build(
    config: Configuration, uses: Mapping[str, Sequence[From]], bases: Mapping[str, ResolvedBase]
) -> dict[str, dict[str, ResolvedBase]]:
    """The resolved bases as builds need them: by what a build is called, then by what it calls its base (`named`)."""
    known = variants_by_key(config)
    return {
        build: {named(each, known[build].platform): bases[pin_key(config, known[build].image, each)] for each in froms}
        for build, froms in uses.items()
    }


def resolve(
    wanted: Iterable[Need], lock: Lock, *, client: docker.DockerClient, root: Path, cache: Path, update: bool = False
) -> Resolution:
    """Find every base: as the lock pins it, or anew with `update`, or where the lock has none that fits.

    Sources are tried in the order image, archive, rootfs. PreconditionError for one that cannot be had.
    """
    from lyra_tasks.engine.faults import engine_faults

    finder = _Finder(client, Registry(client), root, cache)
    locked, bases = dict(lock.bases), {}
    with engine_faults("looking for base images"):
        for need in wanted:
            pin = lock.bases.get(need.key)
            if pin is None or update or not _fits(need, pin):
                pin = _of_all_platforms(need, locked) or finder.find(need)
            bases[need.key] = finder.have(need, pin)
            locked[need.key] = pin
    return Resolution(Lock(bases=locked), bases)


def plan(bases: Iterable[ResolvedBase]) -> tuple[Supply, ...]:
    """What the engine lacks, by the names that it will get: to be written down before `provide` makes them."""
    supplies = {base.supply.tag: base.supply for base in bases if base.supply}
    return tuple(supplies[tag] for tag in sorted(supplies))


def _of_all_platforms(need: Need, locked: Mapping[str, LockedBase]) -> LockedBase | None:
    """The pin of the same reference for Proxima's first platform, if it is a registry's: its digest is that of all."""
    other = locked.get(need.name) if need.name != need.key else None
    same = isinstance(other, LockedImage) and not other.local and other.reference == need.base.image
    return other if same else None


def _fits(need: Need, pin: LockedBase) -> bool:
    """Whether a pin is still one of the sources that the configuration names."""
    base = need.base
    if isinstance(pin, LockedRootfs):
        same = pin.architecture == architecture_of(need.platform)
        return same and base.rootfs is not None and pin.fits(base.rootfs)
    return pin.path == base.archive if isinstance(pin, LockedArchive) else pin.reference == base.image


@dataclass(frozen=True)
class _Finder:
    client: docker.DockerClient
    registry: Registry
    root: Path
    cache: Path

    def find(self, need: Need) -> LockedBase:
        """The first source of a base that answers, as a new pin."""
        base, silent = need.base, []
        if base.image:
            digest, reason = self.registry.digest(base.image)
            if digest:
                return LockedImage(reference=base.image, digest=digest)
            image = held(self.client, base.image)
            if image and is_for(image, need.platform):
                return LockedImage(reference=base.image, digest=content_digest(image), local=True)
            there = f"in the engine for {platform_of(image)}" if image else "not in the engine"
            silent.append(f"{base.image} is {there}, and no registry gives it: {reason}")
        if base.archive:
            path = self.root / base.archive
            if path.exists():
                digest = base_archive.describe(path, need.platform).digest
                return LockedArchive(path=base.archive, sha256=sha256_of(path), digest=digest)
            silent.append(f"{base.archive} does not exist")
        if base.rootfs:
            return self._root(need, base.rootfs).facts
        raise _missing(need, silent)

    def have(self, need: Need, pin: LockedBase) -> ResolvedBase:
        """How a build gets what is pinned; PreconditionError if it cannot be had."""
        if isinstance(pin, LockedRootfs):
            return self._made(need, pin)
        if isinstance(pin, LockedArchive):
            return self._archived(need, pin)
        return self._local(need, pin) if pin.local else self._remote(need, pin)

    def _remote(self, need: Need, pin: LockedImage) -> ResolvedBase:
        reference = pinned(pin.reference, pin.digest)
        image = held(self.client, f"{without_tag(pin.reference)}@{pin.digest}")
        if image and is_for(image, need.platform):
            return self._tagged(need, pin, image)
        digest, reason = self.registry.digest(reference)
        if not digest:
            raise _lost(need, pin, f"no registry gives {pin.reference} any more: {reason}")
        return ResolvedBase(need.key, pin, f"docker-image://{reference}", platform=need.platform)

    def _local(self, need: Need, pin: LockedImage) -> ResolvedBase:
        for name in (pin.reference, _tag(need.key, pin.digest)):
            image = held(self.client, name)
            if image and content_digest(image) == pin.digest:
                return self._tagged(need, pin, image)
        now = held(self.client, pin.reference)
        raise _lost(need, pin, f"the engine holds {content_digest(now)[7:19] if now else 'no'} {pin.reference}")

    def _tagged(self, need: Need, pin: LockedImage, image: dict[str, Any]) -> ResolvedBase:
        tag = _tag(need.key, pin.digest)
        supply = None if tag in (image.get("RepoTags") or []) else Supply(tag, image=str(image["Id"]))
        return ResolvedBase(need.key, pin, f"docker-image://{tag}", supply=supply, platform=need.platform)

    def _archived(self, need: Need, pin: LockedArchive) -> ResolvedBase:
        path = self.root / pin.path
        if not path.exists():
            raise _lost(need, pin, f"{pin.path} does not exist")
        image = base_archive.describe(path, need.platform)
        if image.digest != pin.digest:
            raise _lost(need, pin, f"{pin.path} now holds {image.digest[7:19]}")
        tag = _tag(need.key, pin.digest)
        present = held(self.client, tag)
        ready = present is not None and tuple(present["RootFS"].get("Layers") or ()) == image.diff_ids
        supply = None if ready else Supply(tag, archive=image)
        return ResolvedBase(need.key, pin, f"docker-image://{tag}", supply=supply, platform=need.platform)

    def _made(self, need: Need, pin: LockedRootfs) -> ResolvedBase:
        made = self._root(need, pin.spec, pin)
        name = f"base-{_slug(need.key)}-{pin.sha256[:12]}"
        return ResolvedBase(
            need.key, pin, f"target:{name}",
            target_name=name, bake_target=bake_target(made), tag=_tag(need.key, pin.sha256), platform=need.platform,
        )  # fmt: skip

    def _root(self, need: Need, spec: Rootfs, pin: LockedRootfs | None = None) -> rootfs.MadeRootfs:
        architecture = architecture_of(need.platform)
        return rootfs.make(spec, cache=self.cache, locked=pin, architecture=architecture, places=need.places)


def bake_target(made: rootfs.MadeRootfs) -> dict[str, Any]:
    """The target of a bake definition that makes an image of a root: the same config digest in every build.

    Its epoch is the root's own, so that the base does not change with the commit that is built on it.
    """
    dockerfile = made.context / "Dockerfile"
    if not dockerfile.exists() or dockerfile.read_text() != _DOCKERFILE:
        dockerfile.write_text(_DOCKERFILE)
    return {
        "context": str(made.context),
        "dockerfile": str(dockerfile),
        "args": {"SOURCE_DATE_EPOCH": str(made.facts.source_date_epoch)},
        "platforms": [debian_platform(made.facts.architecture)],
    }


def _tag(key: str, digest: str) -> str:
    return f"{REPOSITORY}/{_slug(key)}:{digest.removeprefix('sha256:')[:12]}"


def _slug(key: str) -> str:
    """A key as part of a repository name."""
    return re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-") or "base"


def _missing(need: Need, silent: Sequence[str]) -> PreconditionError:
    return PreconditionError(
        f"the base {need.key} cannot be had",
        hint=f"`docker load` it into the engine first, or give [bases.{_slug(need.name)}] an `archive` or a `rootfs`",
        details=(*need.places, *silent),
    )


def _lost(need: Need, pin: LockedImage | LockedArchive, reason: str) -> PreconditionError:
    return PreconditionError(
        f"the lock pins {need.key} to {pin.digest[7:19]}, which cannot be had: {reason}",
        hint="bring it back (`docker load`, the archive, the registry), or run `bases.update` to move the lock",
        details=need.places,
    )
