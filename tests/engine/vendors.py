"""Images of a vendor: built in the engine of a test, and saved, pushed or removed as the test wants."""

from __future__ import annotations

import shutil
from pathlib import Path

from lyra_tasks.engine import sandbox
from lyra_tasks.processes import run_captured

DOCKERFILE = """\
FROM scratch
COPY bin /bin
COPY index.html /www/index.html
RUN ["/bin/busybox", "sh", "-ec", "b=/bin/busybox; $b mkdir /data; $b chown 65534:65534 /data; \\
    $b mkdir -m 1777 /open; $b cp /www/index.html /open/seed; $b chmod 4755 $b"]
ENV VENDOR_VERSION=1 VENDOR_SETTING=of-the-vendor
EXPOSE 8080 9999
VOLUME /data
USER 65534:65534
CMD ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]
"""
SERVICE = """
[services.cache]
image = "vendor/cache:1"
ports = { http = 8080 }
limits = { cpus = 0.1, memory = "16m", pids = 16, disk = "8m" }
healthcheck = { exec = "/bin/busybox wget -q -O - http://127.0.0.1:8080/" }

[services.cache.volumes.data]
path = "/data"
description = "what is cached"
size = "4m"

[[tests]]
name = "the cache answers"
service = "cache"
http = "GET /"
body = "cached"
"""


def docker(box: sandbox.Sandbox, *arguments: str, directory: Path | None = None) -> str:
    """Run the docker command on the engine of a test and return its output."""
    result = run_captured([box.docker, *arguments], environment=box.environment(), directory=directory)
    assert result.returncode == 0, result.stderr
    return result.stdout


def build_vendor_image(
    box: sandbox.Sandbox, busybox: Path, directory: Path, reference: str = "vendor/cache:1", text: str = "cached"
) -> str:
    """Build the vendor's image, with a page of this text, and return its id."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(busybox, directory / "bin", symlinks=True)
    (directory / "index.html").write_text(f"{text}\n")
    (directory / "Dockerfile").write_text(DOCKERFILE)
    options = ("--quiet", "--tag", reference)
    return docker(box, "buildx", "build", *options, ".", directory=directory).strip()


def save_image(box: sandbox.Sandbox, reference: str, archive: Path) -> None:
    """Save an image in an archive and remove it from the engine."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    docker(box, "save", "--output", str(archive), reference)
    docker(box, "image", "rm", reference)


def push_index(box: sandbox.Sandbox, busybox: Path, directory: Path, reference: str) -> str:
    """Push an image for amd64 and arm64, which has no program for the latter; return its reference."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(busybox, directory / "amd64" / "bin", symlinks=True)
    (directory / "amd64" / "www").mkdir()
    (directory / "amd64" / "www" / "index.html").write_text("cached\n")
    (directory / "arm64").mkdir()
    (directory / "arm64" / "readme").write_text("no program\n")
    (directory / "data").mkdir()
    dockerfile = DOCKERFILE.replace(
        "COPY bin /bin\nCOPY index.html /www/index.html\n", "ARG TARGETARCH\nCOPY $TARGETARCH /\n"
    )
    lines = [line for line in dockerfile.replace("\\\n", "").splitlines() if not line.startswith("RUN")]
    lines.insert(3, "COPY --chown=65534:65534 data /data")
    (directory / "Dockerfile").write_text("\n".join(lines) + "\n")
    options = ("--quiet", "--provenance=false", "--platform", "linux/amd64,linux/arm64", "--tag", reference, "--push")
    docker(box, "buildx", "build", *options, ".", directory=directory)
    if reference in docker(box, "images", "--format", "{{.Repository}}:{{.Tag}}"):
        docker(box, "image", "rm", reference)
    return reference
