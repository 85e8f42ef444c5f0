"""Limits and failures of documents."""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path

import pytest

from lyra_tasks.documents import (
    MAX_DEPTH,
    DocumentError,
    describe_failure,
    parse_foreign_json,
    parse_json,
    parse_json_object,
    parse_toml,
    parse_yaml,
    quote_value,
    read_document,
    translate_failures,
)
from lyra_tasks.errors import BundleError, PreconditionError


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "not valid JSON: nested too deeply"),
        (nested(MAX_DEPTH + 1), "recursive or nested too deeply"),
        ('{"a": 1, "b": 2, "a": 3}', "not valid JSON: duplicate key 'a'"),
        ("[1e999]", "not valid JSON: a number is out of range"),
        ("1" * 5000, "not valid JSON: a number is out of range"),
        ("[NaN]", "not valid JSON: NaN is not a JSON number"),
        ('["\\ud800"]', "a character is not valid Unicode"),
        ('{"a": 1,\nb}', "not valid JSON: Expecting property name enclosed in double quotes"),
        (b"\xff\xfe", "not valid JSON: not valid UTF-8"),
        (" " * 101, "larger than 100 bytes"),
    ],
    ids=range(10),
)
def test_json_beyond_a_limit_is_refused(text: str | bytes, problem: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_json(text, max_bytes=100 if text == " " * 101 else 200_000)
    assert str(caught.value) == problem


def test_json_within_limits_is_its_value() -> None:
    assert parse_json(nested(MAX_DEPTH)) is not None
    assert parse_json('{"smile": "\\ud83d\\ude00", "max": 9223372036854775807}') == {"smile": "😀", "max": 2**63 - 1}
    with pytest.raises(DocumentError, match="not a JSON object"):
        parse_json_object("[]")


def test_foreign_json_is_read_leniently() -> None:
    assert parse_foreign_json('{"a": 1, "a": "\\ud800"}') == {"a": "\ud800"}
    for text in ("[" * 100_000, nested(MAX_DEPTH + 1), "1" * 5000, b"\xff"):
        with pytest.raises(DocumentError):
            parse_foreign_json(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nb" + ".b" * 1500 + " = 1", 2), ("a" + ".a" * 500_000 + " = 1", 1), ("a = " + "[" * 5000, 0)],
    ids=range(3),
)
def test_deep_toml_is_refused(text: str, line: int) -> None:
    with pytest.raises(DocumentError, match="nested too deeply") as caught:
        parse_toml(text)
    assert caught.value.line == line


def test_dots_in_toml_texts_and_comments_are_no_keys() -> None:
    dots = "a." * 100
    assert parse_toml(f'a = """\n{dots}"""\nb = "{dots}" # {dots}\n# {dots}') == {"a": dots, "b": dots}


def test_yaml_aliases_do_not_repeat_without_end() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(DocumentError, match="nested too deeply"):
        parse_yaml("\n".join(lines))
    assert parse_yaml("a: &x {b: 1}\nc: *x")[0] == {"a": {"b": 1}, "c": {"b": 1}}


def test_only_regular_files_up_to_a_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 101)
    for name, problem in (("pipe", "not a regular file"), ("large", "larger than 100 bytes")):
        with pytest.raises(DocumentError, match=problem):
            read_document(tmp_path / name, 100)
    with pytest.raises(DocumentError, match="not a regular file"):
        read_document(tmp_path)


@pytest.mark.parametrize(
    "failure",
    [RecursionError(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, ""), KeyError("\x1b[31m"), TypeError(), IndexError(),
     AttributeError(), OverflowError(), MemoryError(), ValueError(), EOFError(), zlib.error("x"),
     OSError(errno.EIO, "Input/output error"), StopIteration(), DocumentError("x" * 999)],
    ids=lambda failure: type(failure).__name__,
)  # fmt: skip
def test_every_failure_becomes_the_error_of_the_reader(failure: Exception) -> None:
    with pytest.raises(BundleError) as caught, translate_failures(lambda problem: BundleError(f"x.json: {problem}")):
        raise failure
    problem = caught.value.message.removeprefix("x.json: ")
    assert problem == describe_failure(failure)
    assert 0 < len(problem) <= 201 and problem.isprintable()


def test_known_errors_and_a_full_disk_pass() -> None:
    for failure in (PreconditionError("x"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt()):
        with pytest.raises(type(failure)) as caught, translate_failures(BundleError):
            raise failure
        assert caught.value is failure


def test_quoted_values_are_short_and_printable() -> None:
    assert quote_value("a\x1b[31m\u202e\nb") == "`a\\x1b[31m\\u202e b`"
    assert len(quote_value("x" * 1000)) < 210
