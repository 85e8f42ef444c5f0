"""Services beside the one that is tested: one-shots before their dependents, doubles that never ship, restarts."""

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
external = "foreign/double:1"
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


def of_busybox(project: Project) -> bytes:
    """A root with busybox and a page, as a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(project.root / "app" / "bin", "bin")
        page = tarfile.TarInfo("www/index.html")
        page.size = len(b"the double\n")
        archive.addfile(page, io.BytesIO(b"the double\n"))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def project(make_tiny: Callable[[], Project], engine: Engine) -> Iterator[Project]:
    made = make_tiny()
    (made.root / "mock").symlink_to("app")
    made.replace(".lyra.toml", 'image = "web"\n', 'image = "web"\ndepends_on = ["seed", "mock", "double"]\n')
    with (made.root / ".lyra.toml").open("a") as file:
        file.write(SERVICES)
    made.commit("services")
    engine.api.import_image_from_data(of_busybox(made), repository="foreign/double", tag="1")
    yield made
    made.clean()
    engine.api.remove_image(DOUBLE)


@pytest.fixture(scope="module")
def run(project: Project) -> Path:
    """The folder of a run in which all checks passed."""
    result = project.lyra("build", "test", "promote")
    assert result.code == 0, result.text
    (found,) = project.root.glob(".lyra/runs/*/tests.json")
    return found.parent


def events(run: Path, service: str) -> list[tuple[str, str]]:
    """What happened to a service: time and kind, without its checks."""
    found: list[dict[str, Any]] = json.loads((run / "metrics.json").read_text())["events"]
    return [(each["at"], each["what"]) for each in found if each["service"] == service and each["what"] != "check"]


def test_a_one_shot_has_ended_well_before_its_dependents_start(run: Path) -> None:
    assert [what for _, what in events(run, "seed")] == ["started", "ready"]
    assert events(run, "seed")[1] < events(run, "web")[0]
    assert "seeded" in (run / "logs" / "seed.log").read_text()
    assert json.loads((run / "tests.json").read_text())["use"]["seed"]["exit_code"] == 0


def test_a_service_that_a_check_restarts_keeps_its_volumes_and_is_followed_on(run: Path) -> None:
    assert [what for _, what in events(run, "web")] == ["started", "ready", "started", "ready"]
    restarted = events(run, "web")[2][0]
    later = [line for line in (run / "logs" / "web.log").read_text().splitlines() if line.split()[0] > restarted]
    assert later, "nothing was written after the restart"


def test_doubles_take_part_and_are_in_no_part_of_the_bundle(run: Path, project: Project) -> None:
    (bundle,) = project.bundles()
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert [image["name"] for image in manifest["images"]] == ["mock", "web"], "mock is the image of seed, too"
    compose = yaml.safe_load((bundle / "deploy" / "compose.yaml").read_text())
    assert sorted(compose["services"]) == ["seed", "web"]
    assert sorted(compose["services"]["web"]["depends_on"]) == ["seed"]
    assert {"double", "mock"} <= set(json.loads((bundle / "evidence" / "tests.json").read_text())["use"])
    assert [each for each in (bundle / "deploy").rglob("*") if each.is_file() and b"foreign" in each.read_bytes()] == []


def test_a_one_shot_that_fails_ends_the_run_before_its_dependents_start(
    run: Path, project: Project, engine: Engine
) -> None:
    project.replace(".lyra.toml", "echo seeded", "exit 3")
    result = project.lyra("test")
    project.replace(".lyra.toml", "exit 3", "echo seeded")
    refused(result, 5, "seed ended with exit code 3")
    failed = sorted(project.root.glob(".lyra/runs/*/tests.json"))[-1].parent
    assert events(failed, "web") == []
    assert labs(engine) == []
