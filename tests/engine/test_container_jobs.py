"""The program in a container that has the engine's socket, as in CI: without the network and files of its machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from tests import engines
from tests.conftest import REPOSITORY, Outcome, Project
from tests.engine.sandboxes import IMAGE, import_busybox

Job = Callable[..., Outcome]


@pytest.fixture(scope="module")
def run_job(built_project: Project, box: sandbox.Sandbox, busybox: Path, cache: Path) -> Job:
    """Return a function that runs the program in a container with this machine's programs, but not its network."""
    import_busybox(box, busybox)
    programs = [path for path in ("/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr", "/opt") if Path(path).exists()]
    files = [*programs, sys.base_prefix, sys.prefix, str(REPOSITORY), str(cache)]
    environment = {
        **{key: built_project.environment[key] for key in ("XDG_STATE_HOME", "PYTHONPATH", "GIT_CONFIG_GLOBAL")},
        "HOME": str(built_project.root.parent),
        "DOCKER_CONFIG": str(box.config_dir),
        "PATH": f"{box.docker.parent.resolve()}:/usr/bin:/bin:/usr/sbin:/sbin",
    }

    def run(*arguments: str, network: str = "bridge") -> Outcome:
        command = [str(box.docker), "run", "--rm", f"--network={network}", f"--workdir={built_project.root}"]
        command += [f"--volume={path}:{path}:ro" for path in dict.fromkeys(files)]
        command += [
            f"--volume={built_project.root.parent}:{built_project.root.parent}",
            "--volume=/run/lyra/docker.sock:/run/docker.sock",
        ]
        command += [f"--volume={box.config_dir}:{box.config_dir}"]
        command += [f"--env={key}={value}" for key, value in environment.items()]
        command += ["--env=DOCKER_HOST=unix:///run/docker.sock", IMAGE, *built_project.command(*arguments)]
        result = subprocess.run(
            command, env=box.environment(), capture_output=True, text=True, timeout=300, check=False
        )
        return Outcome(result.returncode, result.stdout, result.stderr)

    return run


@contextmanager
def firewall(box: sandbox.Sandbox, target: str) -> Iterator[None]:
    """Accept or drop what containers send to the engine's machine, as its firewall may."""
    tools = "/run/engine"
    enter = ["nsenter", f"--target={box.pid}", "--mount", "--net", "env", f"LD_LIBRARY_PATH={tools}/lib"]
    enter += [f"XTABLES_LIBDIR={tools}/xtables", f"{tools}/bin/iptables"]
    rule = ["INPUT", "--in-interface", "docker0", "--protocol", "tcp", "--jump", target]
    subprocess.run([*enter, "--insert", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run([*enter, "--delete", *rule], check=True)


def test_job_in_container_without_network_is_told(run_job: Job) -> None:
    result = run_job("build", "test", network="none")
    assert result.code == 3, result.text
    assert "Cannot reach published ports from this container" in result.err
    doctor = run_job("doctor", "--json", network="none")
    (ports,) = [item for item in json.loads(doctor.out) if item["subject"] == "ports"]
    assert ports["state"] == "warning"


def test_job_in_container_is_told_of_firewall(run_job: Job, box: sandbox.Sandbox) -> None:
    with firewall(box, "DROP"):
        result = run_job("build", "test")
    assert result.code == 3, result.text
    assert "web cannot be reached: nothing answers at 10.215." in result.err
    assert "docker run --network host" in result.err


@pytest.mark.parametrize("network", ["host", "bridge"])
def test_job_in_container_reaches_services(run_job: Job, box: sandbox.Sandbox, network: str) -> None:
    with firewall(box, "ACCEPT"):
        result = run_job("build", "test", "--fresh", *(["clean"] if network == "bridge" else []), network=network)
    if engines.chosen().suite == "bookworm":
        assert result.code == 3, result.text
        assert "takes them from its own machine" in result.err
        return
    assert result.code == 0, result.text
    assert "4 of 4 checks passed" in result.out
