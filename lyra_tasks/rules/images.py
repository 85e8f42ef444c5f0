"""The rules about images: what their record, their configuration and their bytes say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lyra_tasks import console
from lyra_tasks.config.models import Proxima, Service
from lyra_tasks.config.services import image_health
from lyra_tasks.images.programs import runnable
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.records.scans import ImageScan
from lyra_tasks.rules import catalogue
from lyra_tasks.rules.breach import Look

_PREFIX = "org.opencontainers.image."
_LABELS = ("title", "description", "source", "revision")
_ROOT = "0:0"
_NOT_INSTALLED = "detect-secrets is not installed"


def record_looks(name: str, record: ImageRecord, proxima: Proxima) -> Iterator[Look]:
    """What Proxima can hold (R3), by what was recorded of a build."""
    yield size_look(name, record, proxima)
    yield platform_look(name, record, proxima)


def size_look(name: str, record: ImageRecord, proxima: Proxima) -> Look:
    """Whether the image is as small as Proxima wants it."""
    limit = proxima.max_image_size
    too_large = limit is not None and record.size > limit
    sizes = f"it has {console.size(record.size)}, Proxima takes {console.size(limit or 0)} at most"
    return Look(catalogue.IMAGE_SIZE, f"images.{name}", (sizes,) if too_large else ())


def platform_look(name: str, record: ImageRecord, proxima: Proxima, scan: ImageScan | None = None) -> Look:
    """Whether Proxima runs the platform of the image and, once its bytes were read, its programs.

    A builder labels an image with the platform that it was asked for, whatever its base and its files are for.
    """
    found = []
    if record.platform not in proxima.platforms:
        found.append(f"it is for {record.platform}, which Proxima does not run")
    if scan is not None and not runnable(record.platform, scan.programs):
        others = ", ".join(sorted(scan.programs))
        found.append(f"it says that it is for {record.platform}, and all of its programs are for {others}")
    return Look(catalogue.IMAGE_PLATFORM, f"images.{name}", tuple(found))


def tried_look(name: str, record: ImageRecord, tried: Collection[str], engine: str) -> Look:
    """Whether a service ran the image; `tried` are the builds that ran, `engine` is the platform of the engine."""
    what = f"nothing of it ran: the engine runs {engine}, and does not run {record.platform}"
    return Look(catalogue.TEST_PLATFORM, f"images.{name}", () if name in tried else (what,))


def base_look(name: str, record: ImageRecord, froms: Iterable[str], pins: Mapping[str, str]) -> Look:
    """Whether every FROM was built from a digest that the lock pins; `pins` are by the reference in FROM."""
    found = []
    for reference in froms:
        built = record.bases.get(reference, "")
        if not built.startswith("sha256:"):
            found.append(f"FROM {reference} was built from no digest")
        elif pins.get(reference, "").removeprefix("sha256:") != built.removeprefix("sha256:"):
            found.append(f"FROM {reference} was built from another digest than the lock pins")
    return Look(catalogue.BASE_LOCKED, f"images.{name}", tuple(found))


def labels_look(name: str, config: Mapping[str, Any]) -> Look:
    """Whether the OCI labels are there."""
    labels = config.get("Labels") or {}
    missing = [label for label in _LABELS if not labels.get(_PREFIX + label)]
    what = f"it has no label {', '.join(_PREFIX + label for label in missing)}"
    return Look(catalogue.LABELS, f"images.{name}", (what,) if missing else ())


def scan_looks(name: str, scan: ImageScan) -> Iterator[Look]:
    """What the bytes of an image say."""
    scope = f"images.{name}"
    held = tuple(f"it holds the secret {each.secret} ({each.form}) in {each.place}" for each in scan.secrets)
    yield Look(catalogue.SECRETS, scope, held)
    named = tuple(f"{each} is named like a secret, and has a value" for each in scan.secret_names)
    yield Look(catalogue.SECRET_NAMES, scope, named)
    special = tuple(f"/{path} has mode {mode}" for path, mode in sorted(scan.special.items()))
    yield Look(catalogue.SETUID, scope, special)
    skipped = _NOT_INSTALLED if scan.tokens is None else ""
    yield Look(catalogue.TOKENS, scope, tuple(scan.tokens or ()), skipped)


def volume_look(name: str, service: Service, scan: ImageScan) -> Look:
    """Whether each volume of `service` gets its declared owner on Proxima, where Docker takes it from the image.

    A folder that the image does not hold is made there, and is root's.
    """
    found = []
    for key, volume in service.volumes.items():
        owner = scan.owners.get(volume.path.rstrip("/"))
        if owner is None and _numbers(volume.owner) == _ROOT:
            continue
        if owner is None:
            found.append(f"volume {key}: the image has no folder {volume.path}")
        elif owner != _numbers(volume.owner):
            found.append(f"volume {key}: {volume.path} belongs to {owner} in the image, declared is {volume.owner}")
    return Look(catalogue.VOLUME_OWNER, f"services.{name}", tuple(found))


def health_look(name: str, service: Service, image_config: Mapping[str, Any]) -> Look:
    """Whether the service takes a health check to Proxima; one that ends on its own needs none."""
    exec_check = service.healthcheck is not None and service.healthcheck.exec is not None
    travels = exec_check or bool(image_health(image_config)) or service.oneshot
    what = "it has no health check that travels: the image has no HEALTHCHECK, and there is no healthcheck.exec"
    return Look(catalogue.HEALTHCHECK, f"services.{name}", () if travels else (what,))


def base_layers(config: Mapping[str, Any], instructions: Sequence[str]) -> int:
    """How many of an image's layers its base brought; 0 where that cannot be told.

    `instructions` are those of the project's own stages. The history ends with one entry for each of them, and what
    stands before is the base's.
    """
    history = list(config.get("history") or [])
    own = history[len(history) - len(instructions) :] if len(history) >= len(instructions) else []
    words = [str(entry.get("created_by", "")).split(" ")[0].upper() for entry in own]
    if not own or words != [each.upper() for each in instructions]:
        return 0
    return sum(not entry.get("empty_layer", False) for entry in history[: len(history) - len(own)])


def _numbers(owner: str) -> str:
    return ":".join(str(int(part)) for part in owner.split(":"))
