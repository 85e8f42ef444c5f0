"""Test random documents: each is a valid configuration or has located problems."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lyra_tasks.config.load import load_config
from lyra_tasks.config.validation.positions import Location
from lyra_tasks.config.validation.pydantic_errors import known_keys
from lyra_tasks.errors import ConfigurationError
from tests.config.conftest import Project

VALUES = st.one_of(
    st.sampled_from(["", "web", "/data", "GET /", "64m", "1s", "10:10", "linux/amd64", "[", "\u001b[2J", "../x"]),
    st.integers(-1, 70000),
    st.floats(),
    st.booleans(),
    st.lists(st.one_of(st.text("ab", max_size=2), st.integers()), max_size=2),
)


@st.composite
def tables(draw: st.DrawFn, location: Location = ()) -> dict[str, Any]:
    """Draw a table with known and unknown keys, and values that are often invalid."""
    keys = known_keys(location) or ["web", "db", "Bad name"]
    table: dict[str, Any] = {}
    for key in draw(st.lists(st.sampled_from([*keys, "unknown"]), max_size=4, unique=True)):
        child = (*location, key)
        if draw(st.booleans()) and len(child) < 6:
            is_array = key in ("tests", "deviations") and draw(st.booleans())
            table[key] = draw(st.lists(tables((*child, 0)), max_size=3)) if is_array else draw(tables(child))
        else:
            table[key] = draw(VALUES)
    return table


def inline(value: Any) -> str:
    """Return a value as inline TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return str(value) if isinstance(value, float) else json.dumps(value)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=tables())
@example(document={"compose": {"files": ["", "gone.yaml"]}})
@example(document={"compose": {"files": ["/etc/hostname"]}})
def test_any_document_is_valid_or_has_located_problems(project: Project, document: dict[str, Any]) -> None:
    document["schema"] = 1
    lines = [f"{key} = {inline(value)}" for key, value in document.items()]
    project("\n".join(lines))
    try:
        load_config()
    except ConfigurationError as error:
        assert error.details
        for detail in error.details:
            file, line, key, message = detail.split(":", 3)
            assert file == ".lyra.toml"
            if key.strip().split(".")[0].split("[")[0] in document:
                assert lines[int(line) - 1].startswith(key.strip().split(".")[0].split("[")[0])
            assert message.strip()
            assert not any(jargon in message for jargon in ("Input should", "type=", "pydantic", "\x1b", "\n"))
    else:
        assert "name" in document["project"]
