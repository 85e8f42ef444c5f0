"""The sandbox's network: builds and services with egress get out, nothing gets to this machine."""

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
    heard,
    import_busybox,
    reach,
    traces,
    up,
    website,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a sandbox engine needs root")
OUTSIDE = "192.0.2.1"  # reserved for documentation: nobody has it
TWELVE = "for n in $(/bin/busybox seq 12); do"


@pytest.fixture(scope="module")
def engine(box: Sandbox, busybox: Path) -> Iterator[Sandbox]:
    """The session's sandbox with an image in it."""
    import_busybox(box, busybox)
    yield box
    client_of(box).images.remove(IMAGE, force=True)


@pytest.fixture(scope="module")
def edge(engine: Sandbox) -> Iterator[str]:
    """A network as services with ports have it: what is published answers, nothing gets out."""
    made = client_of(engine).networks.create(
        "edge", options={"com.docker.network.bridge.enable_ip_masquerade": "false"}
    )
    yield "edge"
    made.remove()


def index() -> str:
    """A page on the way to which both a look-up and a connection are needed, wherever this machine's packages are."""
    return f"{find_mirror().rstrip('/')}/dists/{host_codename()}/InRelease"


def fetched(engine: Sandbox, **options: str) -> str:
    """What a container hears when it asks the package mirror."""
    return heard(engine, ["sh", "-c", f"/bin/busybox wget -O - {index()} | /bin/busybox head -c 100"], **options)


def test_an_ordinary_network_has_a_way_out(engine: Sandbox) -> None:
    assert "Hash: " in fetched(engine)


