"""Whatever a service prints, each command takes a bounded amount of memory, and a log a bounded size."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Project
from tests.thorough import keep_named

MAX_MEMORY_BYTES = 125_000_000
FLOODS = {
    "empty lines": "/bin/busybox yes ''",
    "one endless line": "/bin/busybox cat /dev/zero | /bin/busybox tr '\\\\000' x",
    "binary": "/bin/busybox cat /dev/urandom",
}


MEASURE = """
import os, subprocess, sys, time
seconds, *command = sys.argv[1:]
process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
if seconds:
    time.sleep(float(seconds))
    process.terminate()
_, status, usage = os.wait4(process.pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)
"""
"""A small process: the peak of a child counts from its fork, when it has the memory of its parent."""


def measure(project: Project, *arguments: str, seconds: float | None = None) -> tuple[int, int, str]:
    """Run the program, for `seconds` at most; return its exit code, peak memory in bytes and errors."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", MEASURE, str(seconds or ""), *project.command(*arguments)],
        cwd=project.root,
        env=project.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    code, memory = map(int, done.stdout.split())
    return code, memory, done.stderr


@pytest.fixture(scope="module", params=keep_named(["one endless line"], list(FLOODS)))
def flooding(make_tiny: Callable[[], Project], request: pytest.FixtureRequest) -> Iterator[Project]:
    """A project whose service floods its log, as fast as a fifth of a core allows, and serves a page."""
    tiny = make_tiny()
    server = "/bin/busybox httpd -f -p 8080 -h /www"
    script = f"{server} & {FLOODS[request.param]}"
    tiny.replace(
        ".lyra.toml", 'image = "web"\n', f'image = "web"\ncommand = ["/bin/busybox", "sh", "-c", "{script}"]\n'
    )
    with (tiny.root / ".lyra.toml").open("a") as file:
        file.write('\n[[tests]]\nname = "some seconds"\nrun = "sleep 4"\n')
        file.write('\n[[tests]]\nname = "a line"\nservice = "web"\nlog = "never printed"\ntimeout = "3s"\n')
    assert tiny.lyra("build").code == 0
    yield tiny
    tiny.clean()


def test_commands_take_little_memory_while_a_service_floods(flooding: Project) -> None:
    code, memory, errors = measure(flooding, "test")
    assert (code, memory < MAX_MEMORY_BYTES) == (5, True), (memory, errors)
    logs = [path for path in flooding.root.glob(".lyra/runs/*/logs/*.log") if path.name != "_all.log"]
    sizes = [path.stat().st_size for path in logs]
    assert sizes and max(sizes) <= (64 << 20) + 200, "a log is bounded"
    assert max(sizes) > 16 << 20, f"the service did not flood it: {sizes}, {memory}"
    code, memory, errors = measure(flooding, "logs")
    assert (code, memory < MAX_MEMORY_BYTES) == (0, True), (memory, errors)


def test_development_commands_take_little_memory_while_a_service_floods(flooding: Project) -> None:
    assert flooding.lyra("create").code == 0
    for arguments, seconds in (
        (("logs",), None),
        (("logs", "--follow"), 3.0),
        (("stats",), None),
        (("dev.stop",), None),
    ):
        code, memory, errors = measure(flooding, *arguments, seconds=seconds)
        assert (code, memory < MAX_MEMORY_BYTES) == (130 if seconds else 0, True), (arguments, memory, errors)
