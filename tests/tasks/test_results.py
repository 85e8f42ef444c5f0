"""What tasks return: the document that `--json` prints, typed, so that a type checker finds mistakes in own tasks."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from lyra_tasks import results
from lyra_tasks.tasks.collection import ALL_TASKS
from lyra_tasks.tasks.task import LyraTask
from tests.conftest import REPOSITORY, Project

pytestmark = pytest.mark.slow

TASKS = {task.command.replace(".", "_"): task for task in ALL_TASKS}
WITHOUT_RESULT = {"logs", "dev_shell", "dev_exec"}
HEAD = "from invoke.context import Context\n\nfrom lyra_tasks import results, tasks\n\nc = Context()\n"
VALUES = {
    "bool": "True",
    "int": "2",
    "str": '"x"',
    "str | Sequence[str] | None": '["x"]',
    "Sequence[str] | None": '["x"]',
}


def generate_tasks(mistake: str = "") -> Iterator[tuple[str, str]]:
    """Yield lines of a user's module, each with the task that it calls; all are correct but for one kind of mistake."""
    for name, task in TASKS.items():
        parameters = list(inspect.signature(task.body).parameters.values())[1:]
        arguments = {parameter.name: VALUES[str(parameter.annotation)] for parameter in parameters}
        if mistake == "parameter":
            arguments["quite"] = arguments.pop("quiet")
        elif mistake == "type":
            arguments["quiet"] = '"yes"'
        call = f"tasks.{name}{'z' if mistake == 'task' else ''}(c, {', '.join(map('='.join, arguments.items()))})"
        yield name, f"{name} = {call}" if name not in WITHOUT_RESULT else call
        for result_type, is_tuple in list_result_types(task):
            value = f"{name}[0]" if is_tuple else name
            names = ("nope",) if mistake == "attribute" else list_attributes(result_type)
            kind = f"isinstance({name}, tuple) and " if is_tuple else ""
            for attribute in names if mistake in ("", "attribute") else ():
                yield name, f"if {kind}isinstance({value}, results.{result_type.__name__}): {value}.{attribute}"


def list_result_types(task: LyraTask[..., Any]) -> Iterator[tuple[type[Any], bool]]:
    """Yield the types that a task returns, and whether it is a tuple of them."""
    for part in str(inspect.signature(task.body).return_annotation).split(" | "):
        row = re.fullmatch(r"tuple\[(\w+), \.\.\.\]", part)
        if part != "None" and not part.startswith("Mapping["):
            yield getattr(results, row[1] if row else part), bool(row)


def list_attributes(result_type: type[Any]) -> Sequence[str]:
    if dataclasses.is_dataclass(result_type):
        return [field.name for field in dataclasses.fields(result_type)]
    return list(cast("Any", result_type).model_fields)


