"""Tasks of one checkout at the same time: those that exclude each other wait, the others do not disturb each other."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time

import pytest

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project, ours
from tests.faults import becomes, no_traceback

TRIES = int(os.environ.get("LYRA_TEST_AT_ONCE", "4"))
SEED = int(os.environ.get("LYRA_TEST_SEED", str(random.randrange(10**6))))


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=120)
    assert no_traceback(out + err), err
    return process.returncode, out + err


def running_services(engine: Engine) -> list[str]:
    """Return the ids of the containers of the service."""
    return [container["Id"] for container in engine.api.containers() if container["Names"][0].endswith("-web")]


@pytest.mark.thorough
def test_build_and_clean_at_once_both_succeed(tiny: Project, engine: Engine) -> None:
    moments = random.Random(SEED)
    assert tiny.lyra("build").code == 0
    for number in range(TRIES):
        commands = ["build", "clean"] if number % 2 else ["clean", "build"]
        first = tiny.start(commands[0])
        time.sleep(moments.uniform(0.0, 0.6))
        second = tiny.start(commands[1])
        results = {command: finish(process) for command, process in zip(commands, (first, second), strict=True)}
        assert [code for code, _ in results.values()] == [0, 0], (SEED, number, results)
        status = tiny.lyra("test")
        assert (status.code == 0) == any("tiny/web" in name for name in ours(engine)), status.text
        assert status.code in {0, 3}, status.text


def test_line_of_tasks_is_not_interrupted_by_clean_and_engine_down(tiny: Project, engine: Engine) -> None:
    with (tiny.root / "app/Dockerfile").open("a") as file:
        file.write('\nRUN ["/bin/busybox", "sleep", "10"]\n')
    line = tiny.start("build", "test", "promote")
    assert becomes(lambda: any(tiny.root.glob(".lyra/runs/*/bake.json")), 30)
    others = [tiny.start("clean"), tiny.start("engine.down")]
    code, text = finish(line)
    assert code == 0, text
    for process in others:
        code, text = finish(process)
        assert code == 0, text
        assert re.search(rf"Waiting for `lyra (build|test|promote)` \(run \S+, pid {line.pid}\) …", text), text
    assert not any("tiny/web" in name for name in ours(engine)), "it has cleaned afterwards"
    assert tiny.lyra("test").code == 3


def test_commands_during_tests_wait_only_where_they_must(tiny: Project, engine: Engine) -> None:
    """While two tests run, a dry run and a build wait for nobody, and `clean` does; Ctrl+C ends its wait."""
    until_told = 'timeout = "120s"\nexec = "until [ -e /data/go ]; do sleep 0.2; done; echo kept'
    tiny.replace(".lyra.toml", 'exec = "echo kept', until_told)
    assert tiny.lyra("build").code == 0
    tests = [tiny.start("test") for _ in range(2)]
    assert becomes(lambda: len(running_services(engine)) == 2, 60)
    dry_run = tiny.lyra("clean", "--dry-run")
    assert dry_run.code == 0, dry_run.text
    assert "Waiting" not in dry_run.err
    build = tiny.lyra("build")
    assert build.code == 0, build.text
    assert "Waiting" not in build.err
    clean = tiny.start("clean")
    assert clean.stderr is not None
    line = clean.stderr.readline()
    named = re.findall(r"`lyra test` \(run \S+, pid (\d+)\)", line)
    assert line.startswith("Waiting for ") and sorted(named) == sorted(str(process.pid) for process in tests), line
    clean.send_signal(signal.SIGINT)
    code, text = finish(clean)
    assert code == 130, text
    assert [process.poll() for process in tests] == [None, None]
    for service in running_services(engine):
        engine.api.exec_start(engine.api.exec_create(service, ["/bin/sh", "-c", "echo > /data/go"])["Id"])
    for process in tests:
        code, text = finish(process)
        assert code == 0, text
    promoted = tiny.lyra("promote")
    assert promoted.code == 0, promoted.text
