"""The sandbox network: builds and services with egress reach the outside, and nothing reaches this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.debian.mirror import find_mirror, host_codename
from lyra_tasks.engine.sandbox import Sandbox, layout, network
from tests.engine.sandboxes import (
    IMAGE,
    client_of,
    gateway_of,
    host_state,
    import_busybox,
    reach,
    run_busybox,
    up,
    website,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a private engine needs root")
OUTSIDE = "192.0.2.1"  # reserved for documentation
TWELVE = "for n in $(/bin/busybox seq 12); do"


@pytest.fixture(scope="module")
def engine(box: Sandbox, busybox: Path) -> Iterator[Sandbox]:
    """Yield the session's sandbox with an image."""
    import_busybox(box, busybox)
    yield box
    client_of(box).images.remove(IMAGE, force=True)


@pytest.fixture(scope="module")
def edge(engine: Sandbox) -> Iterator[str]:
    """Yield a network like that of services with ports: reachable from outside, without outside access."""
    network = client_of(engine).networks.create(
        "edge", options={"com.docker.network.bridge.enable_ip_masquerade": "false"}
    )
    yield "edge"
    network.remove()


def index_url() -> str:
    """Return a URL of the package mirror, which needs a lookup and a connection."""
    return f"{find_mirror().rstrip('/')}/dists/{host_codename()}/InRelease"


def fetch_index(engine: Sandbox, **options: str) -> str:
    """Fetch the index of the package mirror in a container and return the output."""
    return run_busybox(
        engine, ["sh", "-c", f"/bin/busybox wget -O - {index_url()} | /bin/busybox head -c 100"], **options
    )


def test_default_network_reaches_outside(engine: Sandbox) -> None:
    assert "Hash: " in fetch_index(engine)


def test_build_reaches_outside(engine: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        f'FROM {IMAGE}\nARG INDEX\nRUN ["/bin/busybox", "sh", "-c", "/bin/busybox wget -O /index $INDEX"]\n'
    )
    arguments = [
        "buildx",
        "build",
        "--no-cache",
        f"--build-arg=INDEX={index_url()}",
        "--output=type=cacheonly",
        str(tmp_path),
    ]
    result = subprocess.run([engine.docker, *arguments], env=engine.environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_unmasqueraded_network_does_not_reach_outside(engine: Sandbox, edge: str) -> None:
    assert "bad address" in fetch_index(engine, network=edge)
    assert "refused" in reach(engine, network.RESOLVER_ADDRESS, 53, network=edge)


def test_blocked_connections_are_rejected_at_once(engine: Sandbox, edge: str) -> None:
    connect = f"{TWELVE} /bin/busybox nc {OUTSIDE} 80; done"
    assert run_busybox(engine, ["sh", "-c", connect], network=edge).count("refused") == 12
    # UDP lookups are rejected by ICMP, which the kernel would limit to one per second.
    lookup = f"{TWELVE} /bin/busybox nslookup x.example {network.RESOLVER_ADDRESS}; done"
    assert run_busybox(engine, ["sh", "-c", lookup], network=edge).count("Connection refused") == 12


def test_lookup_without_outside_access_fails_at_once(engine: Sandbox, edge: str) -> None:
    if engine.suite == "bookworm":
        pytest.skip(
            "the resolver of Engine 20.10 does not report a failed lookup, so programs wait for their own timeout"
        )
    assert "SERVFAIL" in run_busybox(engine, ["nslookup", "example.org"], network=edge)
    assert "SERVFAIL" in run_busybox(engine, ["nslookup", "example.org"], network=edge, dns=["127.0.0.1"])


def own_addresses(engine: Sandbox) -> list[str]:
    """Return all IPv4 addresses of this machine, and those by which it is known in the sandbox."""
    links = json.loads(run_ip(engine, ["-json", "-4", "address", "show"]))
    addresses = [address["local"] for link in links for address in link["addr_info"] if link["ifname"] != "lo"]
    assert gateway_of(engine) in addresses
    return [*addresses, str(network.TAP_NETWORK[2]), network.RESOLVER_ADDRESS]


def test_containers_cannot_reach_machine(engine: Sandbox) -> None:
    addresses = own_addresses(engine)
    with socket.create_server(("0.0.0.0", 0)) as listener:
        listener.settimeout(0.1)
        port = listener.getsockname()[1]
        connect = f"for host in {' '.join(addresses)}; do /bin/busybox nc -w 2 $host {port}; done"
        assert run_busybox(engine, ["sh", "-c", connect]).count("refused") == len(addresses)
        for address in addresses:
            inside = ["bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"]
            assert "refused" in sandbox.run_in_sandbox_network(engine, inside).stderr, address
        with pytest.raises(TimeoutError):
            listener.accept()
        socket.create_connection((gateway_of(engine), port), timeout=5).close()
        listener.accept()[0].close()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Sandbox]:
    """Yield another sandbox with an image, which the last of its tests cuts off."""
    state = tmp_path_factory.mktemp("other")
    other = up(state)
    try:
        import_busybox(other, busybox)
        yield other
    finally:
        sandbox.shut_down_sandbox(state, purge=True)


