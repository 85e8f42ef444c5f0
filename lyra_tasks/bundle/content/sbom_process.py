"""A process that formats SBOMs, in CycloneDX and SPDX.

Loading the libraries for them takes as long as everything else before the first image is read, so it starts with the
promotion and has them when the packages of an image are known.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock
from typing import IO

from lyra_tasks.bundle.format.manifest import BundledImage
from lyra_tasks.errors import BundleError
from lyra_tasks.images.stream.packages import ImagePackages
from lyra_tasks.processes import create_environment
from lyra_tasks.records.record import Record

_MODULE = "lyra_tasks.bundle.content.sbom"


@dataclass(frozen=True)
class ReleaseName:
    """The project, version and commit time that an SBOM names."""

    project: str
    version: str
    created: str


class SbomRequest(Record):
    """What the SBOMs of an image are made from."""

    release: ReleaseName
    image: BundledImage
    packages: ImagePackages


class SbomProcess:
    """The running process; it answers one request after the other."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        self._lock = Lock()

    def format(self, request: SbomRequest) -> tuple[str, str]:
        """Return the documents in CycloneDX and SPDX; raises BundleError if the process ends instead."""
        answer = b""
        with self._lock, suppress(BrokenPipeError):
            if self._process.stdin and self._process.stdout:
                self._process.stdin.write(f"{request.model_dump_json(by_alias=True)}\n".encode())
                self._process.stdin.flush()
                answer = self._process.stdout.readline()
        if not answer:
            self._process.wait()
            self._errors.seek(0)
            raise BundleError(
                f"{request.image.name}: the process that lists packages has ended",
                hint="Run `promote` again",
                details=tuple(self._errors.read().decode(errors="replace").splitlines()[-3:]),
            )
        cyclonedx, spdx = json.loads(answer)
        return cyclonedx, spdx


@contextmanager
def start_sbom_process() -> Iterator[SbomProcess]:
    """Start the process, which ends with the block."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", _MODULE],
            env=create_environment({"PYTHONPATH": os.pathsep.join(sys.path)}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd="/",
        )
        try:
            yield SbomProcess(process, errors)
        finally:
            process.kill()
            process.communicate()
