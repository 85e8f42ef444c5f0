"""What happens in a development environment when files change: `create --watch`, `dev.on_change`, `dev.restart`."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from lyra_tasks.engine import sandbox
from tests.conftest import PROJECTS, Project, repository
from tests.faults import becomes, refused

COMMAND = '["/bin/busybox", "httpd", "-f", "-v", "-p", "8080", "-h", "/src/www"]'
TELLING_COMMAND = '"echo started with $(cat /src/www/index.html); exec /bin/busybox httpd -f -p 8080 -h /src/www"'
RULES = """
[[services.web.dev.on_change]]
paths = ["app/www"]
ignore = ["**/*.txt"]
action = "restart"

[[services.web.dev.on_change]]
paths = ["app/Dockerfile"]
action = "rebuild"

[[services.web.dev.on_change]]
paths = ["app/www/*.txt"]
action = ["sh", "-c", "cat /src/www/*.txt >&2; exec cat /src/www/list.txt"]

[[services.web.dev.on_change]]
paths = ["outside/*.conf"]
action = "restart"
target = "/etc/extra"

[services.web.environment]"""


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, busybox: Path, cache: Path, box: sandbox.Sandbox
) -> Iterator[Project]:
    """A project whose service tells at its start what it serves, with a development environment."""
    directory = tmp_path_factory.mktemp("watch")
    root = directory / "project"
    shutil.copytree(PROJECTS / "devtiny", root)
    shutil.copytree(busybox, root / "app" / "bin", symlinks=True)
    (root / "outside").mkdir()
    project = repository(root, directory, cache, box)
    project.replace(".lyra.toml", f"command = {COMMAND}", f"command = {TELLING_COMMAND}")
    project.replace(".lyra.toml", "\n[services.web.environment]", RULES)
    created = project.lyra("create")
    assert created.code == 0, created.text
    yield project
    project.clean()


class Watch:
    """A running `create --watch`, and what it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, args=(stream,))
            for stream in (process.stdout, process.stderr)
            if stream is not None
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: IO[str]) -> None:
        with stream:
            self.lines.extend(stream)

    def stop(self) -> None:
        """Press Ctrl-C unless it has ended, and wait for the end of the output."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=20)
        for thread in self._threads:
            thread.join()

    def shows(self, *texts: str) -> bool:
        """Return whether lines with all texts appear in time; those before them are forgotten."""
        appeared = becomes(lambda: all(any(text in line for line in self.lines) for text in texts), 20)
        self.text = "".join(self.lines)
        self.lines.clear()
        return appeared


@contextmanager
def watching(project: Project) -> Iterator[Watch]:
    """Run `create --watch` until the block ends."""
    watch = Watch(project.start("create", "--watch"))
    try:
        assert watch.shows("watching app"), watch.text
        yield watch
    finally:
        watch.stop()


@pytest.fixture(scope="module")
def watch(project: Project) -> Iterator[Watch]:
    """Run one `create --watch`, for the tests before the one that ends it."""
    with watching(project) as watch:
        yield watch


def service(project: Project) -> dict[str, object]:
    """Return the record of the service."""
    (path,) = project.state.glob("*/dev/dev.json")
    record: dict[str, object] = json.loads(path.read_text())["services"]["web"]
    return record


def page(project: Project, box: sandbox.Sandbox) -> str:
    """Return what the service serves at the address that `create` has printed."""
    ports = service(project)["ports"]
    assert isinstance(ports, dict)
    try:
        with urllib.request.urlopen(f"http://{box.address}:{ports['http']}/", timeout=1) as response:
            return str(response.read().decode())
    except OSError as error:
        return str(error)


def test_watch_restarts_and_shows_file_names_and_logs(project: Project, watch: Watch, box: sandbox.Sandbox) -> None:
    before = service(project)
    (project.root / "app" / "www" / "index.html").write_text("two")
    assert watch.shows("web: uploaded www/index.html (3 B)", "web: restarted in", "web  | started with two"), watch.text
    assert becomes(lambda: page(project, box) == "two")
    assert service(project) == before, "the container and its published port are kept"
    (project.root / "outside" / "new.conf").write_text("copied")
    assert watch.shows("web: updated in", "web: restarted in"), watch.text
    assert project.lyra("dev.exec", "--", "cat", "/etc/extra/new.conf").out == "copied"


def test_watch_runs_command_and_reports_its_failure(project: Project, watch: Watch) -> None:
    listed = project.root / "app" / "www" / "list.txt"
    listed.write_text("in")
    assert watch.shows("web: uploaded www/list.txt", "web: ran sh in"), watch.text
    listed.unlink()
    assert watch.shows("web: removed www/list.txt", "error: web: sh exited with code 1", "can't open"), watch.text
    assert "restarted" not in watch.text
    listed.write_text("again")
    assert watch.shows("web: ran sh in"), "the watch is still running"
    listed.unlink()
    assert watch.shows("web: removed"), watch.text


def test_watch_rebuilds_only_the_changed_service_and_survives_errors_until_ctrl_c(
    project: Project, watch: Watch, box: sandbox.Sandbox
) -> None:
    dockerfile, index = project.root / "app" / "Dockerfile", project.root / "app" / "www" / "index.html"
    text, before = dockerfile.read_text(), service(project)
    dockerfile.write_text(text.replace("WORKDIR /src", "WORKDIR /src\nNONSENSE"))
    assert watch.shows("error: ", "NONSENSE"), watch.text
    dockerfile.write_text(text.replace("WORKDIR /src", "LABEL changed=yes\nWORKDIR /src"))
    assert watch.shows("web: rebuilt in", "web  | started with"), watch.text
    after = service(project)
    assert after["id"] != before["id"]
    assert (after["ports"], after["source"]) == (before["ports"], before["source"])
    assert becomes(lambda: page(project, box) == index.read_text())
    watch.stop()
    assert watch.process.returncode == 0
    assert watch.shows("stopped watching; the services keep running"), watch.text
    assert page(project, box) == index.read_text()


def test_restart_by_hand_keeps_ports_and_reports_exit(project: Project, box: sandbox.Sandbox) -> None:
    assert project.lyra("create").code == 0
    before = service(project)
    (restarted,) = json.loads(project.lyra("dev.restart", "--json").out)
    assert restarted["service"] == "web"
    assert service(project) == before
    both = project.lyra("dev.restart", "--service", "web", "-s", "side")
    assert "side: restarted in" in both.out
    assert "web: restarted in" in both.out
    refused(project.lyra("dev.restart", "-s", "wbe"), 2, "Unknown service 'wbe'", "Did you mean web?")


def test_followed_logs_are_by_time_and_end_quietly(project: Project, box: sandbox.Sandbox) -> None:
    assert project.lyra("create").code == 0
    (path,) = project.state.glob("*/dev/dev.json")
    side = json.loads(path.read_text())["services"]["side"]["ports"]["http"]
    for _ in range(2):
        with suppress(OSError), urllib.request.urlopen(f"http://{box.address}:{side}/", timeout=2) as response:
            response.read()
        assert project.lyra("dev.restart").code == 0
    following = Watch(project.start("logs", "-f"))
    assert becomes(lambda: sum(" web  | started with" in line for line in following.lines) >= 2, 20), following.lines
    assert any(" side | " in line for line in following.lines)
    assert following.lines == sorted(following.lines), "the lines of all services by time"
    seen = len(following.lines)
    assert project.lyra("dev.restart").code == 0
    assert becomes(lambda: any("started with" in line for line in following.lines[seen:])), "a restart is followed"
    following.stop()
    assert following.process.returncode == 130
    assert not any("nterrupted" in line for line in following.lines)


def test_watch_ends_when_the_environment_is_stopped(project: Project) -> None:
    with watching(project) as watch:
        assert project.lyra("dev.stop", "--yes").code == 0
        assert watch.shows("stopped watching: The development environment was stopped"), watch.text
        assert watch.process.wait(timeout=20) == 0


def test_failing_service_is_reported_and_starts_again(project: Project, box: sandbox.Sandbox) -> None:
    project.replace(".lyra.toml", f"command = {TELLING_COMMAND}", 'command = "cat /src/www/needed"')
    try:
        needed = project.root / "app" / "www" / "needed"
        with watching(project) as watch:
            assert any("web exited with code 1" in line for line in (*watch.lines, watch.text)), watch.text
            needed.write_text("here")
            assert watch.shows("web  | here"), watch.text
        needed.unlink()
        project.lyra("dev.sync")
        refused(project.lyra("dev.restart"), 5, "web exited with code 1", "can't open")
    finally:
        project.replace(".lyra.toml", 'command = "cat /src/www/needed"', f"command = {TELLING_COMMAND}")
