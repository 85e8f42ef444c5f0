"""The private engine: it starts, runs containers within limits, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from lyra_tasks.cleanup.run import end_sandbox
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.sandbox import Sandbox, cgroups, layout, network
from lyra_tasks.engine.sandbox.start import compute_shared_limits
from lyra_tasks.errors import EngineUnavailableError, PreconditionError, UsageError
from tests.engine.sandboxes import CACHE, IMAGE, HostState, client_of, host_state, import_busybox, up, website
from tests.faults import becomes

MEBIBYTE = 1024**2

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a private engine needs root")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Sandbox]:
    """Yield a running sandbox with an image, in a directory with an unusual path."""
    state = tmp_path_factory.mktemp("a b,c:d") / "state"
    running = up(state, memory=512 * MEBIBYTE, cpus=1.5)
    import_busybox(running, busybox)
    yield running
    sandbox.shut_down_sandbox(state, purge=True)


def find_interface(name: str) -> str | None:
    """Return the index of a network interface, which no other one gets."""
    path = Path("/sys/class/net", name, "ifindex")
    return path.read_text() if path.exists() else None


def test_sandbox_leaves_nothing_after_running_container(tmp_path: Path, busybox: Path) -> None:
    state = tmp_path / "with blank"
    before = host_state(state)
    engine = up(state)
    record = layout.read_sandbox_record(layout.SandboxPaths(state))
    assert record is not None
    client = client_of(engine)
    assert client.version()["Version"].startswith("26.1")
    import_busybox(engine, busybox)
    sleeper = client.containers.run(IMAGE, ["/bin/busybox", "sleep", "600"], detach=True, ports={"80/tcp": None})
    client.networks.create("another")
    assert sleeper.status == "created"
    during = host_state(state)
    assert any("slirp4netns" in line for line in during.ours)
    link = find_interface(record.link)
    assert link is not None
    started = time.monotonic()
    report = sandbox.shut_down_sandbox(state)
    # The container ignores SIGTERM, and the daemon would wait five seconds for it.
    assert time.monotonic() - started < 5
    assert (report.was_running, report.was_killed, report.leftovers) == (True, False, ())
    assert host_state(state) == before
    assert find_interface(record.link) != link, "another engine may have taken the name meanwhile"
    assert not Path(f"/proc/{engine.pid}").exists()
    assert sandbox.find_sandbox(state) is None
    again = up(state)
    assert IMAGE in client_of(again).images.list()[0].tags
    assert sandbox.shut_down_sandbox(state, purge=True).was_purged
    assert [path.name for path in state.iterdir()] == ["sandbox.lock"]
    assert host_state(state) == before


def test_container_and_engine_are_limited(engine: Sandbox) -> None:
    client = client_of(engine)
    container = client.containers.run(IMAGE, ["/bin/busybox", "sleep", "600"], detach=True, mem_limit="16m")
    try:
        groups = Path("/sys/fs/cgroup").glob(f"**/{engine.name}/{container.id}/memory.*")
        values = {path.read_text().strip() for path in groups if path.name in {"memory.limit_in_bytes", "memory.max"}}
        assert values == {str(16 * MEBIBYTE)}
    finally:
        container.remove(force=True)
    tree = next(tree for tree in cgroups.list_cgroup_trees() if "memory" in tree.controllers)
    for file, value in cgroups.cgroup_limit_files(tree, 512 * MEBIBYTE, None).items():
        if (tree.path / engine.name / file).exists():
            assert (tree.path / engine.name / file).read_text().strip() == value
    children = Path(f"/proc/{engine.pid}/task/{engine.pid}/children").read_text().split()
    for pid in (str(engine.pid), *children):
        assert f"/{engine.name}/daemon" in Path(f"/proc/{pid}/cgroup").read_text()


def test_steps_of_a_build_are_within_the_limits_of_the_engine(engine: Sandbox, busybox: Path, tmp_path: Path) -> None:
    def build(step: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "Dockerfile").write_text(f'FROM scratch\nCOPY busybox /bin/\nRUN ["/bin/busybox", {step}]\n')
        return subprocess.run(
            [str(engine.docker), "build", "--no-cache", "--progress=plain", str(tmp_path)],
            env={**os.environ, **engine.environment()}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    shutil.copy(busybox / "busybox", tmp_path / "busybox")
    greedy = build('"dd", "if=/dev/zero", "of=/dev/null", "bs=900M", "count=1"')
    assert greedy.returncode != 0 and "137" in greedy.stderr, greedy.stderr
    modest = build('"dd", "if=/dev/zero", "of=/dev/null", "bs=9M", "count=1"')
    assert modest.returncode == 0, f"the engine did not survive: {modest.stderr}"


def test_published_port_answers_on_machine(engine: Sandbox) -> None:
    with website(engine) as address, urllib.request.urlopen(f"http://{address}/busybox", timeout=5) as answer:
        assert answer.status == 200


def test_client_finds_engine_buildx_and_compose(engine: Sandbox) -> None:
    environment = engine.environment()
    for arguments in (["info", "--format", "{{.Name}}"], ["buildx", "ls"], ["compose", "version"]):
        result = subprocess.run([str(engine.docker), *arguments], env=environment, capture_output=True, check=False)
        assert result.returncode == 0, result.stderr
    assert environment["DOCKER_HOST"] == f"unix://{engine.socket}"


def test_running_sandbox_is_found_by_other_process(engine: Sandbox) -> None:
    script = (
        "import sys, json; from pathlib import Path; from lyra_tasks.engine import sandbox;"
        f"s = sandbox.find_sandbox(Path({str(engine.state)!r})); print(json.dumps([s.pid, s.address]));"
        "sys.exit('docker' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert json.loads(result.stdout) == [engine.pid, engine.address]
    assert up(engine.state) == engine


def test_other_suite_or_store_is_refused_while_running(engine: Sandbox) -> None:
    with pytest.raises(PreconditionError, match="already running"):
        up(engine.state, store="graph")
    with pytest.raises(UsageError, match="no containerd store"):
        up(engine.state, suite="bookworm", store="containerd")


def test_concurrent_starts_return_same_sandbox_beside_another(engine: Sandbox, tmp_path: Path) -> None:
    barrier = threading.Barrier(2)

    def start(_: int) -> Sandbox:
        barrier.wait()
        return up(tmp_path, store="graph")

    with website(engine) as address:
        try:
            with ThreadPoolExecutor(2) as pool:
                first, second = pool.map(start, range(2))
            assert first == second
            assert first.address != engine.address
            assert client_of(first).info()["Driver"] == "overlay2"
            assert client_of(first).containers.list() == []
        finally:
            sandbox.shut_down_sandbox(tmp_path)
        with urllib.request.urlopen(f"http://{address}/busybox", timeout=5) as answer:
            assert answer.status == 200


@dataclass(frozen=True)
class Orphan:
    """A sandbox whose starter has ended, what that printed, and the state of the machine before."""

    state: Path
    output: str
    before: HostState

    @property
    def pid(self) -> int:
        """Return the process id of the running sandbox."""
        running = sandbox.find_sandbox(self.state)
        assert running is not None
        return running.pid


@pytest.fixture(scope="module")
def orphan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orphan]:
    """A sandbox with half of the machine that another process has started."""
    state = tmp_path_factory.mktemp("orphan")
    before = host_state(state)
    script = (
        "from pathlib import Path; from lyra_tasks.engine import sandbox;"
        f"print(sandbox.launch_sandbox(Path({str(state)!r}), cache=Path({str(CACHE)!r}), host_share=0.5).pid)"
    )
    try:
        # `run` returns only when no process has the other end of its pipes.
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
        yield Orphan(state, result.stdout, before)
    finally:
        sandbox.shut_down_sandbox(state, purge=True)


def test_sandbox_outlives_starter_and_its_pipes(orphan: Orphan) -> None:
    assert orphan.pid == int(orphan.output)
    children = Path(f"/proc/{orphan.pid}/task/{orphan.pid}/children").read_text().split()
    environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in children]
    assert environments
    assert not any(b"DOCKER_" in environment for environment in environments)


def test_engine_takes_its_share_of_the_machine(orphan: Orphan) -> None:
    record = layout.read_sandbox_record(layout.SandboxPaths(orphan.state))
    assert record is not None and record.pid == orphan.pid
    assert (record.memory, record.cpus) == compute_shared_limits(0.5)


def test_leftovers_of_killed_sandbox_are_removed(orphan: Orphan) -> None:
    os.kill(orphan.pid, 9)
    assert becomes(lambda: sandbox.find_sandbox(orphan.state) is None)
    report = sandbox.shut_down_sandbox(orphan.state, purge=True)
    assert (report.was_running, report.leftovers) == (False, ())
    assert host_state(orphan.state) == orphan.before


def test_failed_start_leaves_nothing_and_shows_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = host_state(tmp_path)
    monkeypatch.setattr("lyra_tasks.engine.sandbox.start.create_daemon_config", lambda plan: {"no-such-key": True})
    with pytest.raises(EngineUnavailableError, match="did not start") as error:
        up(tmp_path)
    assert any("no-such-key" in line for line in error.value.details)
    assert host_state(tmp_path) == before
    assert sandbox.find_sandbox(tmp_path) is None


def test_killed_starter_leaves_no_process(tmp_path: Path) -> None:
    script = (
        "import os, signal; from pathlib import Path; from lyra_tasks.engine.sandbox import start;"
        "start.write_sandbox_record = lambda *_: os.kill(os.getpid(), signal.SIGKILL);"
        f"start.launch_sandbox(Path({str(tmp_path)!r}), cache=Path({str(CACHE)!r}))"
    )
    before = host_state(tmp_path)
    result = subprocess.run([sys.executable, "-c", script], check=False)
    assert result.returncode == -9
    assert sandbox.find_sandbox(tmp_path) is None
    assert sandbox.shut_down_sandbox(tmp_path).leftovers == ()
    assert host_state(tmp_path) == before


def test_interface_of_other_sandbox_is_kept(engine: Sandbox) -> None:
    record = layout.read_sandbox_record(layout.SandboxPaths(engine.state))
    assert record is not None
    network.remove_uplink(layout.SandboxPaths(engine.state).engine, record.link, "lyra-0123456789")
    assert Path("/sys/class/net", record.link).exists()


def test_undeletable_data_is_reported(tmp_path: Path) -> None:
    busy = tmp_path / "sandbox" / "data" / "busy"
    busy.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(busy)], check=True)
    try:
        (leftover,) = end_sandbox(tmp_path, purge=True)
    finally:
        subprocess.run(["umount", str(busy)], check=True)
    assert (leftover.kind, leftover.name) == ("directory", str(tmp_path / "sandbox"))
    assert end_sandbox(tmp_path, purge=True) == [] and not busy.parents[1].exists()


def test_stopping_missing_sandbox_is_no_error(tmp_path: Path) -> None:
    assert not sandbox.shut_down_sandbox(tmp_path / "nothing").was_running
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("prefix", "path", "expected"),
    [
        (["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"], os.environ["PATH"], "needs root"),
        ([], "/nonexistent", "apt-get"),
    ],
)
def test_impossible_sandbox_is_reported_with_choices(
    tmp_path: Path, prefix: list[str], path: str, expected: str
) -> None:
    script = (
        "from pathlib import Path; from lyra_tasks.engine import sandbox; from lyra_tasks.errors import *\n"
        f"try: sandbox.launch_sandbox(Path('{tmp_path}/state'), cache=Path('{tmp_path}/cache'))\n"
        "except EngineUnavailableError as error: print(error.message, '|', error.hint)"
    )
    executable = str(Path(sys.executable).resolve())
    environment = {"PATH": path, "PYTHONPATH": ":".join((str(Path.cwd()), *sys.path))}
    command = [*prefix, executable, "-c", script]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert expected in result.stdout, result.stderr
    for choice in ("[engine] context", "root", "Debian or Ubuntu"):
        assert choice in result.stdout
