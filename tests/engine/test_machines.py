"""Engines on other machines, by their Docker contexts: over TCP with TLS, and over SSH."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from tests.conftest import Outcome, Project, tiny_project
from tests.engine import machines
from tests.engine.machines import Machine
from tests.faults import becomes, processes_with, refused

SLOW = ('exec = "echo kept', 'timeout = "60s"\nexec = "sleep 50; echo kept')


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("machines")


@pytest.fixture(scope="module")
def keys(folder: Path) -> Path:
    """A certificate authority; the server's certificate holds for every address that a sandbox may get."""
    made = machines.authority(folder / "keys")
    machines.certificate(made, "server", f"subjectAltName={machines.every_address()}")
    return made


@pytest.fixture(scope="module")
def start(folder: Path, keys: Path, cache: Path) -> Callable[[], sandbox.Sandbox]:
    """Starts the engine behind TLS, for the first time or once more."""
    return lambda: machines.with_tls(folder / "tls", cache, keys)


@pytest.fixture(scope="module")
def by_tls(folder: Path, start: Callable[[], sandbox.Sandbox]) -> Iterator[Machine]:
    yield Machine(start(), "by-tls")
    sandbox.shut_down_sandbox(folder / "tls", purge=True)


@pytest.fixture(scope="module")
def by_ssh(folder: Path, cache: Path) -> Iterator[Machine]:
    """An engine with the other image store."""
    yield Machine(sandbox.launch_sandbox(folder / "ssh", cache=cache, store="graph"), "by-ssh")
    sandbox.shut_down_sandbox(folder / "ssh", purge=True)


def behind_tls(box: sandbox.Sandbox, keys: Path) -> str:
    """The endpoint as `docker context create` takes it."""
    files = f"ca={keys}/ca.pem,cert={keys}/client.pem,key={keys}/client-key.pem"
    return f"host=tcp://{box.address}:{machines.TLS_PORT},{files}"


@pytest.fixture(scope="module")
def client(by_tls: Machine, by_ssh: Machine, folder: Path, keys: Path, cache: Path) -> Iterator[dict[str, str]]:
    """The variables of somebody who knows both machines by their contexts; the current engine is a third one."""
    config = machines.client_folder(folder / "client", by_tls.box)
    machines.add_context(by_tls.box, config, "by-tls", behind_tls(by_tls.box, keys))
    machines.add_context(by_tls.box, config, "by-ssh", "host=ssh://builder")
    with machines.ssh_server(by_ssh.box, folder / "sshd", cache) as tools:
        (tools / "docker").symlink_to(by_tls.box.docker.resolve())
        yield {"DOCKER_CONFIG": str(config), "PATH": f"{tools}:{os.environ['PATH']}"}


@pytest.fixture
def on(
    client: dict[str, str], box: sandbox.Sandbox, busybox: Path, cache: Path, tmp_path: Path
) -> Callable[[Machine], Project]:
    """Makes a tiny project that is configured for a machine."""

    def make(machine: Machine) -> Project:
        place = tmp_path / machine.context
        place.mkdir()
        made = tiny_project(place, busybox, cache, box)
        machines.use_context(made, machine.context)
        return replace(made, environment={**made.environment, **client})

    return make


@pytest.fixture(params=["by-tls", "by-ssh"])
def machine(request: pytest.FixtureRequest, by_tls: Machine, by_ssh: Machine) -> Machine:
    return by_tls if request.param == "by-tls" else by_ssh


def test_every_word_works_on_another_machine_and_leaves_nothing_there(
    machine: Machine, on: Callable[[Machine], Project]
) -> None:
    project = on(machine)
    done = project.lyra("build", "test", "promote", "create")
    assert done.code == 0, done.text
    assert "4 of 4 checks passed" in done.out
    assert f"http://{machine.box.address}:" in done.out, "published ports are reached at that machine"
    assert "lyra-" in machine.docker("ps", "--format", "{{.Names}}")
    piped = subprocess.run(
        project.command("dev.exec", "--", "cat"),
        cwd=project.root, env=project.environment, input=b"x" * 300_000, capture_output=True, check=False,
    )  # fmt: skip
    assert (piped.returncode, len(piped.stdout)) == (0, 300_000), piped.stderr
    assert project.lyra("dev.exec", "--", "sh", "-c", "exit 7").code == 7
    assert "httpd" in project.lyra("dev.exec", "--", "busybox", "ps").out
    project.clean()
    assert machine.left() == ""
    assert project.lyra("verify").code == 0
    assert becomes(lambda: processes_with("lyra-engine-") == []), "a way to the engine outlives its program"


def test_what_a_killed_test_left_on_another_machine_is_removed_there(
    machine: Machine, on: Callable[[Machine], Project]
) -> None:
    project = on(machine)
    project.replace(".lyra.toml", *SLOW)
    assert project.lyra("build").code == 0
    with project.start("test") as running:
        assert running.stdout is not None
        assert any("the secret is in place" in line for line in running.stdout)
        running.kill()
        running.communicate()
    assert becomes(lambda: machine.docker("ps", "--all", "--quiet") == "", 30), "the reaper did not reach the machine"
    project.clean()
    assert machine.left() == ""


def test_a_machine_that_is_the_current_context_but_not_configured_is_refused(
    client: dict[str, str], lonely: Project
) -> None:
    for name in ("by-tls", "by-ssh"):
        project = replace(lonely, environment={**lonely.environment, **client, "DOCKER_CONTEXT": name})
        refused(project.lyra("build"), 3, "on another machine", "[engine] context")


