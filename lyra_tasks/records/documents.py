"""What a report is made of: the documents of a bundle or of a run's folder, as plain JSON."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lyra_tasks.records.evidence import LOGS, Evidence, service_logs
from lyra_tasks.records.metrics import Metrics
from lyra_tasks.records.store import Record, read_record

TESTS = "tests.json"
METRICS = "metrics.json"


@dataclass(frozen=True)
class Documents:
    """One bundle, or one run: then all but `tests`, `metrics` and `logs` is empty.

    `sboms` are by image; `logs` are the lines of each service, `TIME STREAM TEXT`. `previous` describes the images of
    the version before, as far as they are compared.
    """

    tests: Mapping[str, Any]
    metrics: Mapping[str, Any]
    logs: Mapping[str, tuple[str, ...]]
    manifest: Mapping[str, Any] = field(default_factory=dict)
    previous: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    deviations: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sboms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def documents_of_run(folder: Path) -> Documents | None:
    """The documents of a test run, or None for a run that tested nothing."""
    if not (folder / TESTS).is_file():
        return None
    return Documents(read_tests(folder / TESTS), read_metrics(folder / METRICS), read_logs(folder / LOGS))


def read_tests(path: Path) -> dict[str, Any]:
    """The verdict of a run; PreconditionError if it is not what it must be."""
    return _checked(path, Evidence)


def read_metrics(path: Path) -> dict[str, Any]:
    """The measurements and events of a run; PreconditionError if they are not what they must be."""
    return _checked(path, Metrics)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file that this program wrote."""
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def read_logs(folder: Path) -> dict[str, tuple[str, ...]]:
    """The lines of every service's log, by service; in the lab of a group, by GROUP/SERVICE."""
    found = service_logs(folder)
    return {path.relative_to(folder).with_suffix("").as_posix(): tuple(_lines(path)) for path in found}


def _checked(path: Path, kind: type[Record]) -> dict[str, Any]:
    found = read_record(path, kind)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return found.model_dump(mode="json", by_alias=True)


def _lines(path: Path) -> Iterable[str]:
    return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
