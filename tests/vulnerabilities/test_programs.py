"""grype and trivy: their answers, and how they are started."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.documents import DocumentError
from lyra_tasks.vulnerabilities import programs
from lyra_tasks.vulnerabilities.document import Vulnerability
from lyra_tasks.vulnerabilities.programs import parse_grype, parse_trivy, scan_with_grype, scan_with_trivy
from tests.vulnerabilities import samples


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of a database; programs in `tmp_path/bin` are found first."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    (tmp_path / "data/db").mkdir(parents=True)
    (tmp_path / "data/db/metadata.json").write_text(json.dumps(samples.TRIVY_METADATA))
    return tmp_path / "data"


def install(database: Path, name: str, script: str) -> None:
    """Install a program that runs a shell script, in which `record` is a file outside of its own directory."""
    path = database.parent / "bin" / name
    path.write_text(f"#!/bin/sh\nrecord={database.parent}/record\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def answer(database: Path, document: object) -> str:
    (database.parent / "answer.json").write_text(json.dumps(document))
    return f"cat {database.parent}/answer.json"


def test_grype_answer_is_parsed() -> None:
    parsed = parse_grype(samples.encode(samples.GRYPE))
    assert parsed.vulnerabilities == [
        Vulnerability(
            id="CVE-2021-36159", severity="critical", package="apk-tools", version="2.10.6-r0", fixed_in="2.10.7-r0"
        )
    ]
    assert (parsed.version, parsed.database_date) == ("0.92.2", "2025-06-04T11:12:37Z")


def test_grype_answer_of_older_versions_is_parsed() -> None:
    database = {"built": "2023-06-16T01:33:30Z", "schemaVersion": 5, "location": "/cache/5", "error": None}
    descriptor = {"name": "grype", "version": "0.63.0", "db": database}
    fix: dict[str, Any] = {"versions": None, "state": "unknown"}
    vulnerability = {"id": "GHSA-1", "severity": "", "fix": fix}
    match = {"vulnerability": vulnerability, "artifact": {"name": "a", "version": "1"}}
    parsed = parse_grype(samples.encode({"matches": [match], "descriptor": descriptor}))
    assert [item.severity for item in parsed.vulnerabilities] == ["unknown"]
    assert parsed.database_date == "2023-06-16T01:33:30Z"


def test_trivy_answer_is_parsed() -> None:
    bash, idn = parse_trivy(samples.encode(samples.TRIVY))
    assert bash == Vulnerability(id="CVE-2019-18276", severity="low", package="bash", version="5.0-4")
    assert (idn.severity, idn.fixed_in) == ("critical", "2.0.5-1+deb10u1")


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"matches": [{}]}', b'{"SchemaVersion": 2, "Results": [[]]}', b"[" * 9999]
)
def test_damaged_answer_is_refused(text: bytes) -> None:
    with pytest.raises((DocumentError, ValueError)):
        parse_grype(text)
    if text != b"{}":
        with pytest.raises((DocumentError, ValueError)):
            parse_trivy(text)


def test_values_of_an_answer_become_one_printable_line() -> None:
    document = json.loads(json.dumps(samples.TRIVY))
    document["Results"][0]["Vulnerabilities"][0]["PkgName"] = "a\nb\x1b[31m" + "x" * 999
    package = parse_trivy(samples.encode(document))[0].package
    assert package.isprintable() and len(package) < 250


def test_grype_gets_package_list_and_own_environment(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRYPE_DB_AUTO_UPDATE", "true")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    command = answer(database, samples.GRYPE)
    install(database, "grype", f'env > "$record"; echo "$*" >> "$record"; cat sbom.json >> "$record"; {command}')
    assert scan_with_grype(b'{"bomFormat": "CycloneDX"}', database).version == "0.92.2"
    record = (database.parent / "record").read_text()
    assert f"GRYPE_DB_CACHE_DIR={database}\n" in record
    assert "GRYPE_DB_AUTO_UPDATE=false\n" in record and "secret" not in record
    assert 'sbom:sbom.json --output json --quiet\n{"bomFormat": "CycloneDX"}' in record
    names = {line.partition("=")[0] for line in record.splitlines() if "=" in line}
    assert names - programs._ENVIRONMENT.keys() <= {"PATH", "HOME", "TMPDIR", "GRYPE_DB_CACHE_DIR", "PWD", "SHLVL", "_"}


def test_program_has_no_network(database: Path) -> None:
    if not programs._leave_network():
        pytest.skip("the kernel permits no network namespace")
    install(database, "grype", f'cat /proc/net/dev > "$record"; {answer(database, samples.GRYPE)}')
    scan_with_grype(b"{}", database)
    interfaces = [line.partition(":")[0].strip() for line in (database.parent / "record").read_text().splitlines()[2:]]
    assert interfaces == ["lo"]


def test_trivy_reads_date_of_database(database: Path) -> None:
    command = answer(database, samples.TRIVY)
    install(database, "trivy", f'case $1 in --version) echo "Version: 0.63.0";; *) {command};; esac')
    found = scan_with_trivy(b"{}", database)
    assert len(found.vulnerabilities) == 2
    assert (found.version, found.database_date) == ("0.63.0", "2025-06-04T06:15:04.117391733Z")


def test_missing_program_is_named(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DocumentError, match="grype is not installed"):
        scan_with_grype(b"{}", database)


def test_last_message_of_failed_program_is_told(database: Path) -> None:
    install(database, "grype", "echo first >&2; echo failed to load vulnerability db >&2; exit 1")
    with pytest.raises(DocumentError, match="exit code 1: failed to load vulnerability db"):
        scan_with_grype(b"{}", database)


def test_endless_output_is_stopped(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_MAX_ANSWER_BYTES", 1024**2)
    install(database, "grype", "exec yes")
    with pytest.raises(DocumentError, match="grype writes more than 1 MiB"):
        scan_with_grype(b"{}", database)


def test_program_that_does_not_end_is_stopped(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_TIMEOUT_S", 0.5)
    install(database, "grype", "exec sleep 60")
    with pytest.raises(DocumentError, match="did not end in time"):
        scan_with_grype(b"{}", database)
