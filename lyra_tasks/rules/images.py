"""Rules about images and Dockerfiles, checked by build record, image configuration, scan and hadolint."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lyra_tasks import console
from lyra_tasks.config.containers import UserIds
from lyra_tasks.config.models import Proxima, Service
from lyra_tasks.config.services import image_healthcheck
from lyra_tasks.digests import hex_part
from lyra_tasks.documents import parse_foreign_json, translate_failures
from lyra_tasks.errors import PreconditionError
from lyra_tasks.images.scan.layers import can_run_programs
from lyra_tasks.records.images import ImageOrigin, ImageRecord, ImageScan
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
from lyra_tasks.rules.engine_support import check_layer_count
from lyra_tasks.rules.finding import RuleCheck

_LABEL_PREFIX = "org.opencontainers.image."
_REQUIRED_LABELS = ("title", "description", "source", "revision")
_ROOT = "0:0"
_HADOLINT_TIMEOUT_S = 30.0
_HADOLINT_LEVELS = {"error", "warning"}
_ARGUMENT_VALUE = re.compile(r"(?:^|\s)([A-Za-z_]\w*)=(\S*)")
# The history keeps the build arguments of a step as `RUN |1 NAME=value /bin/sh -c …`.
_RUN_WITH_ARGUMENTS = re.compile(r"RUN \|(\d+) ")

SharedOwners = Mapping[str, Mapping[tuple[str, str], str]]
"""Owner and mode of the directories that a shared volume may be filled from, by volume, path and image."""


def check_image_record(
    name: str, record: ImageRecord, proxima: Proxima, scan: ImageScan | None = None
) -> Iterator[RuleCheck]:
    """Check whether Proxima takes an image of this size and depth, and runs its platform and its programs (R3).

    Programs are checked with a scan only.

    A builder labels an image with the requested platform, whatever its base and its files are for.
    """
    messages = []
    if proxima.max_image_size is not None and record.size > proxima.max_image_size:
        size, limit = console.format_bytes(record.size), console.format_bytes(proxima.max_image_size)
        messages.append(f"image size {size} exceeds proxima.max_image_size {limit}")
    yield RuleCheck(IMAGE_SIZE, f"images.{name}", tuple(messages))
    messages = []
    if record.platform not in proxima.platforms:
        messages.append(f"platform {record.platform} is not in proxima.platforms")
    if scan is not None and not can_run_programs(record.platform, scan.programs_by_architecture):
        architectures = ", ".join(sorted(scan.programs_by_architecture))
        messages.append(f"labelled as {record.platform}, but all its programs are for {architectures}")
    yield RuleCheck(IMAGE_PLATFORM, f"images.{name}", tuple(messages))
    yield check_layer_count(name, record)


def check_tested_platform(name: str, record: ImageRecord, tested_builds: Collection[str], engine: str) -> RuleCheck:
    """Check whether a test ran the image; `engine` is the platform of the engine."""
    message = f"not tested: the engine runs {engine} and cannot run {record.platform}"
    return RuleCheck(TEST_PLATFORM, f"images.{name}", () if name in tested_builds else (message,))


def check_base_locked(name: str, record: ImageRecord, references: Iterable[str], pins: Mapping[str, str]) -> RuleCheck:
    """Check whether every FROM was built from its pinned digest; `pins` are by the reference in FROM."""
    messages = []
    for reference in references:
        digest = record.bases.get(reference, "")
        if not digest.startswith("sha256:"):
            messages.append(f"FROM {reference} was not built from a digest")
        elif hex_part(pins.get(reference, "")) != hex_part(digest):
            messages.append(f"FROM {reference} was not built from the pinned digest")
    return RuleCheck(BASE_LOCKED, f"images.{name}", tuple(messages))


def check_origin_locked(name: str, origin: ImageOrigin, locked: str) -> RuleCheck:
    """Check whether a third-party image is the one that the lock file pins by the digest `locked`."""
    message = f"{origin.reference} is not the image that is locked"
    return RuleCheck(BASE_LOCKED, f"images.{name}", () if origin.digest == locked else (message,))


def check_labels(name: str, config: Mapping[str, Any]) -> RuleCheck:
    """Check the required OCI labels."""
    labels = config.get("Labels") or {}
    missing = [label for label in _REQUIRED_LABELS if not labels.get(_LABEL_PREFIX + label)]
    message = f"missing label {', '.join(_LABEL_PREFIX + label for label in missing)}"
    return RuleCheck(IMAGE_LABELS, f"images.{name}", (message,) if missing else ())


def check_scan(name: str, scan: ImageScan, origin: ImageOrigin | None = None) -> Iterator[RuleCheck]:
    """Check the result of an image scan: secrets, secret names, setuid programs, tokens.

    What a third-party image itself contains is noted: the project cannot change it.
    """
    scope = f"images.{name}"
    secrets = tuple(
        f"contains secret {match.secret} ({match.encoding}) in {console.escape(match.location)}"
        for match in scan.secrets
    )
    yield RuleCheck(IMAGE_SECRETS, scope, secrets)
    secret_names = tuple(
        f"{console.escape(name)} is named like a secret and has a value" for name in scan.secret_like_names
    )
    yield RuleCheck(SECRET_NAMES, scope, secret_names)
    setuid_files = tuple(
        f"/{console.escape(path)} has mode {mode}" for path, mode in sorted(scan.setuid_programs.items())
    )
    if origin is not None:
        note = (
            f"set by the vendor, and disarmed by no-new-privileges: {'; '.join(setuid_files)}" if setuid_files else ""
        )
        yield RuleCheck(SETUID, scope, skip_reason=note)
        return
    yield RuleCheck(SETUID, scope, setuid_files)
    skip_reason = "detect-secrets is not installed" if scan.tokens is None else ""
    yield RuleCheck(IMAGE_TOKENS, scope, tuple(map(console.escape, scan.tokens or ())), skip_reason)


def check_volume_owners(
    name: str,
    service: Service,
    scan: ImageScan,
    user: UserIds | None,
    groups: Collection[int] = (),
    shared_owners: SharedOwners = MappingProxyType({}),
) -> RuleCheck:
    """Check whether `user`, with more `groups`, can write to each volume, or whether a volume has its declared owner.

    As long as a volume is empty, each container that is created with it gives it content, owner and mode of the
    directory in its image, if there is one. So the last image with an empty directory decides, or the first with files
    in it: both depend on the order in which containers are created, and a volume is judged by each of them. Without
    any, root owns it. `user` is None if its name could not be resolved.
    """
    messages = []
    for key, volume in service.volumes.items():
        if "nocopy" in volume.mount_options:
            continue
        own = scan.volume_owners.get(volume.path.rstrip("/"))
        others = shared_owners.get(volume.shared or "", {})
        directories = {place: directory for place, directory in others.items() if directory != own}
        if own or not directories:
            directories[volume.path, "the image"] = own or ""  # the empty text: there is none
        for (path, image), directory in directories.items():
            owner, mode = _parse_owner(directory or f"{_ROOT} 0755")
            if volume.owner is None:
                if user is None or volume.read_only or _can_write(user, groups, owner, mode):
                    continue
                reason = f"belongs to {owner} in {image} (mode {mode:04o})" if directory else f"is not in {image}"
                messages.append(f"volume {key}: user {user[0]}:{user[1]} cannot write: {path} {reason}")
            elif not directory and _normalize_owner(volume.owner) != _ROOT:
                messages.append(f"volume {key}: the image has no directory {volume.path}")
            elif owner != _normalize_owner(volume.owner):
                messages.append(f"volume {key}: owner of {path} is {owner} in {image}, declared: {volume.owner}")
    return RuleCheck(VOLUME_OWNER, f"services.{name}", tuple(messages))


def _parse_owner(text: str) -> tuple[str, int]:
    owner, _, mode = text.partition(" ")
    return owner, int(mode, 8)


def _can_write(user: UserIds, more_groups: Collection[int], owner: str, mode: int) -> bool:
    """Return whether a user can write to a directory; root may change it."""
    uid, gid = map(int, owner.split(":"))
    if user[0] == 0:
        return True
    if user[0] == uid:
        return bool(mode & stat.S_IWUSR)
    if gid in {user[1], *more_groups}:
        return bool(mode & stat.S_IWGRP)
    return bool(mode & stat.S_IWOTH)


def check_health_check(name: str, service: Service, image_config: Mapping[str, Any]) -> RuleCheck:
    """Check whether the service has a health check on Proxima; one-shot services need none."""
    check = service.healthcheck
    has_exec_check = check is not None and check.exec is not None
    is_disabled = check is not None and check.disable
    has_health_check = has_exec_check or service.oneshot or (bool(image_healthcheck(image_config)) and not is_disabled)
    message = "no health check on Proxima: the image has no HEALTHCHECK, and healthcheck.exec is not set"
    return RuleCheck(HEALTHCHECK, f"services.{name}", () if has_health_check else (message,))


def count_base_layers(config: Mapping[str, Any], instructions: Sequence[str]) -> int:
    """Return the number of an image's layers that come from its base, or 0 if unknown.

    `instructions` are those of the project's own stages: the history ends with one entry for each of them.
    """
    history = list(config.get("history") or [])
    own_history = history[len(history) - len(instructions) :] if len(history) >= len(instructions) else []
    keywords = [str(entry.get("created_by", "")).split(" ")[0].upper() for entry in own_history]
    if not own_history or keywords != [instruction.upper() for instruction in instructions]:
        return 0
    return sum(not entry.get("empty_layer", False) for entry in history[: len(history) - len(own_history)])


def read_own_variables(config: Mapping[str, Any], names: set[str], instructions: int) -> dict[str, str]:
    """Return ENV and ARG of an image's own stages, from the configuration and the history: `ENV NAME` -> value."""
    pairs = (str(pair).partition("=") for pair in (config.get("config") or {}).get("Env") or [])
    variables = {f"ENV {name}": value for name, _, value in pairs if name in names}
    history = [str(entry.get("created_by", "")) for entry in config.get("history") or []]
    for step in history[max(0, len(history) - instructions) :]:
        for name, value in read_build_arguments(step):
            if f"ENV {name}" not in variables:
                variables.setdefault(f"ARG {name}", value)
    return variables


