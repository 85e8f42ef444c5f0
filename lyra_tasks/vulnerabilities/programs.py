"""Run grype or trivy on a package list: without network, with an environment of its own, and with bounded output."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, Field

from lyra_tasks.config.models import Severity
from lyra_tasks.documents import DocumentError, parse_foreign_json, parse_json_object, read_document, shorten
from lyra_tasks.locks import private_directory
from lyra_tasks.processes import run_captured, signal_session
from lyra_tasks.vulnerabilities.document import SEVERITIES, Vulnerability

_MAX_ANSWER_BYTES = 256 * 1024**2
_TIMEOUT_S = 600.0
_POLL_S = 0.1
_TRIVY_METADATA = "db/metadata.json"
# settings of the user, and of the project, which both programs look for in these places, must not decide
_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    # where the kernel forbids a network namespace: no way out but through a proxy that does not exist
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "GRYPE_DB_AUTO_UPDATE": "false",
    "GRYPE_DB_REQUIRE_UPDATE_CHECK": "false",
    "GRYPE_DB_VALIDATE_AGE": "false",  # the age is judged by [scan] max_age_days
    "GRYPE_CHECK_FOR_APP_UPDATE": "false",
    "TRIVY_SKIP_DB_UPDATE": "true",
    "TRIVY_SKIP_JAVA_DB_UPDATE": "true",
    "TRIVY_SKIP_VEX_REPO_UPDATE": "true",
    "TRIVY_SKIP_VERSION_CHECK": "true",
    "TRIVY_OFFLINE_SCAN": "true",
    "TRIVY_DISABLE_TELEMETRY": "true",
    "TRIVY_CACHE_BACKEND": "memory",
}


@dataclass(frozen=True)
class ProgramAnswer:
    """What a program found, its version, and the date of its database."""

    vulnerabilities: list[Vulnerability]
    version: str
    database_date: str


def scan_with_grype(sbom: bytes, database: Path) -> ProgramAnswer:
    """Return what grype knows of the packages in a CycloneDX document; DocumentError, OSError or an exit code."""
    answer = _run("grype", ("sbom:sbom.json", "--output", "json", "--quiet"), sbom, {"GRYPE_DB_CACHE_DIR": database})
    return parse_grype(answer)


def scan_with_trivy(sbom: bytes, database: Path) -> ProgramAnswer:
    """Return what trivy knows of the packages in a CycloneDX document; DocumentError, OSError or an exit code."""
    settings = {"TRIVY_CACHE_DIR": database}
    metadata = parse_json_object(read_document(database / _TRIVY_METADATA))
    answer = _run("trivy", ("sbom", "--format", "json", "--quiet", "--scanners", "vuln", "sbom.json"), sbom, settings)
    version = re.search(r"Version: (\S+)", _run("trivy", ("--version",), b"", settings).decode(errors="replace"))
    return ProgramAnswer(parse_trivy(answer), shorten(version[1] if version else ""), str(metadata["UpdatedAt"]))


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _GrypeFix(_Part):
    versions: list[str] | None = None


class _GrypeVulnerability(_Part):
    id: str
    severity: str = ""
    fix: _GrypeFix = _GrypeFix()


class _GrypeArtifact(_Part):
    name: str
    version: str


class _GrypeMatch(_Part):
    vulnerability: _GrypeVulnerability
    artifact: _GrypeArtifact


class _GrypeDescriptor(_Part):
    name: str
    version: str
    db: dict[str, Any]


class _GrypeAnswer(_Part):
    matches: list[_GrypeMatch]
    descriptor: _GrypeDescriptor


def parse_grype(answer: bytes) -> ProgramAnswer:
    """Parse `grype --output json`, of versions with the database schemas 5 and 6."""
    document = _GrypeAnswer.model_validate(parse_foreign_json(answer, max_bytes=_MAX_ANSWER_BYTES))
    database = document.descriptor.db
    status = database.get("status", database)
    if status.get("error"):
        raise DocumentError(f"its database cannot be used: {shorten(str(status['error']))}")
    return ProgramAnswer(
        [
            _describe(
                match.vulnerability.id, match.vulnerability.severity, match.artifact.name, match.artifact.version,
                ", ".join(match.vulnerability.fix.versions or ()),
            )
            for match in document.matches
        ],
        shorten(document.descriptor.version),
        str(status["built"]),
    )  # fmt: skip


class _TrivyVulnerability(_Part):
    id: str = Field(alias="VulnerabilityID")
    severity: str = Field(default="", alias="Severity")
    package: str = Field(alias="PkgName")
    version: str = Field(alias="InstalledVersion")
    fixed_in: str = Field(default="", alias="FixedVersion")


class _TrivyResult(_Part):
    vulnerabilities: list[_TrivyVulnerability] | None = Field(default=None, alias="Vulnerabilities")


class _TrivyAnswer(_Part):
    schema_version: int = Field(alias="SchemaVersion")
    results: list[_TrivyResult] | None = Field(default=None, alias="Results")


def parse_trivy(answer: bytes) -> list[Vulnerability]:
    """Parse `trivy sbom --format json`, whose schema has the number 2."""
    document = _TrivyAnswer.model_validate(parse_foreign_json(answer, max_bytes=_MAX_ANSWER_BYTES))
    if document.schema_version != 2:
        raise DocumentError(f"its answer has the schema {document.schema_version}, not 2")
    found = [item for result in document.results or () for item in result.vulnerabilities or ()]
    return [_describe(item.id, item.severity, item.package, item.version, item.fixed_in) for item in found]


def _describe(name: str, severity: str, package: str, version: str, fixed_in: str) -> Vulnerability:
    rating: Severity = next((known for known in SEVERITIES if known == severity.lower()), "unknown")
    return Vulnerability(
        id=shorten(name),
        severity=rating,
        package=shorten(package),
        version=shorten(version),
        fixed_in=shorten(fixed_in),
    )


def _run(program: str, arguments: Sequence[str], sbom: bytes, settings: Mapping[str, Path]) -> bytes:
    """Return the output of a program in an empty directory with the package list as `sbom.json`."""
    path = shutil.which(program)
    if path is None:
        raise DocumentError(f"{program} is not installed")
    with private_directory("scan") as directory, tempfile.TemporaryFile() as errors:
        (directory / "sbom.json").write_bytes(sbom)
        environment = _ENVIRONMENT | {name: str(value) for name, value in settings.items()}
        environment |= {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(directory), "TMPDIR": str(directory)}
        command = [*_leave_network(), path, *arguments]
        with _started(command, environment, directory, errors) as (process, output):
            _wait(process, output.fileno(), program)
            if process.returncode:
                errors.seek(0)
                lines = errors.read(65536).decode(errors="replace").strip().splitlines()
                raise DocumentError(f"exit code {process.returncode}: {shorten(lines[-1]) if lines else 'no message'}")
            output.seek(0)
            return output.read(_MAX_ANSWER_BYTES + 1)


def _leave_network() -> tuple[str, ...]:
    """Return the beginning of a command that runs a program without network, where the kernel permits that."""
    command = ("unshare", "--map-root-user", "--net", "--")
    try:
        return command if run_captured([*command, "true"], timeout=10).returncode == 0 else ()
    except (OSError, subprocess.TimeoutExpired):
        return ()


@contextmanager
def _started(
    command: Sequence[str], environment: Mapping[str, str], directory: Path, errors: IO[bytes]
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Start a program in a session of its own, and end all of it with the block."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, env=environment, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield process, output
        finally:
            if process.returncode is None:
                signal_session(process.pid, signal.SIGKILL)
                process.wait()


def _wait(process: subprocess.Popen[bytes], output: int, program: str) -> None:
    """Wait until a program ends; raise DocumentError as soon as it has written too much, or takes too long."""
    for _ in range(round(_TIMEOUT_S / _POLL_S)):
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_S)
        if os.fstat(output).st_size > _MAX_ANSWER_BYTES:
            raise DocumentError(f"{program} writes more than {_MAX_ANSWER_BYTES // 1024**2} MiB")
        if process.returncode is not None:
            return
    raise DocumentError("it did not end in time")
