"""Compute the keys of the parts of a run: hashes of all that their results depend on."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lyra_tasks.checks.cached_results import PartKeys
from lyra_tasks.checks.groups import PlannedGroup
from lyra_tasks.checks.stages.plan import PlannedStage
from lyra_tasks.config.models import Configuration, Test
from lyra_tasks.digests import json_sha256, sha256_hex
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.records.evidence import SetKey, check_title
from lyra_tasks.records.recorded_test import INPUT_PREFIX
from lyra_tasks.version import __version__

_HOST_KINDS = frozenset({"run", "pytest", "junit"})
_HOST_KEYS_OF_STRUCTURE_FILES = ("bindMounts", "envFile")
_EPOCH_VARIABLE = b"SOURCE_DATE_EPOCH"


def compute_part_keys(
    work: Workspace,
    groups: Sequence[PlannedGroup],
    stages: Mapping[str, PlannedStage],
    set_key: SetKey,
    part_hashes: Mapping[str, str],
    inputs: Mapping[str, bytes],
) -> PartKeys:
    """Return the keys of all parts of a run."""
    checks, group_keys = dict[str, str](), dict[str, str]()
    for group in groups:
        for test in group.tests:
            if test.kind == "stage":
                document = _describe_stage(work, stages[test.name])
            elif test.kind == "structure" and _is_closed(inputs[test.structure or ""]):
                document = _describe_structure_check(group, test, inputs[test.structure or ""])
            else:
                continue
            checks[check_title(test.name, group.name)] = _hash_part(work, test.kind, [test], document)
        tests = [test for test in group.tests if not test.is_image_check]
        if tests and _depends_on_set_alone(work.config, tests):
            document = {"platform": group.platform, "set": _describe_set(work.config, set_key, part_hashes)}
            group_keys[group.name] = _hash_part(work, "group", tests, document)
    return PartKeys(checks, group_keys)


def _hash_part(work: Workspace, kind: str, tests: Sequence[Test], document: Mapping[str, Any]) -> str:
    facts = work.engine.facts
    return json_sha256(
        {
            **document,
            "kind": kind,
            "lyra": __version__,
            "engine": [facts.id, facts.version, facts.store, facts.platform],
            "tests": [test.model_dump(mode="json", by_alias=True, exclude={"group"}) for test in tests],
        }
    )


def _depends_on_set_alone(config: Configuration, tests: Iterable[Test]) -> bool:
    """Return whether neither this machine nor another network can change the results of checks."""
    return not any(test.kind in _HOST_KINDS for test in tests) and not any(
        service.egress for service in config.services.values()
    )


def _describe_set(config: Configuration, set_key: SetKey, part_hashes: Mapping[str, str]) -> dict[str, Any]:
    """Return all that a set is made of, without its checks, which the group has itself."""
    configs = config.config_sources
    parts = {
        name: digest
        for name, digest in part_hashes.items()
        if not name.startswith(("tests.", "stage of tests.", "files of tests.", "order of tests"))
        and (not name.startswith(INPUT_PREFIX) or name.removeprefix(INPUT_PREFIX) in configs)
    }
    return {**set_key.model_dump(mode="json", exclude={"effective_hash"}), "parts": parts}


def _describe_stage(work: Workspace, stage: PlannedStage) -> dict[str, Any]:
    """Return all that the result of a stage depends on; secret files by size and time, which reveal nothing."""
    target = {key: value for key, value in stage.target.items() if key != "output"}
    snapshots = stage.sources.snapshots.values() if stage.sources is not None else ()
    uses_epoch = any(
        _EPOCH_VARIABLE in snapshot.dockerfile.read_bytes() for snapshot in snapshots if snapshot.dockerfile
    )
    return {
        "target": target,
        "bases": dict(stage.base_targets),
        "sources": [[snapshot.digest, snapshot.dockerfile_digest] for snapshot in snapshots],
        "secrets": [[path, *_stamp(Path(path))] for path in stage.secret_paths],
        "epoch": stage.epoch if uses_epoch else None,
        "kept": stage.export_directory is not None,
        "root": str(work.root),
    }


def _stamp(file: Path) -> tuple[int, ...]:
    """Return the size and the time of a file, which reveal nothing of a secret; nothing if it is missing."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return ()
    return status.st_size, status.st_mtime_ns


def _is_closed(file: bytes) -> bool:
    """Return whether a file for container-structure-test reads nothing else of this machine."""
    return not any(key.encode() in file for key in _HOST_KEYS_OF_STRUCTURE_FILES)


def _describe_structure_check(group: PlannedGroup, test: Test, file: bytes) -> dict[str, Any]:
    return {
        "image": group.images[test.image or ""],
        "platform": group.platform,
        "file": sha256_hex(file),
        "program": _structure_version(),
    }


def _structure_version() -> str:
    try:
        return importlib.metadata.version("container-structure-test")
    except importlib.metadata.PackageNotFoundError:
        path = Path(shutil.which("container-structure-test") or "")
        return f"{path} {path.stat().st_mtime_ns}"
