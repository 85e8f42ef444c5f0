"""What the images of a project are built from now: the bases their Dockerfiles name, and the hash of every input.

What is about one image for one platform goes by what that build is called (`config.platforms`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from lyra_tasks.config.platforms import Variant, list_variants, platform_build_args, variants_by_key
from lyra_tasks.dockerfile.input_hashes import compute_input_hashes, dockerfile_path, hash_mapping
from lyra_tasks.dockerfile.lock_file import LOCK_FILE_NAME, LockedRootfs, LockFile, build_context_name, lock_key
from lyra_tasks.dockerfile.lock_file import read_lock_file as read_lock
from lyra_tasks.dockerfile.parse import ImageUse, read_dockerfile
from lyra_tasks.dockerfile.stages import list_base_images

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace

_UNLOCKED = "not locked"


def find_base_uses(work: Workspace, builds: Iterable[Variant]) -> dict[str, tuple[ImageUse, ...]]:
    """The external images that each of `builds` needs, as its Dockerfile names them, each with its platform."""
    return {build.key: _find_uses(work, build, work.config.images[build.image].target) for build in builds}


def add_stage_uses(work: Workspace, uses: Mapping[str, tuple[ImageUse, ...]]) -> dict[str, tuple[ImageUse, ...]]:
    """`uses` together with what the stages of the same images need that are built as checks."""
    extended = dict(uses)
    builds = variants_by_key(work.config)
    for test in work.config.tests:
        for key in [key for key in extended if test.stage is not None and builds[key].image == test.image]:
            stage_bases = find_stage_uses(work, builds[key], test.stage or "")
            extended[key] = tuple(dict.fromkeys((*extended[key], *stage_bases)))
    return extended


def find_stage_uses(work: Workspace, build: Variant, stage: str) -> tuple[ImageUse, ...]:
    """The external images that a stage of an image is built from."""
    return _find_uses(work, build, stage)


def hash_stage_inputs(
    work: Workspace, build: Variant, stage: str, image_hashes: Mapping[str, str]
) -> dict[str, str | Mapping[str, str]]:
    """The input hashes of a stage that is built as a check, where `image` are those of the current image.

    The image may be the same, to the byte, while a stage beside it is another one.
    """
    bases = _pinned_digests(work, read_lock(work.root / LOCK_FILE_NAME), build, find_stage_uses(work, build, stage))
    return {**{kind: image_hashes[kind] for kind in ("args", "context", "dockerfile")}, "bases": bases}


def hash_current_inputs(work: Workspace, lock: LockFile | None = None) -> dict[str, dict[str, str]]:
    """The input hashes of every build as the files and the lock are now; nothing is asked of a registry."""
    lock = lock or read_lock(work.root / LOCK_FILE_NAME)
    image_hashes = {
        name: compute_input_hashes(work.root, image, work.git.commit) for name, image in work.config.images.items()
    }
    uses = find_base_uses(work, list_variants(work.config))
    return {
        build.key: {
            **image_hashes[build.image],
            "bases": hash_mapping(_pinned_digests(work, lock, build, uses[build.key])),
            "platform": build.platform,
        }
        for build in list_variants(work.config)
    }


def read_locked_digests(work: Workspace, build: Variant) -> dict[str, str]:
    """The digest that the lock pins for each base of a build; one that it does not pin has none that is valid."""
    lock = read_lock(work.root / LOCK_FILE_NAME)
    return dict(_pinned_digests(work, lock, build, find_base_uses(work, (build,))[build.key]))


def collect_from_arguments(work: Workspace, build: Variant) -> dict[str, str]:
    """The arguments that a FROM of a build may hold: BuildKit's own about platforms, and those of the image."""
    return {**platform_build_args(work.build_platform, build.platform), **work.config.images[build.image].args}


def _find_uses(work: Workspace, build: Variant, target: str) -> tuple[ImageUse, ...]:
    dockerfile = read_dockerfile(dockerfile_path(work.root, work.config.images[build.image]))
    bases = list_base_images(dockerfile, target, collect_from_arguments(work, build))
    return tuple(replace(base, platform=base.platform or build.platform) for base in bases)


def _pinned_digests(work: Workspace, lock: LockFile, build: Variant, uses: Iterable[ImageUse]) -> Mapping[str, str]:
    digests = {}
    for base in uses:
        pin = lock.bases.get(lock_key(work.config, build.image, base))
        name = build_context_name(base, build.platform)
        if pin is None:
            digests[name] = _UNLOCKED
        else:
            digests[name] = pin.sha256 if isinstance(pin, LockedRootfs) else pin.digest
    return digests
