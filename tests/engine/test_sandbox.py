"""A private engine of our own: it starts from nothing, runs containers under limits, and leaves nothing."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import docker
import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.debian import AptWorkspace, host_codename, unpack
from lyra_tasks.engine.sandbox import Sandbox, cgroups, layout
from lyra_tasks.errors import EngineUnavailableError, PreconditionError, UsageError

CACHE = Path(os.environ.get("LYRA_TEST_CACHE") or Path.home() / ".cache" / "lyra")
MEBIBYTE = 1024**2
IMAGE = "busybox:test"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a sandbox engine needs root")


def silent(_: str) -> None:
    """No progress in tests."""


def up(state: Path, **options: Any) -> Sandbox:
    return sandbox.up(state, cache=CACHE, progress=silent, **options)


def client_of(engine: Sandbox) -> docker.DockerClient:
    return docker.DockerClient(base_url=f"unix://{engine.socket}", timeout=30)


@dataclass(frozen=True)
class Traces:
    """What an engine could leave on the machine. Others may work on it too, so only what bears our name is kept."""

    mounts: str
    rules: str
    settings: tuple[tuple[str, int], ...]
    ours: tuple[str, ...]


def traces(state: Path) -> Traces:
    name = layout.places_of(state).name
    cmdlines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    ours = [repr(line) for line in cmdlines if name.encode() in line or os.fsencode(state) in line]
    ours += [str(tree.path / name) for tree in cgroups.trees() if (tree.path / name).exists()]
    ours += [str(path) for path in Path("/run").iterdir() if path.name == name or not path.name.startswith("lyra-")]
    settings = [path for folder in ("/etc", "/var/lib", "/run/mount") for path in Path(folder).glob("*")]
    return Traces(
        mounts=Path("/proc/self/mounts").read_text(),
        rules=rules(),
        settings=tuple(sorted((str(path), path.lstat().st_mtime_ns) for path in settings)),
        ours=tuple(sorted(ours)),
    )


def rules() -> str:
    """The machine's own packet filter, without counters and comments."""
    engine = CACHE.absolute() / "engines" / "trixie"
    environment = {"PATH": "/bin", "LD_LIBRARY_PATH": str(engine / "lib"), "XTABLES_LIBDIR": str(engine / "xtables")}
    command = [engine / "bin" / "iptables-save"]
    text = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return re.sub(r"(?m)^#.*\n|\[\d+:\d+\]", "", text)


@pytest.fixture(scope="module")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A root file system with one static program, as a tar archive."""
    folder = tmp_path_factory.mktemp("busybox")
    workspace = AptWorkspace(CACHE / "apt", (host_codename(),))
    workspace.update()
    unpack(workspace.download([f"busybox-static/{host_codename()}"], folder / "debs", silent), folder / "root")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(next((folder / "root").glob("**/bin/busybox")), "bin/busybox")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, busybox: bytes) -> Iterator[Sandbox]:
    """A running sandbox in a folder whose path nobody would choose, with an image in it."""
    state = tmp_path_factory.mktemp("a b,c:d") / "state"
    running = up(state, memory=512 * MEBIBYTE, cpus=1.5)
    repository, tag = IMAGE.split(":")
    client_of(running).api.import_image_from_data(busybox, repository=repository, tag=tag)
    yield running
    sandbox.down(state, purge=True)


@pytest.fixture(scope="module")
def website(engine: Sandbox) -> Iterator[str]:
    """A container that publishes a port; its address as this machine sees it."""
    client = client_of(engine)
    command = ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/bin"]
    container = client.containers.run(IMAGE, command, detach=True, ports={"8080/tcp": None}, mem_limit="16m")
    container.reload()
    published = container.ports["8080/tcp"]
    assert published
    yield f"{engine.address}:{published[0]['HostPort']}"
    container.remove(force=True, v=True)


def gateway_of(engine: Sandbox) -> str:
    """This machine's end of the link to a sandbox."""
    return str(IPv4Address(engine.address) - 1)


