"""Describe what a check asks, for the report: its question as the configuration has it, without values of variables."""

from __future__ import annotations

import json
from collections.abc import Callable

from lyra_tasks.config.models import Test

_MAX_CHARS = 300


def describe_check(test: Test) -> str:
    """Return the question of a check in one line, such as `GET / answers 200, the body contains "hello"`."""
    text = " ".join(_DESCRIPTIONS[test.kind](test).split())
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}…"


def _describe_http(test: Test) -> str:
    parts = [f"{test.http} answers {test.status}"]
    if test.body is not None:
        parts.append(f"the body contains {_quote(test.body)}")
    if test.json_ is not None:
        parts.append(f"its JSON has {_quote(test.json_)}")
    return ", ".join(parts)


def _describe_exec(test: Test) -> str:
    output = f", and prints {_quote(test.output)}" if test.output is not None else ""
    return f"`{_format_command(test.exec)}` ends with {test.exit_code}{output}"


def _describe_junit(test: Test) -> str:
    return f"`{_format_command(test.junit.run)}` reports passed tests in {test.junit.file}" if test.junit else ""


def _format_command(command: list[str] | str | None) -> str:
    return " ".join(command) if isinstance(command, list) else command or ""


def _quote(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


_DESCRIPTIONS: dict[str, Callable[[Test], str]] = {
    "http": _describe_http,
    "exec": _describe_exec,
    "tcp": lambda test: f"port {test.tcp} accepts connections",
    "log": lambda test: f"a line of the log matches {test.log}",
    "run": lambda test: f"`{_format_command(test.run)}` ends with 0, on the machine of the test",
    "pytest": lambda test: f"all tests in {test.pytest} pass",
    "junit": _describe_junit,
    "stage": lambda test: f"stage {test.stage} of image {test.image} builds",
    "structure": lambda test: f"image {test.image} is as {test.structure} describes it",
}
