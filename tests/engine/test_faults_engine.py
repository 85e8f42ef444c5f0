"""No engine, the wrong engine, no client, an engine that is killed: what the words say, and what is left."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Outcome, Project, ours, tiny_project
from tests.faults import becomes, no_traceback, processes_with, refused, run_through, unprivileged

_PLUGIN_FOLDERS = [f"/usr/{place}/docker/cli-plugins" for place in ("local/lib", "local/libexec", "lib", "libexec")]


@pytest.mark.parametrize("word", ["build", "test", "promote", "clean"])
def test_without_an_engine_every_word_names_the_choices(lonely: Project, word: str) -> None:
    nowhere = lonely.root / "no.sock"
    result = lonely.lyra(word, DOCKER_HOST=f"unix://{nowhere}")
    refused(result, 3, f"no Docker engine answers at unix://{nowhere}", "no such socket")
    for choice in ("start Docker", "[engine] context", "engine.up", 'sandbox = "auto"'):
        assert choice in result.err
    assert not list(lonely.root.glob("promotion")), "nothing is begun"


def test_a_socket_that_nobody_listens_on_is_named(lonely: Project, tmp_path: Path) -> None:
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    refused(lonely.lyra("build", DOCKER_HOST=f"unix://{path}"), 3, str(path), "connection refused")


def test_a_socket_that_may_not_be_used_says_how_to_get_the_right(lonely: Project, tmp_path: Path) -> None:
    path = tmp_path / "private.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(0o600)
        os.chown(path, 65534, 65534)
        result = unprivileged(lonely, "build", DOCKER_HOST=f"unix://{path}")
    refused(result, 3, str(path), "permission denied", "add yourself to the group that owns the socket")


@pytest.mark.parametrize("word", ["build", "test", "promote", "clean"])
def test_another_machine_is_refused_without_a_connection(lonely: Project, word: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        refused(lonely.lyra(word, DOCKER_HOST=address), 3, "on another machine", address, "[engine] context")
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_machine_that_does_not_answer_costs_no_time(lonely: Project) -> None:
    address = "tcp://192.0.2.1:2375"
    refused(lonely.lyra("build", timeout=20, DOCKER_HOST=address), 3, address, "on another machine")


def test_a_context_that_does_not_exist_is_named(lonely: Project) -> None:
    lonely.replace(".lyra.toml", "[images.web]", '[engine]\ncontext = "nowhere"\n\n[images.web]')
    refused(lonely.lyra("build"), 3, "there is no Docker context named 'nowhere'", "docker context ls")


@pytest.fixture
def plain(tiny: Project, box: sandbox.Sandbox, tmp_path: Path) -> Project:
    """The tiny project at a socket that does not tell whose it is, so that PATH's own client is used."""
    (tmp_path / "docker.sock").symlink_to(box.socket)
    environment = {"DOCKER_HOST": f"unix://{tmp_path}/docker.sock", "DOCKER_CONFIG": str(tmp_path / "empty")}
    return Project(tiny.root, {**tiny.environment, **environment})


def programs(folder: Path, *paths: Path) -> str:
    """A PATH with git and these programs, and nothing else."""
    folder.mkdir()
    (folder / "git").symlink_to(next(Path(each) / "git" for each in os.get_exec_path() if Path(each, "git").exists()))
    for path in paths:
        (folder / path.name).symlink_to(path.resolve())
    return str(folder)


def test_a_client_without_buildx_is_a_missing_tool(plain: Project, box: sandbox.Sandbox, tmp_path: Path) -> None:
    hide = 'for each in $0; do [ ! -d $each ] || mount -t tmpfs none $each; done; export PATH=$1; shift; exec "$@"'
    path = programs(tmp_path / "bin", box.docker)
    prefix = ["unshare", "--mount", "sh", "-c", hide, " ".join(_PLUGIN_FOLDERS), path]
    refused(run_through(plain, prefix, "build"), 3, "Docker Buildx not found", "docker-buildx")
    assert not list(plain.root.glob(".lyra/runs/*"))


def test_no_client_at_all_is_a_missing_tool(plain: Project, tmp_path: Path) -> None:
    result = plain.lyra("build", PATH=programs(tmp_path / "bin"))
    refused(result, 3, "Docker CLI not found", "install the Docker CLI")


