"""An engine that hangs, dies, fills up, loses its socket or is too old: what commands report and leave.

The tests share one engine that may be damaged. Each test leaves it running and without objects of labs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from lyra_tasks.cleanup import facts, plan
from lyra_tasks.cleanup import run as cleaning
from lyra_tasks.cleanup.report import require_clean
from lyra_tasks.config.load import load_config
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client import connect
from lyra_tasks.engine.objects.containers import create_containers
from lyra_tasks.engine.objects.holder import HOLD_PATH, ensure_holder_image
from lyra_tasks.engine.sandbox import cgroups
from lyra_tasks.engine.workspace import Workspace, open_workspace
from lyra_tasks.errors import EngineUnavailableError
from tests.conftest import Outcome, Project, tiny_project
from tests.faults import becomes, processes_with, reapers, refused

DISK = "700m"


@dataclass
class Frail:
    """A project with its own engine on a small disk."""

    project: Project
    box: sandbox.Sandbox
    cache: Path
    data: Path

    @property
    def api(self) -> docker.APIClient:
        """A new connection to the engine."""
        return docker.APIClient(base_url=f"unix://{self.box.socket}", timeout=30)

    def containers(self) -> list[str]:
        """Return the names of all containers."""
        return [container["Names"][0].lstrip("/") for container in self.api.containers(all=True)]

    def many(self) -> list[str]:
        """Return the names of the containers of `create_many`."""
        return [name for name in self.containers() if name.startswith("lyra-many-")]

    def daemons(self) -> list[int]:
        """Return the engine's own processes."""
        groups = (tree.path / self.box.name / "daemon" for tree in cgroups.list_cgroup_trees())
        return list({pid for group in groups for pid in cgroups.list_cgroup_processes(group)})

    def kill(self) -> None:
        """Kill the engine and wait until it is gone."""
        os.kill(self.box.pid, signal.SIGKILL)
        assert becomes(lambda: sandbox.find_sandbox(self.box.state) is None)

    def restart(self) -> None:
        """Start the engine again with its data."""
        self.box = sandbox.launch_sandbox(self.box.state, cache=self.cache)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the engine, which still accepts connections."""
        pids = self.daemons()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Fill the engine's disk completely."""
        filler = self.data / "filler"
        try:
            with filler.open("wb") as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(bytes(1 << 20))
                    file.flush()
            yield
        finally:
            filler.unlink()


@pytest.fixture(scope="module")
def frail(tmp_path_factory: pytest.TempPathFactory, busybox: Path, cache: Path) -> Iterator[Frail]:
    directory = tmp_path_factory.mktemp("frail")
    state = directory / "engine"
    data = state / "sandbox" / "data"
    data.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(data)], check=True)
    try:
        box = sandbox.launch_sandbox(state, cache=cache)
        project = tiny_project(directory, busybox, cache, box)
        project.replace(".lyra.toml", 'exec = "echo kept', 'timeout = "60s"\nexec = "sleep 0; echo kept')
        project.commit("a check that may take long")
        frail = Frail(project, box, cache, data)
        yield frail
        frail.restart()
        project.clean()
        assert frail.containers() == []
    finally:
        sandbox.shut_down_sandbox(state)
        subprocess.run(["umount", str(data)], check=True)


