"""The command line that a task belongs to, with the task that runs and the one after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invoke.collection import Collection
from invoke.config import Config
from invoke.context import Context
from invoke.executor import Executor
from invoke.tasks import Task

import lyra_tasks
from lyra_tasks.tasks.line import find_lines
from lyra_tasks.tasks.program import LyraProgram
from lyra_tasks.tasks.session import TaskCall

Calls = list[tuple[str, dict[str, Any]]]


def record_lines(names: Calls, call: Callable[[str, Context], None]) -> None:
    """Run a line of the tasks `build` and `test`, which take the option `image`, and an own task `ci`."""

    def body(name: str) -> Callable[..., None]:
        def run(c: Context, image: str = "") -> None:
            call(name, c)

        return run

    collection = Collection()
    for name in ("build", "test", "ci"):
        task: Any = Task(body(name), name=name)
        task.command = name if name != "ci" else ""
        collection.add_task(task)
    Executor(collection, Config()).execute(*names)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([("build", {}), ("test", {})], ["test", ""]),
        ([("build", {"image": "a"}), ("test", {}), ("build", {"image": "b"})], ["test", "build", ""]),
        ([("build", {"image": "a"}), ("build", {"image": "b"}), ("ci", {})], ["build", "", ""]),
        ([("ci", {}), ("build", {})], ["", ""]),
        ([("build", {}), ("build", {})], [""]),  # Invoke runs equal calls once
    ],
)
def test_task_knows_which_one_follows(names: Calls, expected: list[str]) -> None:
    followed = []

    def call(name: str, c: Context) -> None:
        followed.append(TaskCall("build" if name == "ci" else name, c, Path(), find_lines()).next_command)

    record_lines(names, call)
    assert followed == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--list"], set()),
        (["build", "--image", "web", "dev.sync"], {"build", "dev.sync"}),
        (["--help=test"], {"test"}),
        (["--complete", "--", "lyra build --image web clean "], {"build", "clean"}),
    ],
)
def test_parser_knows_the_tasks_of_the_line_only(arguments: list[str], expected: set[str]) -> None:
    program = LyraProgram(name="Lyra", binary="lyra", namespace=lyra_tasks.collection())
    program.create_config()
    program.parse_core(["lyra", *arguments])
    program.parse_collection()
    assert set(program._make_parser().contexts) == expected
