"""Isolation, as attacks that fail on a real engine (R4), and limits that are enforced (R10)."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.monitoring import wait_until
from lyra_tasks.engine.debian.mirror import find_mirror, host_codename
from tests.conftest import Outcome, Project

BUSYBOX = "/bin/busybox"


ATTACKS = {
    "writing to the root file system": (f"{BUSYBOX} touch /new", 1, "Read-only file system"),
    "running a program from /tmp": (f"{BUSYBOX} cp {BUSYBOX} /tmp/it && /tmp/it true", 126, "Permission denied"),
    "filling a volume": (f"{BUSYBOX} dd if=/dev/zero of=/data/y bs=1M count=8", 1, "No space left"),
    "filling /tmp": (f"{BUSYBOX} dd if=/dev/zero of=/tmp/y bs=1M count=8", 1, "No space left"),
    "taking the file of another user": (f"{BUSYBOX} chown 0 /data", 1, "Operation not permitted"),
    "mounting": (f"{BUSYBOX} mount -t tmpfs none /tmp", 1, "permission denied"),
    "finding the socket of the engine": (f"{BUSYBOX} ls /var/run/docker.sock /run/docker.sock", 1, "No such file"),
    "making a device": (f"{BUSYBOX} mknod /data/disk b 8 0", 1, "Operation not permitted"),
    "resolving a name outside": (f"{BUSYBOX} nslookup web && {BUSYBOX} nslookup example.org", 1, "Name:"),
    "reaching an address outside": (f"{BUSYBOX} nc -w 3 192.0.2.1 80 < /dev/null", 1, ""),
    "having a capability": (f"{BUSYBOX} grep CapEff /proc/self/status", 0, "0000000000000000"),
    "gaining privileges": (f"{BUSYBOX} grep NoNewPrivs /proc/self/status", 0, "1"),
    "seeing processes of the host": (f"{BUSYBOX} ps -o comm | {BUSYBOX} grep -c dockerd", 1, "0"),
}

CALLING_HOME = "reaching a server of this machine through the gateway"


def attack(project: Project, attacks: dict[str, tuple[str, int, str]]) -> Outcome:
    """Run only these attacks: commands inside the service, as its own user, with the expected exit code and output."""
    with (project.root / ".lyra.toml").open("a") as file:
        for name, (command, exit_code, output) in attacks.items():
            file.write(f"\n[[tests]]\nname = {name!r}\nservice = 'web'\nexec = {command!r}\n")
            file.write(f"exit_code = {exit_code}\noutput = {output!r}\ntimeout = '20s'\n")
    return project.lyra("build", "test", *(argument for name in attacks for argument in ("--only", name)))


@contextmanager
def listener(address: str) -> Iterator[tuple[int, list[str]]]:
    """Start a server on this machine that records the addresses of its clients."""
    peers: list[str] = []
    with socket.create_server((address, 0)) as server:
        server.settimeout(0.2)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, peer = server.accept()
                except TimeoutError:
                    continue
                peers.append(peer[0])
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], peers
        finally:
            stop.set()
            thread.join()


@pytest.fixture(scope="module")
def shared(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Return a project, cleaned up after the module."""
    project = make_tiny()
    yield project
    project.clean()


@pytest.fixture(scope="module")
def attacked(shared: Project, box: sandbox.Sandbox) -> dict[str, str]:
    """Run all attacks in one lab, and one on a server of this machine; return the problem of each, or nothing."""
    here = box.address.rpartition(".")[0] + "." + str(int(box.address.rpartition(".")[2]) - 1)
    with listener(here) as (port, peers):
        socket.create_connection((here, port), timeout=5).close()
        assert wait_until(lambda: bool(peers), 5), "the listener does not work, so the attack would prove nothing"
        peers.clear()
        attacks = {**ATTACKS, CALLING_HOME: (f"{BUSYBOX} nc -w 3 {here} {port} < /dev/null", 1, "")}
        outcome = attack(shared, attacks)
        reached = list(peers)
    shared.git("checkout", "--quiet", "--", ".lyra.toml")
    *_, results = sorted((shared.root / ".lyra" / "runs").glob("*/tests.json"))
    checks = json.loads(results.read_text())["checks"]
    assert len(checks) == len(attacks), outcome.text
    problems = {check["name"]: check["message"] for check in checks}
    return problems | {CALLING_HOME: problems[CALLING_HOME] or f"{reached or ''}"}


@pytest.mark.parametrize("name", [*ATTACKS, CALLING_HOME])
def test_attack_from_inside_fails(attacked: dict[str, str], name: str) -> None:
    assert attacked[name] == ""


def test_egress_needs_deviation(shared: Project) -> None:
    shared.replace(".lyra.toml", "ports = { http = 8080 }\n", "ports = { http = 8080 }\negress = true\n")
    page = f"{find_mirror().rstrip('/')}/dists/{host_codename()}/InRelease"
    calls = {"calling out": (f"{BUSYBOX} wget -q -O - {page}", 0, "Hash: ")}
    refused = attack(shared, calls)
    assert refused.code == 5, refused.text
    assert "container.egress" in refused.err
    with (shared.root / ".lyra.toml").open("a") as file:
        file.write("[[deviations]]\nrule = 'container.egress'\nscope = 'services.web'\n")
        file.write("reason = 'asks a page of the package mirror'\nowner = 'ada'\nexpires = 2999-12-31\n")
    allowed = shared.lyra("build", "test", "--only", "calling out", "--only", "the page is there")
    assert allowed.code == 0, allowed.text
    shared.git("checkout", "--quiet", "--", ".lyra.toml")