MISTAKES = ("parameter", "type", "attribute", "task")


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, tuple[list[str], dict[str, set[str]]]]:
    """Return the task of each generated line and the tasks with an error, by kind of mistake; mypy is run once.

    What it knows of this package and of libraries is kept in the user's cache.
    """
    directory = tmp_path_factory.mktemp("own")
    lines = {mistake: list(generate_tasks(mistake)) for mistake in ("", *MISTAKES)}
    for mistake, entries in lines.items():
        (directory / f"own_{mistake}.py").write_text(HEAD + "".join(f"{line}\n" for _, line in entries))
    options = ("--strict", "--config-file=", "--follow-imports=silent", "--no-error-summary")
    kept = f"--cache-dir={cache / 'tests' / 'mypy'}"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, kept, *sorted(path.name for path in directory.glob("*.py"))],
        cwd=directory,
        env={"MYPYPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "", done.stderr
    errors: dict[str, dict[str, set[str]]] = {mistake: {} for mistake in lines}
    for mistake, number, code in re.findall(r"(?m)^own_(\w*)\.py:(\d+): error: .*\[([a-z-]+)\]$", done.stdout):
        task = lines[mistake][int(number) - HEAD.count("\n") - 1][0]
        errors[mistake].setdefault(task, set()).add(code)
    return {mistake: ([task for task, _ in entries], errors[mistake]) for mistake, entries in lines.items()}


Checked = dict[str, tuple[list[str], dict[str, set[str]]]]


def test_type_checker_accepts_every_parameter_and_attribute(checked: Checked) -> None:
    tasks, errors = checked[""]
    assert errors == {}
    assert set(tasks) == set(TASKS)
    assert len(tasks) > 200


@pytest.mark.parametrize(
    ("mistake", "code"),
    [("parameter", "call-arg"), ("type", "arg-type"), ("attribute", "attr-defined"), ("task", "attr-defined")],
)
def test_type_checker_finds_mistake_in_call_of_every_task(checked: Checked, mistake: str, code: str) -> None:
    errors = checked[mistake][1]
    # a result that is the JSON Schema itself has no attributes
    assert set(errors) == set(TASKS) - (WITHOUT_RESULT | {"config_schema"} if mistake == "attribute" else set())
    assert {code for codes in errors.values() for code in codes} == {code}


def test_results_can_be_imported_by_name() -> None:
    for name in results.__all__:
        assert getattr(results, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nope'"):
        results.__getattr__("Nope")


def test_results_are_light_to_import() -> None:
    code = (
        "import sys, lyra_tasks.results as results\n"
        "results.BuiltImages, results.Status, results.Verification, results.to_document\n"
        "print({'pydantic', 'docker', 'invoke', 'lyra_tasks.records'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout == "set()\n"


CALLS: list[tuple[str, dict[str, object]]] = [
    ("config_show", {}),
    ("rules_list", {}),
    ("rules_explain", {"rule": "container.egress"}),
    ("release_version", {}),
    ("release_version", {"image_tag": "1.0.0"}),
    ("release_list", {}),
    ("bundle_list", {}),
    ("init", {"dry_run": True}),
    ("explain", {}),
    ("engine_down", {"dry_run": True}),
    ("status", {}),  # it shows the journal: no other task may come between both ways to ask for it
]


def test_result_is_the_document_that_json_prints(lonely: Project) -> None:
    lonely.git("tag", "v1.2.3")
    printed: list[Any] = []
    for name, arguments in CALLS:
        command = (TASKS[name].command, *to_options(arguments), "--json")
        outcome = lonely.lyra(*command, DOCKER_HOST="unix:///nowhere.sock")
        assert outcome.code == 0, outcome.text
        printed.append(json.loads(outcome.out))
        assert printed[-1] not in ([], {}), name
    returned = call_tasks(lonely, CALLS[::-1], DOCKER_HOST="unix:///nowhere.sock")[::-1]
    for (name, _), from_call, from_program in zip(CALLS, returned, printed, strict=True):
        assert from_call == from_program, name


def to_options(arguments: dict[str, object]) -> Iterator[str]:
    for name, value in arguments.items():
        yield f"--{name.replace('_', '-')}"
        if value is not True:
            yield str(value)


def call_tasks(project: Project, calls: Sequence[tuple[str, dict[str, object]]], **more: str) -> list[Any]:
    """Call tasks in a program of the user, and return their results as documents."""
    code = (
        "import json\nfrom invoke.context import Context\nfrom lyra_tasks import results, tasks\n"
        f"for name, arguments in {calls!r}:\n"
        "    result = getattr(tasks, name)(Context(), quiet=True, **arguments)\n"
        "    print(json.dumps(results.to_document(result)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project.root, env={**project.environment, **more},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_results_are_frozen() -> None:
    for name in set(results.__all__) - {"JsonValue", "to_document"}:
        result_type: Any = getattr(results, name)
        if dataclasses.is_dataclass(result_type):
            parameters: Any = getattr(result_type, "__dataclass_params__")  # noqa: B009
            assert parameters.frozen, name
        elif hasattr(result_type, "model_config"):
            assert result_type.model_config["frozen"], name


def test_preview_has_neutral_attributes_of_result() -> None:
    preview = results.BakeDefinition({}, {})
    assert dict(preview.images) == {}
    assert results.to_document(preview) == {"group": {}, "target": {}}
    assert results.GoneCleanupPreview((), {}).removed == ()