def reach(engine: Sandbox, host: str, port: int) -> str:
    """What a container hears when it connects somewhere."""
    return heard(engine, ["nc", host, str(port), "-e", "/bin/busybox", "echo", "hi"])


def heard(engine: Sandbox, words: list[str]) -> str:
    """The output of a busybox command in a container of the sandbox, cut off after some seconds."""
    command = ["/bin/busybox", "timeout", "5", "/bin/busybox", *words]
    container = client_of(engine).containers.run(IMAGE, command, detach=True, init=True)
    try:
        container.wait(timeout=20)
        return container.logs().decode()
    finally:
        container.remove(force=True)


def test_nothing_is_left_after_an_engine_ran_a_container_and_ended(tmp_path: Path, busybox: bytes) -> None:
    state = tmp_path / "with blank"
    before = traces(state)
    engine = up(state)
    link = layout.read_record(layout.places_of(state))
    assert link is not None
    client = client_of(engine)
    assert client.version()["Version"].startswith("26.1")
    client.api.import_image_from_data(busybox, repository="busybox", tag="test")
    sleeper = client.containers.run(IMAGE, ["/bin/busybox", "sleep", "600"], detach=True, ports={"80/tcp": None})
    client.networks.create("another")
    assert sleeper.status == "created"
    during = traces(state)
    assert during.ours != before.ours
    assert Path("/sys/class/net", link.link).exists()
    started = time.monotonic()
    report = sandbox.down(state)
    # The sleeper ignores a polite signal, and the daemon would give it five seconds.
    assert time.monotonic() - started < 5
    assert (report.was_running, report.killed, report.left) == (True, False, ())
    assert traces(state) == before
    assert not Path("/sys/class/net", link.link).exists()
    assert not Path(f"/proc/{engine.pid}").exists()
    assert sandbox.find(state) is None
    again = up(state)
    assert IMAGE in client_of(again).images.list()[0].tags
    assert sandbox.down(state, purge=True).purged
    assert [path.name for path in state.iterdir()] == ["sandbox.lock"]
    assert traces(state) == before


def test_a_container_runs_within_its_limit_and_the_engine_within_its_own(engine: Sandbox) -> None:
    client = client_of(engine)
    container = client.containers.run(IMAGE, ["/bin/busybox", "sleep", "600"], detach=True, mem_limit="16m")
    try:
        groups = Path("/sys/fs/cgroup").glob(f"**{engine.cgroup}/{container.id}/memory.*")
        values = {path.read_text().strip() for path in groups if path.name in {"memory.limit_in_bytes", "memory.max"}}
        assert values == {str(16 * MEBIBYTE)}
    finally:
        container.remove(force=True)
    tree = next(tree for tree in cgroups.trees() if "memory" in tree.controllers)
    for file, value in cgroups.limits(tree, 512 * MEBIBYTE, None).items():
        if (tree.path / engine.name / file).exists():
            assert (tree.path / engine.name / file).read_text().strip() == value
    children = Path(f"/proc/{engine.pid}/task/{engine.pid}/children").read_text().split()
    for pid in (str(engine.pid), *children):
        assert f"{engine.cgroup}/daemon" in Path(f"/proc/{pid}/cgroup").read_text()


def test_a_published_port_answers_on_this_machine(website: str) -> None:
    with urllib.request.urlopen(f"http://{website}/busybox", timeout=5) as answer:
        assert answer.status == 200


def test_nothing_in_the_sandbox_opens_a_connection_to_this_machine(engine: Sandbox) -> None:
    gateway = gateway_of(engine)
    with socket.create_server((gateway, 0)) as listener:
        port = listener.getsockname()[1]
        socket.create_connection((gateway, port), timeout=5).close()
        assert "refused" in reach(engine, gateway, port)
        inside = [sys.executable, "-c", f"import socket; socket.create_connection(('{gateway}', {port}), 5)"]
        assert "ConnectionRefusedError" in sandbox.exec_in_network(engine, inside).stderr


