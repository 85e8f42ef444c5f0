"""What a report is made of: the documents of a bundle or of a run's folder, as plain JSON."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lyra_tasks.records.evidence import LOGS_DIRECTORY, Evidence, Metrics, list_service_logs
from lyra_tasks.records.record import Record, read_record

TESTS_FILE_NAME = "tests.json"
METRICS_FILE_NAME = "metrics.json"


@dataclass(frozen=True)
class ReportDocuments:
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


def read_run_documents(directory: Path) -> ReportDocuments | None:
    """The documents of a test run, or None for a run that tested nothing."""
    if not (directory / TESTS_FILE_NAME).is_file():
        return None
    return ReportDocuments(
        read_test_results(directory / TESTS_FILE_NAME),
        read_metrics(directory / METRICS_FILE_NAME),
        read_service_logs(directory / LOGS_DIRECTORY),
    )


def read_test_results(path: Path) -> dict[str, Any]:
    """The verdict of a run; PreconditionError if it is not what it must be."""
    return _read_validated(path, Evidence)


def read_metrics(path: Path) -> dict[str, Any]:
    """The measurements and events of a run; PreconditionError if they are not what they must be."""
    return _read_validated(path, Metrics)


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a file that this program wrote."""
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def read_service_logs(directory: Path) -> dict[str, tuple[str, ...]]:
    """The lines of every service's log, by service; in the lab of a group, by GROUP/SERVICE."""
    paths = list_service_logs(directory)
    return {path.relative_to(directory).with_suffix("").as_posix(): tuple(_read_lines(path)) for path in paths}


def _read_validated(path: Path, record_type: type[Record]) -> dict[str, Any]:
    record = read_record(path, record_type)
    if record is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return record.model_dump(mode="json", by_alias=True)


def _read_lines(path: Path) -> Iterable[str]:
    return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
