"""An engine that hangs, dies, fills up, loses its socket or is too old, while any word runs: what is said and left.

One engine for the module, which may be hurt: each test leaves it running and without anything of the project's labs.
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
from lyra_tasks.config.load import load_config
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client import connect
from lyra_tasks.engine.objects.containers import create_containers
from lyra_tasks.engine.objects.holder import HOLD_PATH, ensure_holder_image
from lyra_tasks.engine.sandbox import cgroups
from lyra_tasks.engine.workspace import Workspace, open_workspace
from lyra_tasks.errors import EngineUnavailableError
from tests.conftest import Outcome, Project, tiny_project
from tests.faults import becomes, processes_with, refused

DISK = "700m"


@dataclass
class Frail:
    """A project and an engine of its own, whose disk is small."""

    project: Project
    box: sandbox.Sandbox
    cache: Path
    data: Path

    @property
    def api(self) -> docker.APIClient:
        """A connection to the engine as it is now."""
        return docker.APIClient(base_url=f"unix://{self.box.socket}", timeout=30)

    def containers(self) -> list[str]:
        """The names of all containers."""
        return [each["Names"][0].lstrip("/") for each in self.api.containers(all=True)]

    def daemons(self) -> list[int]:
        """The engine's own processes."""
        return list(
            {
                pid
                for tree in cgroups.list_cgroup_trees()
                for pid in cgroups.list_cgroup_processes(tree.path / self.box.name / "daemon")
            }
        )

    def kill(self) -> None:
        os.kill(self.box.pid, signal.SIGKILL)
        assert becomes(lambda: sandbox.find_sandbox(self.box.state) is None)

    def again(self) -> None:
        """Start the engine once more, with the data that it had."""
        self.box = sandbox.launch_sandbox(self.box.state, cache=self.cache)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The engine hangs: it accepts connections and does nothing."""
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
        """The engine's disk has no byte left."""
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
    folder = tmp_path_factory.mktemp("frail")
    state = folder / "engine"
    data = state / "sandbox" / "data"
    data.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(data)], check=True)
    try:
        box = sandbox.launch_sandbox(state, cache=cache)
        project = tiny_project(folder, busybox, cache, box)
        project.replace(".lyra.toml", 'exec = "echo kept', 'timeout = "60s"\nexec = "sleep 0; echo kept')
        project.commit("a check that may take long")
        made = Frail(project, box, cache, data)
        yield made
        made.again()
        project.clean()
        assert made.containers() == []
    finally:
        sandbox.shut_down_sandbox(state)
        subprocess.run(["umount", str(data)], check=True)