@pytest.fixture
def mortal(tmp_path: Path, busybox: Path, cache: Path) -> Iterator[tuple[Project, sandbox.Sandbox]]:
    """The tiny project with an engine of its own that may be killed."""
    state = tmp_path / "mortal"
    own = sandbox.launch_sandbox(state, cache=cache)
    project = tiny_project(tmp_path, busybox, cache, own)
    try:
        yield project, own
    finally:
        sandbox.shut_down_sandbox(state, purge=True)


def kill_engine(own: sandbox.Sandbox) -> None:
    os.kill(own.pid, signal.SIGKILL)
    assert becomes(lambda: sandbox.find_sandbox(own.state) is None)


def test_an_engine_that_is_killed_during_build_and_test_is_named_and_a_rerun_works(
    mortal: tuple[Project, sandbox.Sandbox], cache: Path
) -> None:
    project, own = mortal
    project.replace("app/Dockerfile", "USER", 'RUN ["/bin/sh", "-c", "echo begun; sleep 60"]\nUSER')
    for word, file, sign in (("build", "app/Dockerfile", "begun"), ("test", ".lyra.toml", "the page is there")):
        with project.start(word) as running:
            stream = running.stderr if word == "build" else running.stdout
            assert stream is not None
            assert any(sign in line and "echo" not in line for line in stream)
            began = time.monotonic()
            kill_engine(own)
            out, err = running.communicate(timeout=60)
        refused(Outcome(running.returncode, out, err), running.returncode, "engine")
        assert running.returncode in {3, 4}, out + err
        assert time.monotonic() - began < 30
        own = sandbox.launch_sandbox(own.state, cache=cache)
        if word == "build":
            project.replace(file, "sleep 60", "true")
            project.replace(".lyra.toml", 'exec = "echo kept', 'timeout = "60s"\nexec = "sleep 50; echo kept')
            assert project.lyra("build").code == 0
    project.replace(".lyra.toml", "sleep 50; ", "")
    again = project.lyra("test", "clean")
    assert again.code == 0, again.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_no_child_and_no_image(
    tiny: Project, engine: Engine, number: signal.Signals
) -> None:
    tiny.replace("app/Dockerfile", "USER", 'RUN ["/bin/sh", "-c", "echo begun; sleep 60"]\nUSER')
    with tiny.start("build") as running:
        assert running.stderr is not None
        assert any("begun" in line and "echo" not in line for line in running.stderr)
        began = time.monotonic()
        running.send_signal(number)
        out, err = running.communicate(timeout=30)
    refused(Outcome(running.returncode, out, err), 130, "interrupted")
    assert time.monotonic() - began < 10
    assert becomes(lambda: processes_with(str(tiny.root)) == [], 2), processes_with(str(tiny.root))
    assert [name for name in ours(engine) if "holder" not in name] == []
    tiny.replace("app/Dockerfile", "sleep 60", "true")
    assert tiny.lyra("build").code == 0


def test_words_and_options_that_do_not_exist_are_usage_faults(lonely: Project) -> None:
    for words, said in (
        (["bild"], "bild"),
        (["build", "--no-such"], "--no-such"),
        (["build", "--image"], "image"),
    ):
        result = lonely.lyra(*words)
        assert result.code == 2, result.text
        assert said in result.err
        assert no_traceback(result.text)


def test_an_image_that_does_not_exist_is_named_with_those_that_do(tiny: Project) -> None:
    refused(tiny.lyra("build", "--image", "wep"), 2, "there is no image named 'wep'", "did you mean web?")
    refused(tiny.lyra("build", "-i", "zzzzz"), 2, "there is no image named 'zzzzz'", "there are: web")
    nowhere = f"unix://{tiny.root}/nothing.sock"  # no engine is needed to know names
    unknown = tiny.lyra("test", "--only", "zzzzz", DOCKER_HOST=nowhere)
    refused(unknown, 2, "there is no test named 'zzzzz'", "the page is there")


def test_help_of_every_word_works_without_a_project(tmp_path: Path, lonely: Project) -> None:
    elsewhere = Project(tmp_path, lonely.environment)
    listing = elsewhere.lyra("--list")
    assert listing.code == 0, listing.text
    words = re.findall(r"^  ([a-z.]+) ", listing.out, re.MULTILINE)
    assert {"build", "test", "promote", "clean", "verify"} <= set(words)
    for word in words:
        result = elsewhere.lyra(word, "--help")
        assert result.code == 0, result.text
        assert word in result.out