def test_a_build_has_a_way_out(engine: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        f'FROM {IMAGE}\nARG INDEX\nRUN ["/bin/busybox", "sh", "-c", "/bin/busybox wget -O /index $INDEX"]\n'
    )
    words = ["buildx", "build", "--no-cache", f"--build-arg=INDEX={index()}", "--output=type=cacheonly", str(tmp_path)]
    result = subprocess.run([engine.docker, *words], env=engine.environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_network_without_masquerading_has_none(engine: Sandbox, edge: str) -> None:
    assert "bad address" in fetched(engine, network=edge)
    assert "refused" in reach(engine, network.RESOLVER_ADDRESS, 53, network=edge)


def test_what_may_not_leave_is_refused_at_once_every_time(engine: Sandbox, edge: str) -> None:
    connect = f"{TWELVE} /bin/busybox nc {OUTSIDE} 80; done"
    assert heard(engine, ["sh", "-c", connect], network=edge).count("refused") == 12
    # A look-up by UDP is refused by other means, which the kernel would send once a second only.
    ask = f"{TWELVE} /bin/busybox nslookup x.example {network.RESOLVER_ADDRESS}; done"
    assert heard(engine, ["sh", "-c", ask], network=edge).count("Connection refused") == 12


def test_a_lookup_where_there_is_no_way_out_fails_at_once(engine: Sandbox, edge: str) -> None:
    if engine.suite == "bookworm":
        pytest.skip(
            "the resolver of Engine 20.10 says nothing where nobody answers it: programs wait as long as they like"
        )
    assert "SERVFAIL" in heard(engine, ["nslookup", "example.org"], network=edge)
    assert "SERVFAIL" in heard(engine, ["nslookup", "example.org"], network=edge, dns=["127.0.0.1"])


def own_addresses(engine: Sandbox) -> list[str]:
    """Every IPv4 address of this machine, and those by which the sandbox's inside calls it."""
    links = json.loads(run_ip(engine, ["-json", "-4", "address", "show"]))
    seen = [address["local"] for link in links for address in link["addr_info"] if link["ifname"] != "lo"]
    assert gateway_of(engine) in seen
    return [*seen, str(network.TAP_NETWORK[2]), network.RESOLVER_ADDRESS]


def test_nothing_inside_reaches_a_listener_of_this_machine_at_any_of_its_addresses(engine: Sandbox) -> None:
    addresses = own_addresses(engine)
    with socket.create_server(("0.0.0.0", 0)) as listener:
        listener.settimeout(0.1)
        port = listener.getsockname()[1]
        connect = f"for host in {' '.join(addresses)}; do /bin/busybox nc -w 2 $host {port}; done"
        assert heard(engine, ["sh", "-c", connect]).count("refused") == len(addresses)
        for address in addresses:
            inside = ["bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"]
            assert "refused" in sandbox.run_in_sandbox_network(engine, inside).stderr, address
        with pytest.raises(TimeoutError):
            listener.accept()
        socket.create_connection((gateway_of(engine), port), timeout=5).close()
        listener.accept()[0].close()


def test_nothing_inside_reaches_what_another_sandbox_publishes(engine: Sandbox, busybox: Path, tmp_path: Path) -> None:
    other = up(tmp_path)
    try:
        import_busybox(other, busybox)
        with website(other) as address:
            host, port = address.split(":")
            assert "refused" in reach(engine, host, int(port))
            assert "refused" in reach(engine, gateway_of(other), int(port))
    finally:
        sandbox.shut_down_sandbox(tmp_path, purge=True)


def test_without_the_program_that_leads_out_everything_is_refused_at_once(tmp_path: Path, busybox: Path) -> None:
    lonely = up(tmp_path)
    try:
        import_busybox(lonely, busybox)
        os.kill(slirp_of(lonely), signal.SIGKILL)
        time.sleep(0.2)
        assert "refused" in reach(lonely, OUTSIDE, 80)
        assert "Connection refused" in heard(lonely, ["nslookup", "example.org"])
    finally:
        sandbox.shut_down_sandbox(tmp_path, purge=True)


def slirp_of(engine: Sandbox) -> int:
    """The number of the sandbox's slirp4netns."""
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
from tests.engine.sandboxes import client_of, heard, import_busybox, reach, up
state, busybox = map(Path, sys.argv[1:])
try:
    engine = up(state)
    import_busybox(engine, busybox)
    print(reach(engine, "192.0.2.1", 80), heard(engine, ["nslookup", "example.org"]))
    started = time.monotonic()
    try:
        client_of(engine).images.pull("registry.example/nothing", "1")
    except Exception as fault:
        print(type(fault).__name__, time.monotonic() - started < 3)
finally:
    sandbox.down(state, purge=True)
"""


def test_on_a_machine_without_a_network_everything_is_refused_at_once(tmp_path: Path, busybox: Path) -> None:
    before = traces(tmp_path)
    words = ["unshare", "--net", sys.executable, "-c", SCRIPT, str(tmp_path), str(busybox)]
    environment = {**os.environ, "PYTHONPATH": ":".join((str(Path.cwd()), *sys.path))}
    result = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert result.stdout.count("refused") >= 2, result.stderr
    assert result.stdout.splitlines()[-1].endswith(" True")
    assert traces(tmp_path) == before


def test_a_container_cannot_go_through_published_ports_of_others(engine: Sandbox) -> None:
    bridge = client_of(engine).networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
    with website(engine) as address:
        host, port = address.split(":")
        assert "refused" in reach(engine, host, int(port))
        assert "refused" in reach(engine, bridge, int(port))


def test_only_this_machines_end_of_the_link_comes_in(engine: Sandbox) -> None:
    stranger = "198.51.100.77"
    with website(engine) as address, address_on_the_link(engine, stranger):
        host, port = address.split(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        with pytest.raises(OSError, match="timed out"):
            socket.create_connection((host, int(port)), timeout=1.5, source_address=(stranger, 0))


@contextmanager
def address_on_the_link(engine: Sandbox, address: str) -> Iterator[None]:
    """A second address of this machine on the link to the sandbox, which knows the way back to it."""
    record = layout.read_sandbox_record(layout.sandbox_paths(engine.state))
    assert record is not None
    inside = ["nsenter", f"--net=/proc/{engine.pid}/ns/net", "--"]
    run_ip(engine, ["address", "add", f"{address}/32", "dev", record.link])
    try:
        run_ip(engine, ["route", "add", f"{address}/32", "via", gateway_of(engine)], inside)
        yield
    finally:
        run_ip(engine, ["route", "delete", f"{address}/32"], inside)
        run_ip(engine, ["address", "delete", f"{address}/32", "dev", record.link])


def run_ip(engine: Sandbox, words: list[str], prefix: Sequence[str] = ()) -> str:
    """The output of the sandbox's own `ip`."""
    packages = engine.docker.parent.parent
    environment = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": str(packages / "lib")}
    command = [*prefix, str(packages / "bin" / "ip"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
