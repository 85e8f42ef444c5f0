"""Read the documents that a report is made of from a bundle or a run's directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lyra_tasks.documents import parse_json_object, read_document, translate_failures
from lyra_tasks.errors import PreconditionError
from lyra_tasks.records.evidence import LOGS_DIRECTORY, Evidence, Metrics, list_service_logs
from lyra_tasks.records.record import Record, read_record
from lyra_tasks.records.service_logs import LogFile

TESTS_FILE_NAME = "tests.json"
METRICS_FILE_NAME = "metrics.json"


@dataclass(frozen=True)
class ReportDocuments:
    """The documents of a bundle; a run has only `tests`, `metrics` and `logs`: lines `TIME STREAM TEXT` by service."""

    tests: Mapping[str, Any]
    metrics: Mapping[str, Any]
    logs: Mapping[str, Iterable[str]]
    manifest: Mapping[str, Any] = field(default_factory=dict)
    previous: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    deviations: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    rules: Mapping[str, Any] = field(default_factory=dict)
    vulnerabilities: Mapping[str, Any] = field(default_factory=dict)
    sboms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_run_documents(directory: Path) -> ReportDocuments | None:
    """Return the documents of a run, or None if it is not a test run."""
    if not (directory / TESTS_FILE_NAME).is_file():
        return None
    return ReportDocuments(
        read_test_results(directory / TESTS_FILE_NAME),
        read_metrics(directory / METRICS_FILE_NAME),
        read_service_logs(directory / LOGS_DIRECTORY),
    )


def read_test_results(path: Path) -> dict[str, Any]:
    """Read and validate the test results of a run."""
    return _read_validated(path, Evidence)


def read_metrics(path: Path) -> dict[str, Any]:
    """Read and validate the measurements and events of a run."""
    return _read_validated(path, Metrics)


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    with translate_failures(lambda problem: PreconditionError(f"{path}: {problem}", hint="Restore it, or delete it")):
        return parse_json_object(read_document(path))


def read_service_logs(directory: Path) -> dict[str, LogFile]:
    """Return the log lines by service, or by GROUP/SERVICE for a group of checks; they are read where they are used."""
    return {
        path.relative_to(directory).with_suffix("").as_posix(): LogFile(path) for path in list_service_logs(directory)
    }


def _read_validated(path: Path, record_type: type[Record]) -> dict[str, Any]:
    record = read_record(path, record_type)
    if record is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return record.model_dump(mode="json", by_alias=True)
