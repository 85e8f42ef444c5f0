"""What the images of a project are built from now: the bases their Dockerfiles name, and the hash of every input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.config.dockerfile import From, read
from lyra_tasks.config.inputs import dockerfile_path, input_hashes
from lyra_tasks.config.lock import LOCK_NAME, Lock, LockedRootfs
from lyra_tasks.config.lock import read as read_lock
from lyra_tasks.config.models import Configuration
from lyra_tasks.config.targets import external_bases
from lyra_tasks.engine.bases import key_of

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace

_UNLOCKED = "not locked"


def base_uses(work: Workspace, names: Iterable[str]) -> dict[str, tuple[From, ...]]:
    """The external images that each of the images `names` is built from, as its Dockerfile names them."""
    uses = {}
    for name in names:
        image = work.config.images[name]
        dockerfile = read(dockerfile_path(work.root, image))
        uses[name] = external_bases(dockerfile, image.target, image.args)
    return uses


def with_stages(work: Workspace, uses: Mapping[str, tuple[From, ...]]) -> dict[str, tuple[From, ...]]:
    """`uses` together with what the stages of the same images need that are built as checks."""
    found = dict(uses)
    for test in work.config.tests:
        if test.image in found and test.stage is not None:
            more = stage_uses(work.config, work.root, test.image, test.stage)
            found[test.image] = tuple(dict.fromkeys((*found[test.image], *more)))
    return found


def stage_uses(config: Configuration, root: Path, name: str, stage: str) -> tuple[From, ...]:
    """The external images that a stage of the image `name` is built from."""
    image = config.images[name]
    return external_bases(read(dockerfile_path(root, image)), stage, image.args)


def stage_inputs(
    config: Configuration, root: Path, name: str, stage: str, image: Mapping[str, str]
) -> dict[str, str | Mapping[str, str]]:
    """The input hashes of a stage that is built as a check, where `image` are those of the current image `name`.

    The image may be the same, to the byte, while a stage beside it is another one.
    """
    bases = _digests(config, read_lock(root / LOCK_NAME), name, stage_uses(config, root, name, stage))
    return {**{kind: image[kind] for kind in ("args", "context", "dockerfile")}, "bases": bases}


def current_inputs(work: Workspace, lock: Lock | None = None) -> dict[str, dict[str, str]]:
    """The input hashes of every image as the files and the lock are now; nothing is asked of a registry."""
    lock = lock or read_lock(work.root / LOCK_NAME)
    uses = base_uses(work, work.config.images)
    return {
        name: input_hashes(
            work.root,
            image,
            platform=work.platform,
            commit=work.git.commit,
            bases=_digests(work.config, lock, name, uses[name]),
        )
        for name, image in work.config.images.items()
    }


def locked_digests(work: Workspace, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """By image, the digest that the lock pins for each FROM; one that it does not pin has none that is valid."""
    lock = read_lock(work.root / LOCK_NAME)
    return {name: dict(_digests(work.config, lock, name, uses)) for name, uses in base_uses(work, names).items()}


def _digests(config: Configuration, lock: Lock, image: str, uses: Iterable[From]) -> Mapping[str, str]:
    found = {}
    for each in uses:
        pin = lock.bases.get(key_of(config, image, each.reference))
        if pin is None:
            found[each.reference] = _UNLOCKED
        else:
            found[each.reference] = pin.sha256 if isinstance(pin, LockedRootfs) else pin.digest
    return found
