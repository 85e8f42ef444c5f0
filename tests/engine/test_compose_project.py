"""A Compose project all the way: a volume of two services, a config written in the file, and a host port."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import Project

COMPOSE = """\
services:
  site:
    build: app
    command: ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]
    ports: ["0.0.0.0:8090:8080", "127.0.0.1:8125:8125/udp"]
    volumes: ["pages:/www:ro"]
    configs: [{source: note, target: /etc/note}]
    depends_on: [writer]
  writer:
    build: app
    command: ["/bin/busybox", "sh", "-c", "echo written > /data/page && exec /bin/busybox sleep 600"]
    stop_grace_period: 1s
    volumes: ["pages:/data"]
configs:
  note:
    content: |
      costs $$5
      NAME is ${NAME:-nobody}
volumes: {pages: {}}
"""
CONFIGURATION = """\
schema = 1
[project]
name = "pages"
[services.site]
limits = { cpus = 0.2, memory = "16m", pids = 16 }
healthcheck = { exec = ["/bin/busybox", "test", "-f", "/www/page"] }
[services.writer]
limits = { cpus = 0.2, memory = "16m", pids = 16 }
healthcheck = { exec = ["/bin/busybox", "test", "-f", "/data/page"] }
[services.writer.volumes.pages]
size = "4m"
owner = "65534:65534"
[[tests]]
name = "one service has what the other has written"
service = "site"
http = "GET /page"
body = "written"
[[tests]]
name = "it only reads"
service = "site"
exec = "echo x > /www/mine"
exit_code = 1
[[tests]]
name = "files of its image are not in the way"
service = "site"
exec = "test ! -e /www/index.html"
[[tests]]
name = "the config is as Compose would write it"
service = "site"
exec = "cat /etc/note"
output = "costs $5\\nNAME is nobody\\n"
[[tests]]
name = "a datagram is sent"
run = ["python3", "datagram.py"]
[[tests]]
name = "the datagram has reached a port that nobody listens on"
service = "site"
exec = "grep -E '^Udp: [0-9]+ [1-9]' /proc/net/snmp"
"""
DATAGRAM = """\
import os, socket
host, port = os.environ["LYRA_SITE_STATSD_ADDR"].split(":")
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (host, int(port)))
"""


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    pages = make_tiny()
    (pages.root / "compose.yaml").write_text(COMPOSE)
    (pages.root / ".lyra.toml").write_text(CONFIGURATION)
    (pages.root / "datagram.py").write_text(DATAGRAM)
    (pages.root / ".gitignore").write_text("promotion/\n.lyra/\n")
    pages.commit("pages")
    yield pages
    pages.clean()


@pytest.fixture(scope="module")
def bundle(project: Project) -> Path:
    """Return the bundle, after all checks have passed."""
    result = project.lyra("build", "test", "promote")
    assert result.code == 0, result.text
    (bundle,) = project.bundles()
    return bundle


def test_bundle_shares_and_publishes_as_the_compose_file_does(bundle: Path, project: Project) -> None:
    compose = yaml.safe_load((bundle / "deploy" / "compose.yaml").read_text())
    site, writer = compose["services"]["site"], compose["services"]["writer"]
    assert (site["volumes"], writer["volumes"]) == (["pages:/www:ro,nocopy"], ["pages:/data"])
    statsd = "${SITE_STATSD_PUBLISH:-127.0.0.1:8125}:8125/udp"
    assert site["ports"] == ["${SITE_HTTP_PUBLISH:-0.0.0.0:8090}:8080", statsd]
    assert (bundle / "deploy" / "configs" / "site" / "note").read_text() == "costs $5\nNAME is nobody\n"
    page = (bundle / "PROMOTION.md").read_text()
    assert re.findall(r"\|\| save (\S+)", page) == ["pages_pages"]
    assert re.findall(r"volume rm --force (\S+)", page) == ["pages_pages"]
    assert "0.0.0.0:8090" in page
    described = json.loads((bundle / "deploy" / "environment.json").read_text())["services"]["site"]["ports"]
    assert described[0]["address"] == "0.0.0.0:8090"
    assert project.lyra("verify").code == 0


@pytest.mark.thorough
def test_bundle_runs_on_the_oldest_engine(bundle: Path, project: Project) -> None:
    result = project.lyra("bundle.rehearse", bundle.name)
    assert result.code == 0, result.text


def test_all_images_that_cannot_be_had_are_in_one_error(make_tiny: Callable[[], Project]) -> None:
    project = make_tiny()
    (project.root / "Dockerfile").write_text("FROM 127.0.0.1:1/base:1 AS base\nFROM 127.0.0.1:1/other:1\nUSER 1:1\n")
    (project.root / "compose.yaml").write_text(
        "services: {web: {build: .}, cache: {image: '127.0.0.1:1/cache:1'}, queue: {image: '127.0.0.1:1/queue:1'}}\n"
    )
    (project.root / ".dockerignore").write_text(".lyra\npromotion\n.git\n")
    (project.root / ".lyra.toml").write_text('schema = 1\n[project]\nname = "lost"\n')
    project.commit("lost")
    result = project.lyra("build")
    assert result.code == 3, result.text
    assert "3 images are not available: 127.0.0.1:1/cache:1, 127.0.0.1:1/queue:1, 127.0.0.1:1/other:1" in result.err
    assert result.err.count('[bases."127.0.0.1:1/') == 3
    project.clean()
