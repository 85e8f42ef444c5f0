"""What the images of a project are built from now: the bases their Dockerfiles name, and the hash of every input.

What is about one image for one platform goes by what that build is called (`config.platforms`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from lyra_tasks.config.base_keys import named, pin_key
from lyra_tasks.config.dockerfile import From, read
from lyra_tasks.config.inputs import dockerfile_path, input_hashes, text_hash
from lyra_tasks.config.lock import LOCK_NAME, Lock, LockedRootfs
from lyra_tasks.config.lock import read as read_lock
from lyra_tasks.config.platforms import Variant, platform_arguments, variants, variants_by_key
from lyra_tasks.config.targets import external_bases

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace

_UNLOCKED = "not locked"


def base_uses(work: Workspace, builds: Iterable[Variant]) -> dict[str, tuple[From, ...]]:
    """The external images that each of `builds` needs, as its Dockerfile names them, each with its platform."""
    return {each.key: _uses(work, each, work.config.images[each.image].target) for each in builds}


def with_stages(work: Workspace, uses: Mapping[str, tuple[From, ...]]) -> dict[str, tuple[From, ...]]:
    """`uses` together with what the stages of the same images need that are built as checks."""
    found = dict(uses)
    known = variants_by_key(work.config)
    for test in work.config.tests:
        for key in [key for key in found if test.stage is not None and known[key].image == test.image]:
            more = stage_uses(work, known[key], test.stage or "")
            found[key] = tuple(dict.fromkeys((*found[key], *more)))
    return found


def stage_uses(work: Workspace, build: Variant, stage: str) -> tuple[From, ...]:
    """The external images that a stage of an image is built from."""
    return _uses(work, build, stage)


def stage_inputs(
    work: Workspace, build: Variant, stage: str, image: Mapping[str, str]
) -> dict[str, str | Mapping[str, str]]:
    """The input hashes of a stage that is built as a check, where `image` are those of the current image.

    The image may be the same, to the byte, while a stage beside it is another one.
    """
    bases = _digests(work, read_lock(work.root / LOCK_NAME), build, stage_uses(work, build, stage))
    return {**{kind: image[kind] for kind in ("args", "context", "dockerfile")}, "bases": bases}


def current_inputs(work: Workspace, lock: Lock | None = None) -> dict[str, dict[str, str]]:
    """The input hashes of every build as the files and the lock are now; nothing is asked of a registry."""
    lock = lock or read_lock(work.root / LOCK_NAME)
    shared = {name: input_hashes(work.root, image, work.git.commit) for name, image in work.config.images.items()}
    uses = base_uses(work, variants(work.config))
    return {
        each.key: {
            **shared[each.image],
            "bases": text_hash(_digests(work, lock, each, uses[each.key])),
            "platform": each.platform,
        }
        for each in variants(work.config)
    }


def locked_digests(work: Workspace, build: Variant) -> dict[str, str]:
    """The digest that the lock pins for each base of a build; one that it does not pin has none that is valid."""
    lock = read_lock(work.root / LOCK_NAME)
    return dict(_digests(work, lock, build, base_uses(work, (build,))[build.key]))


def arguments_of(work: Workspace, build: Variant) -> dict[str, str]:
    """The arguments that a FROM of a build may hold: BuildKit's own about platforms, and those of the image."""
    return {**platform_arguments(work.build_platform, build.platform), **work.config.images[build.image].args}


def _uses(work: Workspace, build: Variant, target: str) -> tuple[From, ...]:
    dockerfile = read(dockerfile_path(work.root, work.config.images[build.image]))
    found = external_bases(dockerfile, target, arguments_of(work, build))
    return tuple(replace(each, platform=each.platform or build.platform) for each in found)


def _digests(work: Workspace, lock: Lock, build: Variant, uses: Iterable[From]) -> Mapping[str, str]:
    found = {}
    for each in uses:
        pin = lock.bases.get(pin_key(work.config, build.image, each))
        name = named(each, build.platform)
        if pin is None:
            found[name] = _UNLOCKED
        else:
            found[name] = pin.sha256 if isinstance(pin, LockedRootfs) else pin.digest
    return found