def test_what_lies_outside_is_refused_at_once_every_time(engine: Sandbox) -> None:
    connect = "for n in $(/bin/busybox seq 12); do /bin/busybox nc 192.0.2.1 80; done"
    assert heard(engine, ["sh", "-c", connect]).count("refused") == 12
    # A look-up by UDP is refused by other means, which the kernel would send once a second only.
    ask = "for n in $(/bin/busybox seq 12); do /bin/busybox nslookup x.example 192.0.2.1; done"
    assert heard(engine, ["sh", "-c", ask]).count("Connection refused") == 12


def test_a_container_cannot_go_through_published_ports_of_others(engine: Sandbox, website: str) -> None:
    host, port = website.split(":")
    assert "refused" in reach(engine, host, int(port))
    bridge = client_of(engine).networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
    assert "refused" in reach(engine, bridge, int(port))


def test_only_this_machines_end_of_the_link_comes_in(engine: Sandbox, website: str) -> None:
    host, port = website.split(":")
    record = layout.read_record(layout.places_of(engine.state))
    assert record is not None
    ip = str(engine.docker.parent.parent / "bin" / "ip")
    environment = {"PATH": "/bin", "LD_LIBRARY_PATH": str(engine.docker.parent.parent / "lib")}
    stranger = "198.51.100.77"
    route = ["route", "add", f"{stranger}/32", "via", gateway_of(engine)]
    inside = ["nsenter", f"--net=/proc/{engine.pid}/ns/net", "--", ip, *route]
    subprocess.run([ip, "address", "add", f"{stranger}/32", "dev", record.link], env=environment, check=True)
    subprocess.run(inside, env=environment, check=True)
    with pytest.raises(OSError, match="timed out"):
        socket.create_connection((host, int(port)), timeout=1.5, source_address=(stranger, 0))


def test_a_lookup_fails_at_once(engine: Sandbox) -> None:
    client = client_of(engine)
    network = client.networks.create("names")
    script = ["/bin/busybox", "timeout", "4", "/bin/busybox", "nslookup", "example.org"]
    container = client.containers.run(IMAGE, script, detach=True, init=True, network="names")
    try:
        container.wait(timeout=20)
        assert "SERVFAIL" in container.logs().decode()
        resolver = client.containers.run(
            IMAGE, ["/bin/busybox", "grep", "^nameserver", "/etc/resolv.conf"], remove=True
        )
        assert resolver == b"nameserver 127.0.0.1\n"
    finally:
        container.remove(force=True)
        network.remove()


def test_the_command_line_client_finds_engine_buildx_and_compose(engine: Sandbox) -> None:
    environment = engine.environment()
    for words in (["info", "--format", "{{.Name}}"], ["buildx", "ls"], ["compose", "version"]):
        result = subprocess.run([str(engine.docker), *words], env=environment, capture_output=True, check=False)
        assert result.returncode == 0, result.stderr
    assert environment["DOCKER_HOST"] == f"unix://{engine.socket}"


