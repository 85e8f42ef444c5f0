"""Tasks of one checkout at the same time: those that exclude each other wait, the others do not disturb each other."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from lyra_tasks.engine.client.connect import Engine
from tests.conftest import Project, ours
from tests.engine.test_kills import lab_objects
from tests.faults import becomes, no_traceback

TRIES = int(os.environ.get("LYRA_TEST_AT_ONCE", "4"))
SEED = int(os.environ.get("LYRA_TEST_SEED", str(random.randrange(10**6))))


@pytest.fixture
def slow(tiny: Project) -> Iterator[Project]:
    """The tiny project with a last check that takes some seconds."""
    tiny.replace(".lyra.toml", 'exec = "echo kept', 'timeout = "60s"\nexec = "sleep 4; echo kept')
    assert tiny.lyra("build").code == 0
    yield tiny


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=120)
    assert no_traceback(out + err), err
    return process.returncode, out + err


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


def test_clean_and_engine_down_wait_for_live_build(tiny: Project, engine: Engine) -> None:
    with (tiny.root / "app/Dockerfile").open("a") as file:
        file.write('\nRUN ["/bin/busybox", "sleep", "10"]\n')
    build = tiny.start("build")
    assert becomes(lambda: any(tiny.root.glob(".lyra/runs/*/bake.json")), 30)
    others = [tiny.start("clean"), tiny.start("engine.down")]
    code, text = finish(build)
    assert code == 0, text
    for process in others:
        code, text = finish(process)
        assert code == 0, text
        assert f"pid {build.pid}) …" in text, text
    assert not any("tiny/web" in name for name in ours(engine))


def test_line_of_tasks_is_not_interrupted_by_clean(tiny: Project) -> None:
    line = tiny.start("build", "test", "promote")
    assert becomes(lambda: any(tiny.state.glob("*/tasks/*~build~*")), 30)
    clean = tiny.start("clean")
    code, text = finish(line)
    assert code == 0, text
    code, text = finish(clean)
    assert code == 0, text
    assert re.search(r"Waiting for `lyra (build|test)` \(run \S+, pid \d+\) …", text), text
    assert tiny.lyra("test").code == 3, "it has cleaned afterwards"


def test_clean_waits_for_test_and_ctrl_c_ends_the_wait(slow: Project, engine: Engine) -> None:
    running = slow.start("test")
    assert becomes(lambda: any(name.endswith("-web") for name in lab_objects(engine)), 30)
    clean = slow.start("clean")
    assert clean.stderr is not None
    line = clean.stderr.readline()
    assert re.search(rf"Waiting for `lyra test` \(run \S+, pid {running.pid}\) …", line), line
    clean.send_signal(signal.SIGINT)
    code, text = finish(clean)
    assert code == 130, text
    assert finish(running)[0] == 0


def test_two_tests_and_a_build_at_once_succeed(slow: Project, engine: Engine) -> None:
    tests = [slow.start("test") for _ in range(2)]
    assert becomes(lambda: sum(name.endswith("-web") for name in lab_objects(engine)) == 2, 60)
    build = slow.lyra("build")
    assert build.code == 0, build.text
    assert "Waiting" not in build.err
    for process in tests:
        code, text = finish(process)
        assert code == 0, text
    promoted = slow.lyra("promote")
    assert promoted.code == 0, promoted.text


def test_dry_run_waits_for_nobody(slow: Project, engine: Engine) -> None:
    running = slow.start("test")
    assert becomes(lambda: any(name.endswith("-web") for name in lab_objects(engine)), 30)
    dry_run = slow.lyra("clean", "--dry-run")
    assert dry_run.code == 0, dry_run.text
    assert "Waiting" not in dry_run.err
    assert running.poll() is None
    assert finish(running)[0] == 0
