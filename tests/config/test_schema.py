"""Test the JSON Schema: it accepts and refuses the same documents as the loader."""

from __future__ import annotations

import datetime
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lyra_tasks.config.models import Configuration
from lyra_tasks.config.schema import build_json_schema, list_keys
from lyra_tasks.units import format_duration, parse_duration

REPOSITORY = Path(__file__).parents[2]
CONFIGURATIONS = [REPOSITORY / ".lyra.toml", *sorted((REPOSITORY / "tests" / "projects").glob("*/.lyra.toml"))]


@cache
def create_validator() -> Any:
    """Return the validator of the schema; its import takes a second, which only the tests of this file spend."""
    from jsonschema import Draft202012Validator

    return Draft202012Validator(build_json_schema())


def as_json(value: Any) -> Any:
    """Return a TOML document as editors validate it, with dates as strings."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.date) else value


def demo() -> Any:
    return as_json(tomllib.loads(CONFIGURATIONS[0].read_text()))


def test_demo_configuration_is_valid() -> None:
    Configuration.model_validate(demo())


def problems(document: Any) -> list[str]:
    return [error.message for error in create_validator().iter_errors(document)]


def test_json_schema_is_valid() -> None:
    create_validator().check_schema(build_json_schema())


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_schema_accepts_all_configurations_of_repository(path: Path) -> None:
    assert problems(as_json(tomllib.loads(path.read_text()))) == []


@pytest.mark.parametrize(
    ("location", "value"),
    [
        (("projekt",), {}),
        (("services", "web", "port"), {"http": 8000}),
        (("services", "web", "limits", "memory"), "128 megabytes"),
        (("services", "web", "limits", "memory"), "\u0666\u0664m"),  # 64 in Arabic digits
        (("services", "web", "limits", "cpu"), 1),
        (("services", "web", "healthcheck"), {"tcp": "http", "interval": "soon"}),
        (("services", "web", "healthcheck"), {"tcp": "http", "interval": "\u0665s"}),
        (("services", "Web"), {"image": "web"}),
        (("services", "web", "environment", "A=B"), {"default": "x"}),
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
def test_schema_refuses_what_loader_refuses(location: tuple[str | int, ...], value: Any) -> None:
    document = demo()
    table: Any = document
    for part in location[:-1]:
        table = table[part]
    table[location[-1]] = value
    assert problems(document)
    with pytest.raises(ValidationError):
        Configuration.model_validate(document)


def test_every_key_has_a_description() -> None:
    assert [f"{key.table}.{key.name}" for key in list_keys() if not key.description] == []
    definitions = build_json_schema()["$defs"].values()
    undescribed = [
        name for definition in definitions for name, key in definition["properties"].items() if not key["description"]
    ]
    assert undescribed == []


def test_schema_has_sizes_and_durations_as_written() -> None:
    limits = build_json_schema()["$defs"]["Limits"]["properties"]
    assert limits["memory"]["default"] == "256m"
    assert build_json_schema()["$defs"]["Healthcheck"]["properties"]["interval"]["default"] == "1s"
    assert all(parse_duration(format_duration(seconds)) == seconds for seconds in (0.25, 1, 30, 60, 90.5, 3600, 5400))
    for document in ('memory = "64m"', 'memory = "1.5 GiB"', "memory = 1048576"):
        assert problems({**demo(), "proxima": tomllib.loads(document)}) == []


def test_documentation_of_keys_is_current() -> None:
    script = REPOSITORY / "docs" / "generate.py"
    result = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