def read_build_arguments(step: str) -> list[tuple[str, str]]:
    """Return the arguments in a step of the history, with their values."""
    if step.startswith("ARG "):
        return _ARGUMENT_VALUE.findall(step)
    run = _RUN_WITH_ARGUMENTS.match(step)
    return _ARGUMENT_VALUE.findall(step[run.end() :])[: int(run[1])] if run else []


def check_dockerfile(name: str, dockerfile: Path, root: Path) -> RuleCheck:
    """Check a Dockerfile with hadolint, configured by `.hadolint.yaml` in `root`."""
    scope = f"images.{name}"
    installed = Path(sys.executable).with_name("hadolint")  # by the extra `lint`
    program = str(installed) if installed.is_file() else shutil.which("hadolint")
    if program is None:
        return RuleCheck(DOCKERFILE_LINT, scope, skip_reason="hadolint is not installed")
    relative_path = dockerfile.relative_to(root) if dockerfile.is_relative_to(root) else dockerfile
    command = [program, "--no-fail", "--format", "json", str(dockerfile)]
    details: tuple[str, ...] = ()
    with translate_failures(
        lambda problem: PreconditionError(
            f"Cannot lint {relative_path}: hadolint failed: {problem}",
            hint="Fix the installation or remove it from PATH",
            details=details,
        )
    ):
        result = subprocess.run(
            command, cwd=root, capture_output=True, check=False, timeout=_HADOLINT_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
        details = tuple(result.stderr.decode(errors="replace").splitlines()[-5:])
        result.check_returncode()
        messages = tuple(
            console.escape(f"{relative_path}:{finding['line']}: {finding['code']}: {finding['message']}")
            for finding in parse_foreign_json(result.stdout or b"[]")
            if finding["level"] in _HADOLINT_LEVELS
        )
    return RuleCheck(DOCKERFILE_LINT, scope, messages)


def _normalize_owner(owner: str) -> str:
    return ":".join(str(int(part)) for part in owner.split(":"))
