"""An engine at a TCP port of the loopback interface, as CI services offer it: it is this machine's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from lyra_tasks.engine import sandbox
from tests.conftest import Outcome, Project

PORT = 23750
FORWARDER = """
import socket, sys, threading
def forward(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
with socket.create_server(("127.0.0.1", int(sys.argv[2]))) as server:
    print("ready", flush=True)
    while True:
        client, _ = server.accept()
        engine = socket.socket(socket.AF_UNIX)
        engine.connect(sys.argv[1])
        for pair in ((client, engine), (engine, client)):
            threading.Thread(target=forward, args=pair, daemon=True).start()
"""


@pytest.fixture
def run_beside(box: sandbox.Sandbox, tiny: Project) -> Iterator[Callable[..., Outcome]]:
    """Return a function that runs the program in the network of the engine, which listens on a loopback port."""
    enter = ["nsenter", f"--net=/proc/{box.pid}/ns/net", "--"]
    environment = {
        **tiny.environment,
        "DOCKER_HOST": f"tcp://127.0.0.1:{PORT}",
        "DOCKER_CONFIG": str(box.config_dir),
        "PATH": f"{box.docker.parent}:{tiny.environment['PATH']}",
    }

    def run(*arguments: str) -> Outcome:
        command = [*enter, *tiny.command(*arguments)]
        result = subprocess.run(
            command, cwd=tiny.root, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        return Outcome(result.returncode, result.stdout, result.stderr)

    forwarder = [*enter, sys.executable, "-c", FORWARDER, str(box.socket), str(PORT)]
    with subprocess.Popen(forwarder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield run
        finally:
            process.kill()


def test_engine_on_loopback_port_needs_no_consent(run_beside: Callable[..., Outcome], tiny: Project) -> None:
    result = run_beside("build", "test", "clean")
    assert result.code == 0, result.text
    assert "4 of 4 checks passed" in result.out