def test_containers_cannot_reach_other_sandbox(engine: Sandbox, other: Sandbox) -> None:
    with website(other) as address:
        host, port = address.split(":")
        assert "refused" in reach(engine, host, int(port))
        assert "refused" in reach(engine, gateway_of(other), int(port))


def test_missing_slirp_rejects_everything_at_once(other: Sandbox) -> None:
    os.kill(slirp_of(other), signal.SIGKILL)
    time.sleep(0.2)
    assert "refused" in reach(other, OUTSIDE, 80)
    assert "Connection refused" in run_busybox(other, ["nslookup", "example.org"])


def slirp_of(engine: Sandbox) -> int:
    """Return the process id of the sandbox's slirp4netns."""
    (pid,) = (
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists() and b"slirp4netns" in (line := path.read_bytes()) and engine.name.encode() in line
    )
    return pid


SCRIPT = """
import sys, time
from pathlib import Path
from lyra_tasks.engine import sandbox
from tests.engine.sandboxes import client_of, import_busybox, reach, run_busybox, up
state, busybox = map(Path, sys.argv[1:])
try:
    engine = up(state)
    import_busybox(engine, busybox)
    print(reach(engine, "192.0.2.1", 80), run_busybox(engine, ["nslookup", "example.org"]))
    started = time.monotonic()
    try:
        client_of(engine).images.pull("registry.example/nothing", "1")
    except Exception as error:
        print(type(error).__name__, time.monotonic() - started < 3)
finally:
    sandbox.shut_down_sandbox(state, purge=True)
"""


def test_machine_without_network_rejects_everything(tmp_path: Path, busybox: Path) -> None:
    before = host_state(tmp_path)
    command = ["unshare", "--net", sys.executable, "-c", SCRIPT, str(tmp_path), str(busybox)]
    environment = {**os.environ, "PYTHONPATH": ":".join((str(Path.cwd()), *sys.path))}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.stdout.count("refused") >= 2, result.stderr
    assert result.stdout.splitlines()[-1].endswith(" True")
    assert host_state(tmp_path) == before


def test_containers_cannot_reach_published_ports(engine: Sandbox) -> None:
    bridge = client_of(engine).networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
    with website(engine) as address:
        host, port = address.split(":")
        assert "refused" in reach(engine, host, int(port))
        assert "refused" in reach(engine, bridge, int(port))


def test_only_gateway_address_can_connect(engine: Sandbox) -> None:
    other_address = "198.51.100.77"
    with website(engine) as address, address_on_the_link(engine, other_address):
        host, port = address.split(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        with pytest.raises(OSError, match="timed out"):
            socket.create_connection((host, int(port)), timeout=1.5, source_address=(other_address, 0))


@contextmanager
def address_on_the_link(engine: Sandbox, address: str) -> Iterator[None]:
    """Add a second address of this machine to the link, with a route in the sandbox."""
    record = layout.read_sandbox_record(layout.SandboxPaths(engine.state))
    assert record is not None
    inside = ["nsenter", f"--net=/proc/{engine.pid}/ns/net", "--"]
    run_ip(engine, ["address", "add", f"{address}/32", "dev", record.link])
    try:
        run_ip(engine, ["route", "add", f"{address}/32", "via", gateway_of(engine)], inside)
        yield
    finally:
        run_ip(engine, ["route", "delete", f"{address}/32"], inside)
        run_ip(engine, ["address", "delete", f"{address}/32", "dev", record.link])


def run_ip(engine: Sandbox, arguments: list[str], prefix: Sequence[str] = ()) -> str:
    """Run the sandbox's `ip` and return its output."""
    packages = engine.docker.parent.parent
    environment = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": str(packages / "lib")}
    command = [*prefix, str(packages / "bin" / "ip"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
