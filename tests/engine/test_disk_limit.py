"""A service with a writable root that writes more than its disk limit is ended, with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.client.exec import exec_command
from tests.conftest import Project
from tests.faults import becomes, processes_with

DEVIATION = """
[[deviations]]
rule = "container.read-only-root"
scope = "services.web"
reason = "it writes beside its program"
owner = "ada"
expires = 2999-01-01
"""
CHECKS = """
[[tests]]
name = "fills half of the root"
service = "web"
exec = "dd if=/dev/zero of=/scratch/big bs=1M count=4; sleep 3"

[[tests]]
name = "fills the root"
service = "web"
exec = "dd if=/dev/zero of=/scratch/big bs=1M count=20; sleep 20"
timeout = "30s"
"""
GUARD = "lyra_tasks.lab.disk"


@pytest.fixture(scope="module")
def writable(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """The tiny project with a writable root and a directory there for its user."""
    tiny = make_tiny()
    tiny.replace(".lyra.toml", 'image = "web"\n', 'image = "web"\nread_only = false\n')
    tiny.replace("app/Dockerfile", "USER 65534", "COPY --chown=65534:65534 data /scratch\nUSER 65534")
    with (tiny.root / ".lyra.toml").open("a") as file:
        file.write(DEVIATION + CHECKS)
    assert tiny.lyra("build").code == 0
    yield tiny
    tiny.clean()


def test_test_environment_is_ended_over_the_disk_limit(writable: Project) -> None:
    result = writable.lyra("test")
    assert result.code == 5
    assert "ok   fills half of the root" in result.out, "below the limit, the check passes"
    assert "web was ended: it wrote 20.0 MiB to its root file system, its disk limit is 8.0 MiB" in result.text
    assert "Raise [services.web.limits] disk, or let it write to a volume or to /tmp" in result.text


def test_guard_ends_with_its_environment(writable: Project) -> None:
    assert writable.lyra("create").code == 0
    assert becomes(lambda: len(processes_with(GUARD, writable)) == 1)
    assert writable.lyra("dev.stop", "--yes").code == 0
    assert becomes(lambda: not processes_with(GUARD, writable))


def test_development_environment_is_ended_over_the_disk_limit(writable: Project, engine: Engine) -> None:
    assert writable.lyra("create").code == 0
    assert becomes(lambda: len(processes_with(GUARD, writable)) == 1)
    (path,) = writable.state.glob("*/dev/dev.json")
    container = json.loads(path.read_text())["services"]["web"]["id"]
    exec_command(engine, container, ["dd", "if=/dev/zero", "of=/scratch/big", "bs=1M", "count=20"])
    reason = "it wrote 20.0 MiB to its root file system, its disk limit is 8.0 MiB"
    assert becomes(lambda: reason in " ".join(writable.lyra("status").out.split()), 20)
    assert "disk-exceeded" in writable.lyra("history", "--object", container).out
    assert becomes(lambda: not processes_with(GUARD, writable))