def test_what_keeps_a_machine_from_answering_is_said(
    client: dict[str, str], by_ssh: Machine, lonely: Project, folder: Path, keys: Path
) -> None:
    stranger = machines.authority(folder / "stranger")
    files = f"ca={keys}/ca.pem,cert={stranger}/client.pem,key={stranger}/client-key.pem"
    endpoint = f"host=tcp://{by_ssh.box.address}:{machines.TLS_PORT}"
    config = Path(client["DOCKER_CONFIG"])
    machines.add_context(by_ssh.box, config, "nobody-there", f"{endpoint},{files}")
    machines.add_context(by_ssh.box, config, "unknown", f"host=ssh://stranger@{by_ssh.box.address}:{machines.SSH_PORT}")
    machines.add_context(by_ssh.box, config, "nowhere", "host=ssh://nowhere.invalid")
    text = (lonely.root / ".lyra.toml").read_text()
    for name, said in (
        ("nobody-there", "connection refused"),
        ("unknown", "Permission denied (publickey"),
        ("nowhere", "nowhere.invalid"),
    ):
        (lonely.root / ".lyra.toml").write_text(f'{text}\n[engine]\ncontext = "{name}"\n')
        project = replace(lonely, environment={**lonely.environment, **client})
        refused(project.lyra("build", timeout=60), 3, said)


BASED = """
[bases.root]
rootfs = { suite = "bookworm", packages = ["busybox-static"], variant = "extract" }

[builder]
name = "BUILDER"
cache_from = ["type=local,src=.lyra/cache/{image}"]
cache_to = ["type=local,dest=.lyra/cache/{image}"]
"""


def digest_of(project: Project) -> str:
    (record,) = project.state.glob("*/images/web@linux-amd64.json")
    return str(json.loads(record.read_text())["config_digest"])


def test_what_a_builder_elsewhere_makes_is_loaded_and_is_the_same_image(
    client: dict[str, str], by_tls: Machine, by_ssh: Machine, on: Callable[[Machine], Project]
) -> None:
    project = on(by_ssh)
    plain = (project.root / ".lyra.toml").read_text()
    held = by_ssh.docker("image", "ls", "--quiet")
    with machines.buildkit(by_tls.box) as address:
        machines.buildx(client, by_tls.box, "create", "--name", "far", "--driver", "remote", address)
        digests = set()
        for name in ("by-tls", "far"):
            (project.root / ".lyra.toml").write_text(plain + BASED.replace("BUILDER", name))
            built = project.lyra("build", *(["--no-cache", "test"] if name == "far" else []))
            assert built.code == 0, built.text
            digests.add(digest_of(project))
            assert (project.root / ".lyra/cache/web/index.json").is_file()
            assert list(project.root.glob(".lyra/runs/*/*.tar")) == [], "what was loaded is not kept"
        again = project.lyra("build")
        assert "unchanged" in again.out, again.text
        assert "importing cache manifest from local" in again.err
        several = f'[proxima]\nplatforms = ["linux/amd64", "linux/arm64"]\n{BASED.replace("BUILDER", name)}'
        (project.root / ".lyra.toml").write_text(plain + several)
        foreign = json.loads(project.lyra("build", "--platform", "linux/arm64", "--json").out)["images"]
        seen = by_ssh.docker(
            "image", "inspect", "--format", "{{.Architecture}}", foreign["web@linux/arm64"]["image_id"]
        )
        assert seen == "arm64\n"
        machines.buildx(client, by_tls.box, "rm", "far")
    assert len(digests) == 1, "the same image, whoever builds it"
    assert by_tls.left() == "", "nothing stays in the engine that built"
    project.clean()
    assert by_ssh.docker("image", "ls", "--quiet") == held


def test_a_builder_that_cannot_hand_over_or_is_not_there_is_refused(
    on: Callable[[Machine], Project], by_tls: Machine
) -> None:
    project = on(by_tls)
    refused(project.lyra("build", LYRA_BUILDER="by-ssh"), 3, "classic image store", "cannot export images")
    refused(project.lyra("build", LYRA_BUILDER="nobody"), 3, "Unknown builder 'nobody'", "buildx ls")
    own = project.lyra("build", LYRA_BUILDER="by-tls")
    assert own.code == 0, own.text
    project.clean()


def test_one_engine_that_dies_fails_its_own_test_alone_and_leaves_nothing_after_its_restart(
    by_tls: Machine,
    by_ssh: Machine,
    on: Callable[[Machine], Project],
    start: Callable[[], sandbox.Sandbox],
    client: dict[str, str],
    keys: Path,
) -> None:
    dying, living = on(by_tls), on(by_ssh)
    for project in (dying, living):
        project.replace(".lyra.toml", SLOW[0], SLOW[1].replace("50", "6" if project is living else "50"))
        assert project.lyra("build").code == 0
    with dying.start("test") as first, living.start("test") as second:
        for running in (first, second):
            assert running.stdout is not None
            assert any("the secret is in place" in line for line in running.stdout)
        os.kill(by_tls.box.pid, signal.SIGKILL)
        out, err = first.communicate(timeout=60)
        refused(Outcome(first.returncode, out, err), 3, "the engine")
        out, err = second.communicate(timeout=60)
        assert second.returncode == 0, out + err
    assert becomes(lambda: sandbox.find_sandbox(by_tls.box.state) is None)
    again = Machine(start(), "by-tls")
    # its address may be another one now
    machines.add_context(again.box, Path(client["DOCKER_CONFIG"]), "by-tls", behind_tls(again.box, keys))
    for project, machine in ((dying, again), (living, by_ssh)):
        project.clean()
        assert machine.left() == ""
