"""Engines on other machines by Docker context, over TCP with TLS and over SSH."""

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
from tests.thorough import keep

SLOW = ('exec = "echo kept', 'timeout = "60s"\nexec = "sleep 50; echo kept')


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("machines")


@pytest.fixture(scope="module")
def keys(directory: Path) -> Path:
    """A certificate authority, and a server certificate for all possible sandbox addresses."""
    keys = machines.create_authority(directory / "keys")
    machines.create_certificate(keys, "server", f"subjectAltName={machines.alternative_names()}")
    return keys


@pytest.fixture(scope="module")
def start(directory: Path, keys: Path, cache: Path) -> Callable[[], sandbox.Sandbox]:
    """Starts, or restarts, the engine behind TLS."""
    return lambda: machines.launch_with_tls(directory / "tls", cache, keys)


@pytest.fixture(scope="module")
def by_tls(directory: Path, start: Callable[[], sandbox.Sandbox]) -> Iterator[Machine]:
    yield Machine(start(), "by-tls")
    sandbox.shut_down_sandbox(directory / "tls", purge=True)


@pytest.fixture(scope="module")
def by_ssh(directory: Path, cache: Path) -> Iterator[Machine]:
    """An engine with the other image store."""
    yield Machine(sandbox.launch_sandbox(directory / "ssh", cache=cache, store="graph"), "by-ssh")
    sandbox.shut_down_sandbox(directory / "ssh", purge=True)


def tls_endpoint(box: sandbox.Sandbox, keys: Path) -> str:
    """Return the endpoint in the notation of `docker context create`."""
    files = f"ca={keys}/ca.pem,cert={keys}/client.pem,key={keys}/client-key.pem"
    return f"host=tcp://{box.address}:{machines.TLS_PORT},{files}"


@pytest.fixture(scope="module")
def client(by_tls: Machine, by_ssh: Machine, directory: Path, keys: Path, cache: Path) -> Iterator[dict[str, str]]:
    """The environment of a user with contexts for both machines, whose current engine is a third one."""
    config = machines.create_client_directory(directory / "client", by_tls.box)
    machines.add_context(by_tls.box, config, "by-tls", tls_endpoint(by_tls.box, keys))
    machines.add_context(by_tls.box, config, "by-ssh", "host=ssh://builder")
    with machines.ssh_server(by_ssh.box, directory / "sshd", cache) as tools:
        (tools / "docker").symlink_to(by_tls.box.docker.resolve())
        yield {"DOCKER_CONFIG": str(config), "PATH": f"{tools}:{os.environ['PATH']}"}


@pytest.fixture
def on(
    client: dict[str, str], box: sandbox.Sandbox, busybox: Path, cache: Path, tmp_path: Path
) -> Callable[[Machine], Project]:
    """Creates a tiny project that is configured for a machine."""

    def make(machine: Machine) -> Project:
        parent = tmp_path / machine.context
        parent.mkdir()
        project = tiny_project(parent, busybox, cache, box)
        machines.use_context(project, machine.context)
        return replace(project, environment={**project.environment, **client})

    return make


def list_tunnels(project: Project) -> list[int]:
    """Return the process ids of connections that ssh forwards for commands of this project."""
    return processes_with("lyra-private-engine-", project)


def require_reaper_to_clean(project: Project, machine: Machine) -> None:
    """Kill a test run and assert that its reaper reaches the engine."""
    project.replace(".lyra.toml", *SLOW)
    with project.start("build", "test") as running:
        assert running.stdout is not None
        assert any("the secret is in place" in line for line in running.stdout)
        assert machine.docker("ps", "--all", "--quiet") != ""
        assert bool(list_tunnels(project)) == (machine.context == "by-ssh")
        running.kill()
        running.communicate()
    assert becomes(lambda: machine.docker("ps", "--all", "--quiet") == "", 30), "the reaper did not reach the engine"


@pytest.fixture(params=keep(1, ["by-ssh", "by-tls"]))
def machine(request: pytest.FixtureRequest, by_tls: Machine, by_ssh: Machine) -> Machine:
    return by_tls if request.param == "by-tls" else by_ssh


def test_all_commands_work_on_remote_engine(machine: Machine, on: Callable[[Machine], Project]) -> None:
    project = on(machine)
    plain = (project.root / ".lyra.toml").read_text()
    require_reaper_to_clean(project, machine)
    (project.root / ".lyra.toml").write_text(plain)
    result = project.lyra("build", "test", "promote", "create")
    assert result.code == 0, result.text
    assert "4 of 4 checks passed" in result.out
    assert f"http://{machine.box.address}:" in result.out, "published ports are reached on that machine"
    assert "lyra-" in machine.docker("ps", "--format", "{{.Names}}")
    piped = subprocess.run(
        project.command("dev.exec", "--", "cat"),
        cwd=project.root, env=project.environment, input=b"x" * 300_000, capture_output=True, check=False,
    )  # fmt: skip
    assert (piped.returncode, len(piped.stdout)) == (0, 300_000), piped.stderr
    listed = project.lyra("dev.exec", "--", "sh", "-c", "busybox ps; exit 7")
    assert (listed.code, "httpd" in listed.out) == (7, True), listed.text
    cleaned = project.lyra("clean", "verify")
    assert cleaned.code == 0, cleaned.text
    assert machine.list_objects() == ""
    assert becomes(lambda: list_tunnels(project) == []), "a tunnel outlives its process"