def test_a_later_process_finds_the_running_engine_and_up_returns_it(engine: Sandbox) -> None:
    script = (
        "import sys, json; from pathlib import Path; from lyra_tasks.engine import sandbox;"
        f"s = sandbox.find(Path({str(engine.state)!r})); print(json.dumps([s.pid, s.address]));"
        "sys.exit('docker' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert json.loads(result.stdout) == [engine.pid, engine.address]
    assert up(engine.state) == engine


def test_another_suite_or_store_is_refused_while_one_runs(engine: Sandbox) -> None:
    with pytest.raises(PreconditionError, match="runs already"):
        up(engine.state, store="graph")
    with pytest.raises(UsageError, match="no containerd store"):
        up(engine.state, suite="bookworm", store="containerd")


def test_two_engines_run_beside_each_other(engine: Sandbox, website: str, tmp_path: Path) -> None:
    other = up(tmp_path, store="graph")
    try:
        assert other.address != engine.address
        assert client_of(other).info()["Driver"] == "overlay2"
        assert client_of(other).containers.list() == []
    finally:
        sandbox.down(tmp_path)
    with urllib.request.urlopen(f"http://{website}/busybox", timeout=5) as answer:
        assert answer.status == 200


def test_two_starts_at_once_return_the_same_engine(tmp_path: Path) -> None:
    barrier = threading.Barrier(2)

    def start(_: int) -> Sandbox:
        barrier.wait()
        return up(tmp_path)

    try:
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(start, range(2))
        assert first == second
    finally:
        sandbox.down(tmp_path)


def test_the_engine_outlives_its_starter_and_holds_none_of_its_pipes(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from lyra_tasks.engine import sandbox;"
        f"print(sandbox.up(Path({str(tmp_path)!r}), cache=Path({str(CACHE)!r})).pid)"
    )
    try:
        # `run` returns only when nobody holds the other end of its pipes any more.
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
        running = sandbox.find(tmp_path)
        assert running is not None
        assert running.pid == int(result.stdout)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in children]
        assert environments
        assert not any(b"DOCKER_" in environment for environment in environments)
    finally:
        sandbox.down(tmp_path)


def test_a_start_that_fails_half_way_leaves_nothing_and_shows_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = traces(tmp_path)
    monkeypatch.setattr("lyra_tasks.engine.sandbox.start.daemon_config", lambda plan: {"no-such-key": True})
    with pytest.raises(EngineUnavailableError, match="did not start") as fault:
        up(tmp_path)
    assert any("no-such-key" in line for line in fault.value.details)
    assert traces(tmp_path) == before
    assert sandbox.find(tmp_path) is None


def test_a_starter_that_is_killed_before_the_daemon_starts_leaves_no_process(tmp_path: Path) -> None:
    script = (
        "import os, signal; from pathlib import Path; from lyra_tasks.engine.sandbox import start;"
        "start.write_record = lambda *_: os.kill(os.getpid(), signal.SIGKILL);"
        f"start.up(Path({str(tmp_path)!r}), cache=Path({str(CACHE)!r}))"
    )
    before = traces(tmp_path)
    result = subprocess.run([sys.executable, "-c", script], check=False)
    assert result.returncode == -9
    assert sandbox.find(tmp_path) is None
    assert sandbox.down(tmp_path).left == ()
    assert traces(tmp_path) == before


def test_what_a_killed_engine_left_is_cleared(tmp_path: Path) -> None:
    before = traces(tmp_path)
    engine = up(tmp_path)
    os.kill(engine.pid, 9)
    for _ in range(100):
        if sandbox.find(tmp_path) is None:
            break
        time.sleep(0.05)
    report = sandbox.down(tmp_path, purge=True)
    assert (report.was_running, report.left) == (False, ())
    assert traces(tmp_path) == before


def test_ending_what_never_ran_is_no_error(tmp_path: Path) -> None:
    assert not sandbox.down(tmp_path / "nothing").was_running
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("prefix", "path", "said"),
    [
        (["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"], os.environ["PATH"], "needs root"),
        ([], "/nonexistent", "has no apt-get"),
    ],
)
def test_where_there_can_be_no_engine_the_fault_names_the_choices(
    tmp_path: Path, prefix: list[str], path: str, said: str
) -> None:
    script = (
        "from pathlib import Path; from lyra_tasks.engine import sandbox; from lyra_tasks.errors import *\n"
        f"try: sandbox.up(Path('{tmp_path}/state'), cache=Path('{tmp_path}/cache'))\n"
        "except EngineUnavailableError as fault: print(fault.message, '|', fault.hint)"
    )
    executable = str(Path(sys.executable).resolve())
    environment = {"PATH": path, "PYTHONPATH": ":".join((str(Path.cwd()), *sys.path))}
    command = [*prefix, executable, "-c", script]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert said in result.stdout, result.stderr
    for choice in ("[engine] context", "root", "Debian or Ubuntu"):
        assert choice in result.stdout
