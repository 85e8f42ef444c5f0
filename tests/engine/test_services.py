"""Services besides the tested one: one-shots before their dependents, test doubles, restarts."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project
from tests.faults import labs, refused

DOUBLE = "foreign/double:1"
SERVICES = """
[images.mock]
context = "mock"

[services.seed]
image = "mock"
oneshot = true
command = ["/bin/sh", "-c", "echo seeding; sleep 1; echo seeded"]
LIMITS

[services.mock]
image = "mock"
promote = false
LIMITS

[services.double]
image = "foreign/double:1"
promote = false
command = ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]
user = "65534:65534"
LIMITS

[[tests]]
name = "the double answers"
service = "web"
exec = "busybox wget -q -O - http://double:8080/"
output = "the double"

[[tests]]
name = "the mock answers"
service = "web"
exec = "busybox wget -q -O - http://mock:8080/"
output = "It is tiny."

[[tests]]
name = "something is kept"
service = "web"
exec = "echo before the restart > /data/kept; hostname > /tmp/gone"

[[tests]]
name = "restart"
run = 'docker restart --time 0 "$LYRA_WEB_CONTAINER"'
timeout = "60s"

[[tests]]
name = "the data is there, and what was in /tmp is not"
service = "web"
exec = "cat /data/kept; test ! -e /tmp/gone"
output = "before the restart"

[[tests]]
name = "it answers at its new port"
service = "web"
http = "GET /motd.txt?again"
body = "Good morning"
""".replace("LIMITS", 'limits = { cpus = 0.1, memory = "8m", pids = 16, disk = "1m" }')


def build_busybox_root(project: Project) -> bytes:
    """Return a root file system with busybox and a page, as a tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(project.root / "app" / "bin", "bin")
        page = tarfile.TarInfo("www/index.html")
        page.size = len(b"the double\n")
        archive.addfile(page, io.BytesIO(b"the double\n"))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project], engine: Engine) -> Iterator[Project]:
    tiny = make_tiny()
    (tiny.root / "mock").symlink_to("app")
    tiny.replace(".lyra.toml", 'image = "web"\n', 'image = "web"\ndepends_on = ["seed", "mock", "double"]\n')
    with (tiny.root / ".lyra.toml").open("a") as file:
        file.write(SERVICES)
    tiny.commit("services")
    engine.api.import_image_from_data(build_busybox_root(tiny), repository="foreign/double", tag="1")
    yield tiny
    tiny.clean()
    engine.api.remove_image(DOUBLE)


@pytest.fixture(scope="module")
def run(project: Project) -> Path:
    """Return the directory of a run in which all checks passed."""
    result = project.lyra("build", "test", "promote")
    assert result.code == 0, result.text
    (results,) = project.root.glob(".lyra/runs/*/tests.json")
    return results.parent


def events(run: Path, service: str) -> list[tuple[str, str]]:
    """Return the events of a service except checks: time and kind."""
    entries: list[dict[str, Any]] = json.loads((run / "metrics.json").read_text())["events"]
    return [
        (entry["at"], entry["kind"]) for entry in entries if entry["service"] == service and entry["kind"] != "check"
    ]


def test_one_shot_exits_before_dependents_start(run: Path) -> None:
    assert [kind for _, kind in events(run, "seed")] == ["started", "ready"]
    assert events(run, "seed")[1] < events(run, "web")[0]
    assert "seeded" in (run / "logs" / "seed.log").read_text()
    assert json.loads((run / "tests.json").read_text())["usage"]["seed"]["exit_code"] == 0


def test_restarted_service_keeps_volumes_and_is_followed(run: Path) -> None:
    assert [kind for _, kind in events(run, "web")] == ["started", "ready", "started", "ready"]
    restarted = events(run, "web")[2][0]
    later = [line for line in (run / "logs" / "web.log").read_text().splitlines() if line.split()[0] > restarted]
    assert later, "nothing was written after the restart"


def test_test_doubles_are_not_bundled(run: Path, project: Project) -> None:
    (bundle,) = project.bundles()
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert [image["name"] for image in manifest["images"]] == ["mock", "web"], "mock is also the image of seed"
    compose = yaml.safe_load((bundle / "deploy" / "compose.yaml").read_text())
    assert sorted(compose["services"]) == ["seed", "web"]
    assert sorted(compose["services"]["web"]["depends_on"]) == ["seed"]
    assert {"double", "mock"} <= set(json.loads((bundle / "evidence" / "tests.json").read_text())["usage"])
    files = [path for path in (bundle / "deploy").rglob("*") if path.is_file()]
    assert [path for path in files if b"foreign" in path.read_bytes()] == []


def test_failed_one_shot_ends_run_before_dependents_start(run: Path, project: Project, engine: Engine) -> None:
    project.replace(".lyra.toml", "echo seeded", "exit 3")
    result = project.lyra("test")
    project.replace(".lyra.toml", "exit 3", "echo seeded")
    refused(result, 5, "seed exited with code 3")
    failed = sorted(project.root.glob(".lyra/runs/*/tests.json"))[-1].parent
    assert events(failed, "web") == []
    assert labs(engine) == []
