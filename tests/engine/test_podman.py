"""Podman's service at the socket of an engine: it is recognized, and refused in one way everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.packages import unpacked

# With libraries that a machine may lack; from bookworm, so that they also run on newer systems.
PACKAGES = (
    *("podman", "conmon", "crun"),
    *("libgpgme11", "libassuan0", "libgpg-error0", "libdevmapper1.02.1", "libsubid4", "libseccomp2"),
    *("libyajl2", "libglib2.0-0"),
)


@pytest.fixture(scope="module")
def podman(cache: Path) -> Iterator[str]:
    """Run Podman's service and return its address."""
    root = unpacked(cache, *PACKAGES, suite="bookworm")
    libraries = sorted({str(path.parent) for path in root.glob("**/*.so.*")})
    programs = root / "usr" / "bin"
    with tempfile.TemporaryDirectory(prefix="pod") as place:
        socket = Path(place) / "podman.sock"
        options = {
            "root": f"{place}/root",
            "runroot": f"{place}/run",
            "tmpdir": f"{place}/tmp",
            "storage-driver": "vfs",
        }
        options |= {"cgroup-manager": "cgroupfs", "conmon": str(programs / "conmon"), "runtime": str(programs / "crun")}
        command = [str(programs / "podman"), *(f"--{name}={value}" for name, value in options.items())]
        command += ["system", "service", "--time=0", f"unix://{socket}"]
        environment = os.environ | {"LD_LIBRARY_PATH": ":".join(libraries), "HOME": place}
        with subprocess.Popen(command, env=environment, cwd=place, stderr=subprocess.PIPE) as service:
            try:
                deadline = time.monotonic() + 20
                while not socket.exists():
                    assert service.poll() is None and time.monotonic() < deadline
                    time.sleep(0.05)
                yield f"unix://{socket}"
            finally:
                service.terminate()


def test_podman_is_refused_by_each_command_that_connects(podman: str, lonely: Project) -> None:
    for command in ("build", "test", "create", "clean"):
        result = lonely.lyra(command, DOCKER_HOST=podman)
        assert result.code == 3, result.text
        assert "is not supported: Lyra needs a Docker Engine" in result.err
        assert "Podman" in result.err and "Hint" in result.err.title()


def test_doctor_names_podman(podman: str, lonely: Project) -> None:
    result = lonely.lyra("doctor", "--json", DOCKER_HOST=podman)
    assert result.code == 3
    (diagnosis,) = [item for item in json.loads(result.out) if item["subject"] == "engine"]
    assert diagnosis["state"] == "error"
    assert diagnosis["message"].startswith("Podman 4.")