@pytest.fixture
def working(frail: Frail, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """The project as the words see it, in this process."""
    for name in ("DOCKER_HOST", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, frail.project.environment[name])
    work = open_workspace(load_config(frail.project.root))
    yield work
    work.mark_finished()


def many(frail: Frail, work: Workspace, count: int) -> None:
    """Containers of the project's that need not run."""
    image = ensure_holder_image(work.engine, work.owner)
    payload = {"Image": image, "Cmd": [HOLD_PATH], "HostConfig": {"NetworkMode": "none"}}
    create_containers(work.engine, work.owner, {f"lyra-many-{number}": payload for number in range(count)})
    assert len(frail.containers()) == count


def clean(work: Workspace) -> None:
    """What the word does."""
    found, engine = facts.collect_cleanup_facts(work)
    planned = plan.plan_cleanup(found, "objects")
    cleaning.require_clean(cleaning.run_cleanup(planned, work, engine))


def test_an_engine_that_hangs_is_named_in_bounded_time_and_the_next_clean_goes_on(
    frail: Frail, working: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(frail, working, 30)
    monkeypatch.setattr(connect, "_FIRST_ANSWER", 1)
    with frail.frozen():
        began = time.monotonic()
        with pytest.raises(EngineUnavailableError, match="answer"):
            facts.collect_cleanup_facts(working)
        assert time.monotonic() - began < 10
    monkeypatch.setattr(connect, "_FIRST_ANSWER", 20)
    monkeypatch.setattr(cleaning, "ANSWER", 2)
    found, engine = facts.collect_cleanup_facts(working)
    with frail.frozen():
        began = time.monotonic()
        with pytest.raises(EngineUnavailableError, match="the engine stopped answering while removing"):
            cleaning.run_cleanup(plan.plan_cleanup(found, "objects"), working, engine)
        assert time.monotonic() - began < 15
    monkeypatch.setattr(cleaning, "ANSWER", 60)
    clean(working)
    assert frail.containers() == []


def test_an_engine_that_is_killed_while_cleaning_is_named_and_a_rerun_cleans_the_rest(
    frail: Frail, working: Workspace
) -> None:
    many(frail, working, 60)
    with frail.project.start("clean") as running:
        assert becomes(lambda: len(frail.containers()) < 60, 60)
        frail.kill()
        out, err = running.communicate(timeout=60)
    refused(Outcome(running.returncode, out, err), 3, "engine")
    frail.again()
    assert frail.containers(), "the engine was killed too late to leave anything"
    frail.project.clean()
    assert frail.containers() == []


def test_a_container_that_ignores_sigterm_does_not_hold_up_the_others(frail: Frail, working: Workspace) -> None:
    many(frail, working, 6)
    for each in frail.api.containers(all=True):
        frail.api.start(each["Id"])
    began = time.monotonic()
    clean(working)
    assert time.monotonic() - began < 9, "somebody waited ten seconds for a process that hears no SIGTERM"
    assert frail.containers() == []


def test_containers_that_the_engine_cannot_end_do_not_hold_up_the_others(frail: Frail, working: Workspace) -> None:
    many(frail, working, 12)
    listed = [each["Id"] for each in frail.api.containers(all=True)]
    for each in listed:
        frail.api.start(each)
    stuck = listed[: max(working.engine.facts.cpus, 2)]
    # what starts and ends a container's processes for the engine does not answer any more
    shims = [pid for each in stuck for pid in processes_with(each)]
    for pid in shims:
        os.kill(pid, signal.SIGSTOP)
    try:
        with frail.project.start("clean") as running:
            assert becomes(lambda: len(frail.containers()) == len(stuck), 8), "the others waited for these"
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
    done = frail.project.lyra("build", "test")
    assert done.code == 0, done.text
    return frail


def test_an_engine_that_is_killed_while_promoting_leaves_no_bundle_and_a_rerun_makes_it(tested: Frail) -> None:
    journal = next(tested.project.state.glob("*/journal.jsonl"))
    with tested.project.start("promote") as running:
        assert becomes(lambda: b'"promoting"' in journal.read_bytes(), 60)
        tested.kill()
        out, err = running.communicate(timeout=60)
    if running.returncode:  # else all was fetched already
        refused(Outcome(running.returncode, out, err), 3, "engine")
        assert tested.project.bundles() == []
    assert not list(tested.project.root.glob("promotion/*/.staging*"))
    tested.again()
    again = tested.project.lyra("promote")
    assert again.code == 0, again.text
    shutil.rmtree(tested.project.root / "promotion")


def nap(project: Project, seconds: int) -> None:
    """Let the last check take so long."""
    path = project.root / ".lyra.toml"
    text = path.read_text()
    start, end = text.index('exec = "sleep ') + len('exec = "sleep '), text.index("; echo kept")
    path.write_text(text[:start] + str(seconds) + text[end:])


@contextmanager
def during_the_checks(frail: Frail) -> Iterator[Callable[[], Outcome]]:
    """A test that is in its last check; gives what waits for its end."""
    nap(frail.project, 40)
    try:
        with frail.project.start("test") as running:
            assert running.stdout is not None
            next(line for line in running.stdout if "the secret is in place" in line)

            def end() -> Outcome:
                out, err = running.communicate(timeout=90)
                return Outcome(running.returncode, out, err)

            yield end
    finally:
        nap(frail.project, 0)


def test_a_socket_that_goes_away_during_a_test_is_named_and_the_next_word_takes_away_what_was_left(
    tested: Frail,
) -> None:
    aside = tested.box.socket.with_name("aside.sock")
    with during_the_checks(tested) as end:
        tested.box.socket.rename(aside)
        outcome = end()
    for word in ("build", "test", "promote", "clean"):
        refused(tested.project.lyra(word), 3, "no such socket")
    aside.rename(tested.box.socket)
    refused(outcome, 3, "the engine stopped answering")
    assert tested.containers(), "something else cleaned up"
    again = tested.project.lyra("test")
    assert again.code == 0, again.text
    assert tested.containers() == []


def test_what_somebody_else_removes_during_a_test_is_told_and_a_rerun_works(tested: Frail) -> None:
    with during_the_checks(tested) as end:
        (web,) = [name for name in tested.containers() if name.endswith("-web")]
        tested.api.remove_container(web, force=True)
        outcome = end()
    refused(outcome, outcome.code, "web")
    assert outcome.code in {3, 5}
    assert tested.containers() == []
    assert tested.project.lyra("test").code == 0


def test_an_engine_whose_disk_is_full_is_named_by_every_word_and_clean_needs_no_room(tested: Frail) -> None:
    with tested.full():
        build = tested.project.lyra("build", "--no-cache")
        refused(build, build.code, "no space left")
        assert build.code in {3, 4}
        test = tested.project.lyra("test")
        refused(test, 3, "the engine's disk is full")
        cleaned = tested.project.lyra("clean")
        assert cleaned.code == 0, cleaned.text
    again = tested.project.lyra("build", "test")
    assert again.code == 0, again.text
    assert tested.containers() == []


class Proxy:
    """Passes everything on to an engine, and lets it say of itself that it is an older one."""

    def __init__(self, path: Path, engine: Path) -> None:
        self.engine, self.server = engine, socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(client,), daemon=True).start()

    def answer(self, client: socket.socket) -> None:
        """One request of a connection, which is closed then."""
        with client, socket.socket(socket.AF_UNIX) as engine, suppress(OSError):
            request = client.recv(65536)
            if not request:
                return
            engine.connect(str(self.engine))
            engine.sendall(request.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b": keep-alive", b": close"))
            said = b""
            while part := engine.recv(65536):
                said += part
            head, _, body = said.partition(b"\r\n\r\n")
            document = json.loads(body)
            if "ApiVersion" in document:
                document["ApiVersion"] = "1.40"
            body = json.dumps(document).encode()
            status = head.split(b"\r\n")[0].replace(b"HTTP/1.0", b"HTTP/1.1")
            length = f"Content-Length: {len(body)}\r\nConnection: close\r\nContent-Type: application/json".encode()
            client.sendall(status + b"\r\n" + length + b"\r\n\r\n" + body)


def test_an_engine_that_is_too_old_is_refused_by_every_word(tested: Frail, tmp_path: Path) -> None:
    old = tmp_path / "old.sock"
    proxy = Proxy(old, tested.box.socket)
    try:
        for word in ("build", "test", "promote", "clean", "doctor"):
            outcome = tested.project.lyra(word, DOCKER_HOST=f"unix://{old}")
            assert outcome.code == 3, outcome.text
            assert "speaks API 1.40, and 1.41 is the oldest" in outcome.text
    finally:
        proxy.server.close()
