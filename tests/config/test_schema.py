"""The JSON Schema takes what the loader takes, and refuses a typo where the loader does."""

from __future__ import annotations

import datetime
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from lyra_tasks.config.models import Configuration
from lyra_tasks.config.schema import build_json_schema, list_keys
from lyra_tasks.units import format_duration, parse_duration

REPOSITORY = Path(__file__).parents[2]
CONFIGURATIONS = [REPOSITORY / ".lyra.toml", *sorted((REPOSITORY / "tests" / "projects").glob("*/.lyra.toml"))]
SCHEMA = Draft202012Validator(build_json_schema())


def as_json(value: Any) -> Any:
    """A TOML document as editors hand it to a schema: dates are strings."""
    if isinstance(value, dict):
        return {key: as_json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [as_json(each) for each in value]
    return value.isoformat() if isinstance(value, datetime.date) else value


def demo() -> Any:
    return as_json(tomllib.loads(CONFIGURATIONS[0].read_text()))


def test_the_demo_is_a_document_that_a_single_change_can_spoil() -> None:
    Configuration.model_validate(demo())


def problems(document: Any) -> list[str]:
    return [error.message for error in SCHEMA.iter_errors(document)]


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(build_json_schema())


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_every_configuration_of_this_repository_is_taken(path: Path) -> None:
    assert problems(as_json(tomllib.loads(path.read_text()))) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("projekt",), {}),
        (("services", "web", "port"), {"http": 8000}),
        (("services", "web", "limits", "memory"), "128 megabytes"),
        (("services", "web", "limits", "cpu"), 1),
        (("services", "web", "healthcheck"), {"tcp": "http", "interval": "soon"}),
        (("services", "Web"), {"image": "web"}),
        (("services", "web", "environment", "A-B"), {"default": "x"}),
        (("services", "web", "ports"), {"http": 70000}),
        (("images", "web", "bases"), {"python": "Not A Name"}),
        (("engine", "sandbox"), "perhaps"),
        (("proxima", "platforms"), []),
        (("proxima", "cpus"), 0),
        (("tests", 0, "nmae"), "x"),
        (("deviations",), [{"rule": "x", "scope": "y", "reason": "z", "owner": "ada"}]),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_what_the_loader_refuses_an_editor_marks(place: tuple[str | int, ...], value: Any) -> None:
    document = demo()
    table: Any = document
    for part in place[:-1]:
        table = table[part]
    table[place[-1]] = value
    assert problems(document)
    with pytest.raises(ValidationError):
        Configuration.model_validate(document)


def test_every_key_has_a_description_for_the_editor_and_for_the_page() -> None:
    assert [f"{key.table}.{key.name}" for key in list_keys() if not key.description] == []
    definitions = build_json_schema()["$defs"].values()
    bare = [name for each in definitions for name, key in each["properties"].items() if not key["description"]]
    assert bare == []


def test_sizes_and_times_are_what_users_write() -> None:
    limits = build_json_schema()["$defs"]["Limits"]["properties"]
    assert limits["memory"]["default"] == "256m"
    assert build_json_schema()["$defs"]["Healthcheck"]["properties"]["interval"]["default"] == "1s"
    assert all(parse_duration(format_duration(each)) == each for each in (0.25, 1, 30, 60, 90.5, 3600, 5400))
    for document in ('memory = "64m"', 'memory = "1.5 GiB"', "memory = 1048576"):
        assert problems({**demo(), "proxima": tomllib.loads(document)}) == []


def test_the_page_of_all_keys_is_as_the_models_say() -> None:
    script = REPOSITORY / "docs" / "generate.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