def test_unconfigured_remote_context_is_refused(client: dict[str, str], lonely: Project) -> None:
    for name in ("by-tls", "by-ssh"):
        project = replace(lonely, environment={**lonely.environment, **client, "DOCKER_CONTEXT": name})
        refused(project.lyra("build"), 3, "on another machine", f"`export LYRA_ENGINE={name}`", "[engine] context")


def test_engine_of_ci_service_is_used_by_environment(
    by_tls: Machine, client: dict[str, str], lonely: Project, directory: Path, keys: Path
) -> None:
    """GitLab's docker:dind: an address with certificates, all of it in the environment."""
    certificates = directory / "certificates"
    certificates.mkdir()
    for name, file in (("ca.pem", "ca.pem"), ("cert.pem", "client.pem"), ("key.pem", "client-key.pem")):
        (certificates / name).symlink_to(keys / file)
    address = f"tcp://{by_tls.box.address}:{machines.TLS_PORT}"
    variables = {"DOCKER_HOST": address, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certificates)}
    project = replace(lonely, environment={**lonely.environment, **client, **variables})
    refused(project.lyra("build"), 3, "on another machine", f"`export LYRA_ENGINE={address}`")
    project.environment["LYRA_ENGINE"] = address
    require_reaper_to_clean(project, by_tls)
    project.clean()


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


def test_remote_builder_makes_the_same_image(
    client: dict[str, str], by_tls: Machine, by_ssh: Machine, on: Callable[[Machine], Project]
) -> None:
    project = on(by_ssh)
    plain = (project.root / ".lyra.toml").read_text()
    images_before = by_ssh.docker("image", "ls", "--quiet")
    with machines.serve_buildkit(by_tls.box) as address:
        machines.run_buildx(client, by_tls.box, "create", "--name", "far", "--driver", "remote", address)
        digests = set()
        for name in ("by-tls", "far"):
            (project.root / ".lyra.toml").write_text(plain + BASED.replace("BUILDER", name))
            built = project.lyra("build", *(["--no-cache", "test"] if name == "far" else []))
            assert built.code == 0, built.text
            digests.add(digest_of(project))
            assert (project.root / ".lyra/cache/web/index.json").is_file()
            assert list(project.root.glob(".lyra/runs/*/*.tar")) == [], "loaded archives are not kept"
        again = project.lyra("build")
        assert "unchanged" in again.out, again.text
        assert "importing cache manifest from local" in again.err
        several = f'[proxima]\nplatforms = ["linux/amd64", "linux/arm64"]\n{BASED.replace("BUILDER", name)}'
        (project.root / ".lyra.toml").write_text(plain + several)
        foreign = json.loads(project.lyra("build", "--platform", "linux/arm64", "--json").out)["images"]
        architecture = by_ssh.docker(
            "image", "inspect", "--format", "{{.Architecture}}", foreign["web@linux/arm64"]["image_id"]
        )
        assert architecture == "arm64\n"
        machines.run_buildx(client, by_tls.box, "rm", "far")
    assert len(digests) == 1, "the same image from either builder"
    assert by_tls.list_objects() == "", "nothing stays in the engine that built"
    project.clean()
    assert by_ssh.docker("image", "ls", "--quiet") == images_before


def test_unusable_builder_is_refused(on: Callable[[Machine], Project], by_tls: Machine) -> None:
    project = on(by_tls)
    refused(project.lyra("build", LYRA_BUILDER="by-ssh"), 3, "classic image store", "cannot export images")
    refused(project.lyra("build", LYRA_BUILDER="nobody"), 3, "Unknown builder 'nobody'", "buildx ls")
    own = project.lyra("build", LYRA_BUILDER="by-tls")
    assert own.code == 0, own.text
    project.clean()


# After the tests with builders: to find one, Buildx asks the engine of each context.
def test_unreachable_remote_engine_reports_reason(
    client: dict[str, str], by_ssh: Machine, lonely: Project, directory: Path, keys: Path
) -> None:
    other_keys = machines.create_authority(directory / "other")
    files = f"ca={keys}/ca.pem,cert={other_keys}/client.pem,key={other_keys}/client-key.pem"
    endpoint = f"host=tcp://{by_ssh.box.address}:{machines.TLS_PORT}"
    config = Path(client["DOCKER_CONFIG"])
    machines.add_context(by_ssh.box, config, "nobody-there", f"{endpoint},{files}")
    machines.add_context(by_ssh.box, config, "unknown", f"host=ssh://mallory@{by_ssh.box.address}:{machines.SSH_PORT}")
    machines.add_context(by_ssh.box, config, "nowhere", "host=ssh://nowhere.invalid")
    text = (lonely.root / ".lyra.toml").read_text()
    for name, reason in (
        ("nobody-there", "connection refused"),
        ("unknown", "Permission denied (publickey"),
        ("nowhere", "nowhere.invalid"),
    ):
        (lonely.root / ".lyra.toml").write_text(f'{text}\n[engine]\ncontext = "{name}"\n')
        project = replace(lonely, environment={**lonely.environment, **client})
        refused(project.lyra("build", timeout=60), 3, reason)


@pytest.mark.thorough
def test_killed_engine_fails_only_its_own_run(
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
        refused(Outcome(first.returncode, out, err), 3, "The engine")
        out, err = second.communicate(timeout=60)
        assert second.returncode == 0, out + err
    assert becomes(lambda: sandbox.find_sandbox(by_tls.box.state) is None)
    again = Machine(start(), "by-tls")
    # its address may have changed
    machines.add_context(again.box, Path(client["DOCKER_CONFIG"]), "by-tls", tls_endpoint(again.box, keys))
    for project, machine in ((dying, again), (living, by_ssh)):
        project.clean()
        assert machine.list_objects() == ""
