"""No engine, the wrong engine, no client, an interrupted build: what commands report and what they leave."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Outcome, Project, ours
from tests.engine.sandboxes import gateway_of
from tests.faults import becomes, no_traceback, processes_with, refused, run_through, unprivileged
from tests.thorough import keep

COMMANDS = ("build", "test", "promote", "clean")
_PLUGIN_DIRECTORIES = [f"/usr/{place}/docker/cli-plugins" for place in ("local/lib", "local/libexec", "lib", "libexec")]


def test_every_command_without_engine_lists_choices(lonely: Project) -> None:
    nowhere = lonely.root / "no.sock"
    for command in COMMANDS:
        result = lonely.lyra(command, DOCKER_HOST=f"unix://{nowhere}")
        refused(result, 3, f"Cannot connect to a Docker engine at unix://{nowhere}", "no such socket")
        for choice in ("Start that engine", "unset DOCKER_HOST", "[engine] context", "LYRA_ENGINE"):
            assert choice in result.err
        if not Path("/var/run/docker.sock").exists():
            result = lonely.lyra(command, DOCKER_CONFIG=str(lonely.root))
            refused(result, 3, "Cannot connect to a Docker engine at unix:///var/run/docker.sock", "no such socket")
            for choice in ("Start Docker", "[engine] context", "engine.up", 'sandbox = "auto"'):
                assert choice in result.err
    assert not list(lonely.root.glob("promotion")), "nothing is started"


def test_dead_socket_is_named(lonely: Project, tmp_path: Path) -> None:
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    refused(lonely.lyra("build", DOCKER_HOST=f"unix://{path}"), 3, str(path), "connection refused")


def test_forbidden_socket_hints_at_group(lonely: Project, tmp_path: Path) -> None:
    path = tmp_path / "private.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(0o600)
        os.chown(path, 65534, 65534)
        result = unprivileged(lonely, "build", DOCKER_HOST=f"unix://{path}")
    refused(result, 3, str(path), "permission denied", "sudo usermod -aG nogroup $USER")


def test_remote_engine_is_refused_without_connecting(lonely: Project, box: sandbox.Sandbox) -> None:
    with socket.create_server((gateway_of(box), 0)) as server:
        address = f"tcp://{gateway_of(box)}:{server.getsockname()[1]}"
        for command in COMMANDS:
            result = lonely.lyra(command, DOCKER_HOST=address)
            refused(result, 3, "on another machine", "selected by DOCKER_HOST", f"`export LYRA_ENGINE={address}`")
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


def test_unreachable_remote_engine_is_refused_at_once(lonely: Project) -> None:
    address = "tcp://192.0.2.1:2375"
    refused(lonely.lyra("build", timeout=20, DOCKER_HOST=address), 3, address, "on another machine")


def test_unknown_context_is_named(lonely: Project) -> None:
    lonely.replace(".lyra.toml", "[images.web]", '[engine]\ncontext = "nowhere"\n\n[images.web]')
    refused(lonely.lyra("build"), 3, "Unknown Docker context 'nowhere'", "docker context ls", "[engine] context")


@pytest.fixture
def plain(tiny: Project, box: sandbox.Sandbox, tmp_path: Path) -> Project:
    """The tiny project at a socket that does not look like a sandbox, so that the client on PATH is used."""
    (tmp_path / "docker.sock").symlink_to(box.socket)
    environment = {"DOCKER_HOST": f"unix://{tmp_path}/docker.sock", "DOCKER_CONFIG": str(tmp_path / "empty")}
    return Project(tiny.root, {**tiny.environment, **environment})


def path_with(directory: Path, *programs: Path) -> str:
    """Return a PATH with git and the given programs only."""
    directory.mkdir()
    git = next(Path(entry, "git") for entry in os.get_exec_path() if Path(entry, "git").exists())
    for program in (git, *programs):
        (directory / program.name).symlink_to(program.resolve())
    return str(directory)


def test_missing_buildx_is_reported(plain: Project, box: sandbox.Sandbox, tmp_path: Path) -> None:
    hide = 'for dir in $0; do [ ! -d $dir ] || mount -t tmpfs none $dir; done; export PATH=$1; shift; exec "$@"'
    path = path_with(tmp_path / "bin", box.docker)
    prefix = ["unshare", "--mount", "sh", "-c", hide, " ".join(_PLUGIN_DIRECTORIES), path]
    refused(run_through(plain, prefix, "build"), 3, "Docker Buildx not found", "docker-buildx")
    assert not list(plain.root.glob(".lyra/runs/*"))


def test_missing_docker_cli_is_reported(plain: Project, tmp_path: Path) -> None:
    result = plain.lyra("build", PATH=path_with(tmp_path / "bin"))
    refused(result, 3, "Docker CLI not found", "Install the Docker CLI")


@pytest.mark.parametrize("number", keep(1, [signal.SIGINT, signal.SIGTERM]))
def test_interrupted_build_leaves_nothing(tiny: Project, engine: Engine, number: signal.Signals) -> None:
    tiny.replace("app/Dockerfile", "USER", 'RUN ["/bin/sh", "-c", "echo begun; sleep 60"]\nUSER')
    with tiny.start("build") as running:
        assert running.stderr is not None
        assert any("begun" in line and "echo" not in line for line in running.stderr)
        started_at = time.monotonic()
        running.send_signal(number)
        out, err = running.communicate(timeout=30)
    refused(Outcome(running.returncode, out, err), 130, "Interrupted", hint=False)
    assert time.monotonic() - started_at < 10
    assert becomes(lambda: processes_with(str(tiny.root)) == [], 2), processes_with(str(tiny.root))
    assert [name for name in ours(engine) if "holder" not in name] == []
    tiny.replace("app/Dockerfile", "sleep 60", "true")
    assert tiny.lyra("build").code == 0


def test_unknown_commands_and_options_are_usage_errors(lonely: Project) -> None:
    for arguments, named in (
        (["bild"], "bild"),
        (["build", "--no-such"], "--no-such"),
        (["build", "--image"], "image"),
    ):
        result = lonely.lyra(*arguments)
        assert result.code == 2, result.text
        assert named in result.err
        assert no_traceback(result.text)


def test_unknown_image_suggests_known_ones(tiny: Project) -> None:
    refused(tiny.lyra("build", "--image", "wep"), 2, "Unknown image 'wep'", "Did you mean web?")
    refused(tiny.lyra("build", "-i", "zzzzz"), 2, "Unknown image 'zzzzz'", "Known: web")
    nowhere = f"unix://{tiny.root}/nothing.sock"  # names are checked without an engine
    unknown = tiny.lyra("test", "--only", "zzzzz", DOCKER_HOST=nowhere)
    refused(unknown, 2, "Unknown test 'zzzzz'", "the page is there")