@pytest.fixture
def working(frail: Frail, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """The workspace of the project in this process."""
    for name in ("DOCKER_HOST", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, frail.project.environment[name])
    work = open_workspace(load_config(frail.project.root))
    yield work
    work.mark_finished()


def create_many(frail: Frail, work: Workspace, count: int) -> None:
    """Create containers of the project without starting them."""
    image = ensure_holder_image(work.engine, work.owner)
    payload = {"Image": image, "Cmd": [HOLD_PATH], "HostConfig": {"NetworkMode": "none"}}
    create_containers(work.engine, work.owner, {f"lyra-many-{number}": payload for number in range(count)})
    assert len(frail.containers()) == count


def clean(work: Workspace) -> None:
    """Run `clean` in this process."""
    cleanup_facts, engine = facts.collect_cleanup_facts(work)
    cleanup_plan = plan.plan_cleanup(cleanup_facts, "objects")
    require_clean(cleaning.run_cleanup([cleanup_plan], work, engine))


def test_hanging_engine_is_reported_and_next_clean_continues(
    frail: Frail, working: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_many(frail, working, 6)
    monkeypatch.setattr(connect, "_CONNECT_TIMEOUT_S", 1)
    with frail.frozen():
        started_at = time.monotonic()
        with pytest.raises(EngineUnavailableError, match="respon"):
            facts.collect_cleanup_facts(working)
        assert time.monotonic() - started_at < 10
    monkeypatch.setattr(connect, "_CONNECT_TIMEOUT_S", 20)
    monkeypatch.setattr(cleaning, "_ENGINE_TIMEOUT_S", 2)
    cleanup_facts, engine = facts.collect_cleanup_facts(working)
    with frail.frozen():
        started_at = time.monotonic()
        with pytest.raises(EngineUnavailableError, match="The engine stopped responding while removing"):
            cleaning.run_cleanup([plan.plan_cleanup(cleanup_facts, "objects")], working, engine)
        assert time.monotonic() - started_at < 15
    monkeypatch.setattr(cleaning, "_ENGINE_TIMEOUT_S", 60)
    clean(working)
    assert frail.containers() == []


def test_engine_killed_during_build_test_and_clean_allows_rerun(
    frail: Frail, working: Workspace, busybox: Path, cache: Path, tmp_path: Path
) -> None:
    create_many(frail, working, 60)
    other = tiny_project(tmp_path, busybox, cache, frail.box)
    other.replace(".lyra.toml", 'exec = "echo kept', 'timeout = "60s"\nexec = "sleep 50; echo kept')
    assert other.lyra("build").code == 0
    with other.start("test") as test:
        assert test.stdout and any("the page is there" in line for line in test.stdout)
        other.replace("app/Dockerfile", "USER", 'RUN ["/bin/sh", "-c", "echo begun; sleep 60"]\nUSER')
        with other.start("build") as build:
            assert build.stderr and any("begun" in line and "echo" not in line for line in build.stderr)
            with frail.project.start("clean") as running:
                assert becomes(lambda: len(frail.many()) < 60, 60)
                started_at = time.monotonic()
                frail.kill()
                ended = [(process, *process.communicate(timeout=60)) for process in (build, test, running)]
    assert time.monotonic() - started_at < 30
    for process, out, err in ended:
        refused(Outcome(process.returncode, out, err), process.returncode, "engine")
        assert process.returncode in ({3} if process is running else {3, 4}), out + err
    frail.restart()
    assert frail.many(), "the engine was killed too late to leave anything"
    frail.project.clean()
    assert frail.many() == []
    other.replace("app/Dockerfile", "sleep 60", "true")
    other.replace(".lyra.toml", "sleep 50; ", "")
    again = other.lyra("build", "test", "clean")
    assert again.code == 0, again.text
    assert frail.containers() == []


def test_container_ignoring_sigterm_delays_nothing(frail: Frail, working: Workspace) -> None:
    create_many(frail, working, 2)
    for container in frail.api.containers(all=True):
        frail.api.start(container["Id"])
    started_at = time.monotonic()
    clean(working)
    assert time.monotonic() - started_at < 9, "a process that ignores SIGTERM was given ten seconds"
    assert frail.containers() == []


def test_stuck_containers_do_not_delay_others(frail: Frail, working: Workspace) -> None:
    count = max(working.engine.facts.cpus, 2)
    create_many(frail, working, count + 3)
    containers = [container["Id"] for container in frail.api.containers(all=True)]
    for container in containers:
        frail.api.start(container)
    stuck = containers[:count]
    # a stopped shim does not respond, so that the engine cannot end the container
    shims = [pid for container in stuck for pid in processes_with(container)]
    for pid in shims:
        os.kill(pid, signal.SIGSTOP)
    try:
        with frail.project.start("clean") as running:
            assert becomes(lambda: len(frail.containers()) == len(stuck), 15), "the others waited for these"
            for pid in shims:
                os.kill(pid, signal.SIGCONT)
            out, err = running.communicate(timeout=60)
        assert running.returncode == 0, out + err
    finally:
        for pid in shims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    assert frail.containers() == []


@pytest.fixture(scope="module")
def tested(frail: Frail) -> Frail:
    """The project, built and tested."""
    result = frail.project.lyra("build", "test")
    assert result.code == 0, result.text
    return frail


def test_engine_killed_during_promote_leaves_no_bundle(tested: Frail) -> None:
    journal = next(tested.project.state.glob("*/journal.jsonl"))
    with tested.project.start("promote") as running:
        assert becomes(lambda: b'"promoting"' in journal.read_bytes(), 60)
        tested.kill()
        out, err = running.communicate(timeout=60)
    if running.returncode:  # else promote had already read everything
        refused(Outcome(running.returncode, out, err), 3, "engine")
        assert tested.project.bundles() == []
    assert not list(tested.project.root.glob("promotion/*/.staging*"))
    tested.restart()
    again = tested.project.lyra("promote")
    assert again.code == 0, again.text
    shutil.rmtree(tested.project.root / "promotion")


def set_check_duration(project: Project, seconds: int) -> None:
    """Set how long the last check takes."""
    path = project.root / ".lyra.toml"
    text = path.read_text()
    start, end = text.index('exec = "sleep ') + len('exec = "sleep '), text.index("; echo kept")
    path.write_text(text[:start] + str(seconds) + text[end:])


@contextmanager
def during_last_check(frail: Frail) -> Iterator[Callable[[], Outcome]]:
    """Run `test` up to its last check; yield a function that waits for its end."""
    set_check_duration(frail.project, 40)
    try:
        with frail.project.start("test") as running:
            assert running.stdout is not None
            next(line for line in running.stdout if "the secret is in place" in line)

            def end() -> Outcome:
                out, err = running.communicate(timeout=90)
                return Outcome(running.returncode, out, err)

            yield end
    finally:
        set_check_duration(frail.project, 0)


def test_lost_socket_is_reported_and_next_command_cleans_up(
    tested: Frail,
) -> None:
    moved = tested.box.socket.with_name("moved.sock")
    with during_last_check(tested) as end:
        tested.box.socket.rename(moved)
        outcome = end()
    for command in ("build", "test", "promote", "clean"):
        refused(tested.project.lyra(command), 3, "no such socket")
    assert becomes(lambda: not reapers(tested.project), 30), "the run's reaper waits for an engine"
    moved.rename(tested.box.socket)
    refused(outcome, 3, "The engine stopped responding")
    assert tested.containers(), "something else cleaned up"
    again = tested.project.lyra("test")
    assert again.code == 0, again.text
    assert "Removed leftovers of a killed run" in again.err
    assert tested.containers() == []


def test_container_removed_by_others_fails_test_run(tested: Frail) -> None:
    with during_last_check(tested) as end:
        (web,) = [name for name in tested.containers() if name.endswith("-web")]
        tested.api.remove_container(web, force=True)
        outcome = end()
    refused(outcome, outcome.code, "web")
    assert outcome.code in {3, 5}
    assert tested.containers() == []


def test_full_engine_disk_is_reported_and_clean_works(tested: Frail) -> None:
    with tested.full():
        build = tested.project.lyra("build", "--no-cache")
        refused(build, build.code, "no space left")
        assert build.code in {3, 4}
        test = tested.project.lyra("test", "--fresh")
        refused(test, 3, "the engine's disk is full")
        cleaned = tested.project.lyra("clean")
        assert cleaned.code == 0, cleaned.text
    again = tested.project.lyra("build", "test")
    assert again.code == 0, again.text
    assert tested.containers() == []


class Proxy:
    """A proxy that makes an engine report an older API version."""

    def __init__(self, path: Path, engine: Path) -> None:
        self.engine, self.server = engine, socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        """Accept connections until the server is closed."""
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(client,), daemon=True).start()

    def answer(self, client: socket.socket) -> None:
        """Answer one request and close the connection."""
        with client, socket.socket(socket.AF_UNIX) as engine, suppress(OSError):
            request = client.recv(65536)
            if not request:
                return
            engine.connect(str(self.engine))
            engine.sendall(request.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b": keep-alive", b": close"))
            response = b""
            while part := engine.recv(65536):
                response += part
            head, _, body = response.partition(b"\r\n\r\n")
            document = json.loads(body)
            if "ApiVersion" in document:
                document["ApiVersion"] = "1.40"
            body = json.dumps(document).encode()
            status = head.split(b"\r\n")[0].replace(b"HTTP/1.0", b"HTTP/1.1")
            length = f"Content-Length: {len(body)}\r\nConnection: close\r\nContent-Type: application/json".encode()
            client.sendall(status + b"\r\n" + length + b"\r\n\r\n" + body)


def test_unsupported_engine_is_refused_by_every_command(tested: Frail, tmp_path: Path) -> None:
    old = tmp_path / "old.sock"
    proxy = Proxy(old, tested.box.socket)
    try:
        for command in ("build", "test", "promote", "clean", "doctor"):
            outcome = tested.project.lyra(command, DOCKER_HOST=f"unix://{old}")
            assert outcome.code == 3, outcome.text
            assert "API 1.40, at least 1.41 required" in outcome.text
    finally:
        proxy.server.close()
