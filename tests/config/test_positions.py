"""Test the lines of keys with generated TOML texts whose lines are known."""

from __future__ import annotations

import json
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lyra_tasks.config.validation.positions import Location, find_duplicate, find_positions, line_of

KEYS = st.text(min_size=1, max_size=6)
SCALARS = st.one_of(
    st.integers(-(2**40), 2**40).map(str),
    st.booleans().map(lambda value: str(value).lower()),
    st.text(max_size=8).map(lambda text: json.dumps(text, ensure_ascii=True) if text.isascii() else '"é#["'),
    st.sampled_from(["'''", '"""']).map(lambda mark: f"{mark}\n[no.table]\n# no comment\n=\n{mark}"),
    st.just("2027-03-31"),
    st.just("[\n  1, # ] not the end\n  [ 2 ],\n]"),
    st.just('{ a = 1, b = "}" }'),
)
NOISE = st.sampled_from(["", "# x = 1", "  \t", "# [table]", '# """'])


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Location, int]]:
    """Draw a TOML text of tables and arrays of tables, with the line of each key."""
    lines: list[str] = []
    expected: dict[Location, int] = {}
    # JSON escapes characters above the basic plane as surrogate pairs, which TOML does not support
    names = draw(st.lists(KEYS.filter(lambda key: all(" " <= c < "\x7f" for c in key)), max_size=4, unique=True))
    for name in names:
        header: Location = (name,)
        count = draw(st.integers(0, 2))
        for index in range(count or 1):
            table = (*header, index) if count else header
            lines += draw(st.lists(NOISE, max_size=2))
            lines.append(f"[[{json.dumps(name)}]]" if count else f"[ {json.dumps(name)} ] # {name}")
            expected[table] = len(lines)
            for key in draw(st.lists(st.sampled_from(["a", "b-c", "d.e", '"f g"', "'h'"]), max_size=3, unique=True)):
                lines += draw(st.lists(NOISE, max_size=1))
                first = len("\n".join(lines).split("\n")) + 1
                lines.append(f"  {key} = {draw(SCALARS)}")
                lines = "\n".join(lines).split("\n")
                expected[(*table, *(part.strip("\"'") for part in key.split(".")))] = first
    return "\n".join(lines), expected


@settings(max_examples=60, deadline=None)
@given(documents())
def test_each_key_has_its_line(document: tuple[str, dict[Location, int]]) -> None:
    text, expected = document
    tomllib.loads(text)
    lines = find_positions(text)
    assert {location: lines.get(location) for location in expected} == expected


@settings(max_examples=60, deadline=None)
@given(documents())
def test_windows_line_endings_keep_lines(document: tuple[str, dict[Location, int]]) -> None:
    text = document[0]
    assert find_positions(text.replace("\n", "\r\n")) == find_positions(text)


def test_inline_keys_have_line_of_statement() -> None:
    lines = find_positions('x = 1\nenvironment = { A = { default = "a" } }\nlist = [\n  1,\n  2,\n]\n')
    assert lines["environment", "A", "default"] == 2
    assert lines["list", 1] == 3


def test_tables_below_array_entry_belong_to_it() -> None:
    lines = find_positions("[[a]]\nx = 1\n[a.b]\ny = 1\n[[a]]\n[a.b]\ny = 2\n[[a.c]]\n[[a.c]]\nz = 1\n")
    assert lines["a", 0, "b", "y"] == 4
    assert lines["a", 1, "b", "y"] == 7
    assert lines["a", 1, "c", 1, "z"] == 10


def test_missing_key_has_line_of_enclosing_table() -> None:
    lines = find_positions("schema = 1\n\n[a.b]\nc = 1\n")
    assert line_of(("a", "b", "missing", 3), lines) == 3
    assert line_of(("nothing",), lines) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1\n\na = 2\n", (("a",), 1, 3)),
        ("[t]\na.b = 1\n'a'.\"b\" = 2\n", (("t", "a", "b"), 2, 3)),
        ("[t]\n[u]\n[t]\n", (("t",), 1, 3)),
        ("[[t]]\na = 1\n[[t]]\na = 1\na = 1\n", (("t", 1, "a"), 4, 5)),
        ("a = 1\nb = = 2\n", None),
    ],
)
def test_duplicate_key_reports_both_lines(text: str, expected: tuple[Location, int, int] | None) -> None:
    duplicate = find_duplicate(text)
    assert (duplicate and (duplicate.location, duplicate.first_line, duplicate.second_line)) == expected


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="[]{}=\"'#\\\n\r ab1.,", max_size=60))
def test_positions_accept_any_toml_text(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except ValueError:
        find_duplicate(text)
        return
    lines = find_positions(text)
    assert {location for location in lines if len(location) == 1} == {(key,) for key in document}
