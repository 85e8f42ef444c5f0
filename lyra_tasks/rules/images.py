"""The rules about images: what their record, their configuration and their bytes say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lyra_tasks import console
from lyra_tasks.config.models import Proxima, Service
from lyra_tasks.config.services import image_healthcheck
from lyra_tasks.errors import PreconditionError
from lyra_tasks.images.scan.elf import can_run_programs
from lyra_tasks.records.images import ImageRecord, ImageScan
from lyra_tasks.rules.catalogue import (
    BASE_LOCKED,
    DOCKERFILE_LINT,
    HEALTHCHECK,
    IMAGE_LABELS,
    IMAGE_PLATFORM,
    IMAGE_SECRETS,
    IMAGE_SIZE,
    IMAGE_TOKENS,
    SECRET_NAMES,
    SETUID,
    TEST_PLATFORM,
    VOLUME_OWNER,
)
from lyra_tasks.rules.finding import RuleCheck

_LABEL_PREFIX = "org.opencontainers.image."
_REQUIRED_LABELS = ("title", "description", "source", "revision")
_ROOT = "0:0"
_NOT_INSTALLED = "detect-secrets is not installed"


def check_image_record(name: str, record: ImageRecord, proxima: Proxima) -> Iterator[RuleCheck]:
    """What Proxima can hold (R3), by what was recorded of a build."""
    yield check_image_size(name, record, proxima)
    yield check_image_platform(name, record, proxima)


def check_image_size(name: str, record: ImageRecord, proxima: Proxima) -> RuleCheck:
    """Whether the image is as small as Proxima wants it."""
    limit = proxima.max_image_size
    is_too_large = limit is not None and record.size > limit
    message = f"it has {console.format_bytes(record.size)}, Proxima takes {console.format_bytes(limit or 0)} at most"
    return RuleCheck(IMAGE_SIZE, f"images.{name}", (message,) if is_too_large else ())


def check_image_platform(name: str, record: ImageRecord, proxima: Proxima, scan: ImageScan | None = None) -> RuleCheck:
    """Whether Proxima runs the platform of the image and, once its bytes were read, its programs.

    A builder labels an image with the platform that it was asked for, whatever its base and its files are for.
    """
    messages = []
    if record.platform not in proxima.platforms:
        messages.append(f"it is for {record.platform}, which Proxima does not run")
    if scan is not None and not can_run_programs(record.platform, scan.programs_by_architecture):
        architectures = ", ".join(sorted(scan.programs_by_architecture))
        messages.append(f"it says that it is for {record.platform}, and all of its programs are for {architectures}")
    return RuleCheck(IMAGE_PLATFORM, f"images.{name}", tuple(messages))


def check_tested_platform(name: str, record: ImageRecord, tested_builds: Collection[str], engine: str) -> RuleCheck:
    """Whether a service ran the image; `tried` are the builds that ran, `engine` is the platform of the engine."""
    message = f"nothing of it ran: the engine runs {engine}, and does not run {record.platform}"
    return RuleCheck(TEST_PLATFORM, f"images.{name}", () if name in tested_builds else (message,))


def check_base_locked(name: str, record: ImageRecord, froms: Iterable[str], pins: Mapping[str, str]) -> RuleCheck:
    """Whether every FROM was built from a digest that the lock pins; `pins` are by the reference in FROM."""
    messages = []
    for reference in froms:
        digest = record.bases.get(reference, "")
        if not digest.startswith("sha256:"):
            messages.append(f"FROM {reference} was built from no digest")
        elif pins.get(reference, "").removeprefix("sha256:") != digest.removeprefix("sha256:"):
            messages.append(f"FROM {reference} was built from another digest than the lock pins")
    return RuleCheck(BASE_LOCKED, f"images.{name}", tuple(messages))


def check_labels(name: str, config: Mapping[str, Any]) -> RuleCheck:
    """Whether the OCI labels are there."""
    labels = config.get("Labels") or {}
    missing = [label for label in _REQUIRED_LABELS if not labels.get(_LABEL_PREFIX + label)]
    message = f"it has no label {', '.join(_LABEL_PREFIX + label for label in missing)}"
    return RuleCheck(IMAGE_LABELS, f"images.{name}", (message,) if missing else ())


def check_scan(name: str, scan: ImageScan) -> Iterator[RuleCheck]:
    """What the bytes of an image say."""
    scope = f"images.{name}"
    secrets = tuple(
        f"it holds the secret {match.secret} ({match.encoding}) in {match.location}" for match in scan.secrets
    )
    yield RuleCheck(IMAGE_SECRETS, scope, secrets)
    secret_names = tuple(f"{name} is named like a secret, and has a value" for name in scan.secret_like_names)
    yield RuleCheck(SECRET_NAMES, scope, secret_names)
    setuid_files = tuple(f"/{path} has mode {mode}" for path, mode in sorted(scan.setuid_programs.items()))
    yield RuleCheck(SETUID, scope, setuid_files)
    skipped = _NOT_INSTALLED if scan.tokens is None else ""
    yield RuleCheck(IMAGE_TOKENS, scope, tuple(scan.tokens or ()), skipped)


def check_volume_owners(name: str, service: Service, scan: ImageScan) -> RuleCheck:
    """Whether each volume of `service` gets its declared owner on Proxima, where Docker takes it from the image.

    A folder that the image does not hold is made there, and is root's.
    """
    messages = []
    for key, volume in service.volumes.items():
        owner = scan.volume_owners.get(volume.path.rstrip("/"))
        if owner is None and _normalize_owner(volume.owner) == _ROOT:
            continue
        if owner is None:
            messages.append(f"volume {key}: the image has no folder {volume.path}")
        elif owner != _normalize_owner(volume.owner):
            messages.append(f"volume {key}: {volume.path} belongs to {owner} in the image, declared is {volume.owner}")
    return RuleCheck(VOLUME_OWNER, f"services.{name}", tuple(messages))


def check_health_check(name: str, service: Service, image_config: Mapping[str, Any]) -> RuleCheck:
    """Whether the service takes a health check to Proxima; one that ends on its own needs none."""
    has_exec_check = service.healthcheck is not None and service.healthcheck.exec is not None
    has_health_check = has_exec_check or bool(image_healthcheck(image_config)) or service.oneshot
    message = "it has no health check that travels: the image has no HEALTHCHECK, and there is no healthcheck.exec"
    return RuleCheck(HEALTHCHECK, f"services.{name}", () if has_health_check else (message,))


def count_base_layers(config: Mapping[str, Any], instructions: Sequence[str]) -> int:
    """How many of an image's layers its base brought; 0 where that cannot be told.

    `instructions` are those of the project's own stages. The history ends with one entry for each of them, and what
    stands before is the base's.
    """
    history = list(config.get("history") or [])
    own_history = history[len(history) - len(instructions) :] if len(history) >= len(instructions) else []
    keywords = [str(entry.get("created_by", "")).split(" ")[0].upper() for entry in own_history]
    if not own_history or keywords != [instruction.upper() for instruction in instructions]:
        return 0
    return sum(not entry.get("empty_layer", False) for entry in history[: len(history) - len(own_history)])


def _normalize_owner(owner: str) -> str:
    return ":".join(str(int(part)) for part in owner.split(":"))


_HADOLINT_TIMEOUT_S = 30.0  # seconds
_REPORTED_LEVELS = {"error", "warning"}


def find_hadolint() -> str | None:
    """The program: beside this Python, as the extra `lint` installs it, or on PATH."""
    installed = Path(sys.executable).with_name("hadolint")
    return str(installed) if installed.is_file() else shutil.which("hadolint")


def check_dockerfile(name: str, dockerfile: Path, root: Path) -> RuleCheck:
    """What hadolint says of a Dockerfile; its own `.hadolint.yaml` in `root` holds.

    PreconditionError if it is installed and cannot be run.
    """
    scope = f"images.{name}"
    program = find_hadolint()
    if program is None:
        return RuleCheck(DOCKERFILE_LINT, scope, skip_reason="hadolint is not installed")
    relative_path = dockerfile.relative_to(root) if dockerfile.is_relative_to(root) else dockerfile
    command = [program, "--no-fail", "--format", "json", str(dockerfile)]
    try:
        result = subprocess.run(
            command, cwd=root, capture_output=True, check=True, timeout=_HADOLINT_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
        findings = json.loads(result.stdout or b"[]")
        messages = tuple(
            f"{relative_path}:{finding['line']}: {finding['code']}: {finding['message']}"
            for finding in findings
            if finding["level"] in _REPORTED_LEVELS
        )
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        lines = (getattr(error, "stderr", None) or b"").decode(errors="replace").splitlines()
        raise PreconditionError(
            f"hadolint could not read {relative_path}", hint="mend it, or take it off PATH", details=tuple(lines[-5:])
        ) from error
    return RuleCheck(DOCKERFILE_LINT, scope, messages)
