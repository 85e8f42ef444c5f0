"""Text of others has no effect on a terminal, in Markdown, in XML and in JSON."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
import unicodedata
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from lyra_tasks import console
from lyra_tasks.console.markup import escape_markdown, escape_markdown_lines, format_code, sanitize_xml
from lyra_tasks.console.text import apply_style
from lyra_tasks.errors import LyraError
from lyra_tasks.files import format_json, quote_path

CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
INVISIBLE = [
    chr(code) for code in (0xAD, 0x61C, *range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070))
]
NO_CHARACTERS = ["\ud800", "\udcff", "\ufffe", "\uffff", "\U0001fffe", "\ufeff", "\U000e0041"]
HOSTILE = "".join((*CONTROLS, *INVISIBLE, *NO_CHARACTERS))
SPOOF = "key\n\x1b[32mok    every byte checked\x1b[0m\x1b[8m \u202ecod.exe"


def is_safe(text: str) -> bool:
    """Return whether a text has no characters that a terminal would not print."""
    return all(unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in text)


@pytest.mark.parametrize("character", HOSTILE, ids=lambda character: f"U+{ord(character):04X}")
def test_hostile_character_becomes_a_visible_escape(character: str) -> None:
    escaped = console.escape(f"a{character}b")
    assert is_safe(escaped) and re.fullmatch(r"a\\([tnr]|x..|u....|U........)b", escaped)
    assert console.escape(escaped) == escaped
    assert is_safe(console.sanitize(f"a{character}b").replace("\n", "").replace("\t", ""))


@pytest.mark.parametrize("text", ["straße", "日本語", "Ωμέγα ½ 👍", "naïve “quoted” … \u00a0"])
def test_readable_text_is_left_alone(text: str) -> None:
    assert console.escape(text) == console.sanitize(text) == text


def test_nothing_hostile_reaches_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    text = HOSTILE + SPOOF
    for function in (console.print, console.print_verbatim, console.info, console.print_raw, console.warn):
        function(text.replace("\x1b[32m", ""))
    console.error(text, text, [text])
    console.print_table((text, "b"), [("c", text)])
    console.print_json({text: text})
    for stream in (out, err):
        assert isinstance(stream.buffer, io.BytesIO)
        written = stream.buffer.getvalue().decode()
        assert is_safe(written.replace("\n", "").replace("\t", "").replace("\x1b[0m", ""))


def test_error_of_several_lines_cannot_pose_as_another_message() -> None:
    lines = console.format_error("bad key\nok: all is well", "run it\nerror: no", ["one\nhint: paste this"]).split("\n")
    assert [line for line in lines if not line.startswith(" ")] == ["error: bad key", "hint: run it"]


def test_own_styles_are_kept_and_others_are_not() -> None:
    own = apply_style("ok", "green", "bold")
    assert console.text.sanitize_styled(f"{own} \x1b[8mhidden\x1b[2J") == f"{own} \\x1b[8mhidden\\x1b[2J"


def test_logs_lose_their_colours() -> None:
    assert console.sanitize("\x1b[1;31mERROR\x1b[0m \x1b[38:5:1mred\x1b[m \x1b[2Kgone") == "ERROR red \\x1b[2Kgone"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b lyra_tasks v1.2-3 (x)", "a_b lyra_tasks v1.2-3 (x)"),
        ("`rm -rf`", r"\`rm -rf\`"),
        ("<img src=x>", "&lt;img src=x&gt;"),
        ("[click](http://evil)", r"\[click\](http://evil)"),
        ("*bold* _it_ &lt; \\*", r"\*bold\* \_it\_ \&lt; \\\*"),
        ("one\n# two", r"one\n# two"),
    ],
)
def test_markdown_is_escaped(text: str, expected: str) -> None:
    assert escape_markdown(text) == expected


def test_markdown_lines_begin_no_block() -> None:
    assert escape_markdown_lines("one\n# two\n- three") == "one\n\\# two\n\\- three"


@pytest.mark.parametrize(
    ("text", "expected"), [("a b", "`a b`"), ("a`b", "`` a`b ``"), ("``", "``` `` ```"), ("a\nb", r"`a\nb`")]
)
def test_code_span_holds_backticks(text: str, expected: str) -> None:
    assert format_code(text) == expected


def test_xml_is_well_formed_whatever_the_text() -> None:
    root = ET.Element("testsuites", {"name": HOSTILE})
    ET.SubElement(root, "failure", {"message": HOSTILE}).text = HOSTILE
    parsed = ET.fromstring(ET.tostring(sanitize_xml(root), encoding="utf-8"))
    assert r"\uffff" in parsed.attrib["name"] and r"\ud800" in (parsed[0].text or "")


def test_json_file_is_valid_utf8_whatever_the_text() -> None:
    text = HOSTILE.replace("\ud800", "").replace("\udcff", "")
    assert json.loads(format_json({"name": text}).encode()) == {"name": text}
    assert json.loads(format_json({"name": HOSTILE}).encode()).keys() == {"name"}


def test_error_is_safe_wherever_it_is_shown() -> None:
    error = LyraError(f"bad {SPOOF}{HOSTILE}", hint=f"run\n{HOSTILE}", details=(HOSTILE, "two\nlines"))
    assert is_safe(error.message) and is_safe(str(error)) and "\\n" in error.message
    assert all(is_safe(text.replace("\n", "").replace("\t", "")) for text in (error.hint, *error.details))
    assert error.hint.startswith("run\n") and error.details[1] == "two\nlines"


def test_value_in_a_line_cannot_pose_as_another_message(capsys: pytest.CaptureFixture[str]) -> None:
    for function in (console.print, console.info, console.warn):
        function("copied a\nhint: paste this\n  own line\nerror: no")
    captured = capsys.readouterr()
    lines = (captured.out + captured.err).splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["copied a", "copied a", "warning: copied a"]


def test_pasted_path_is_one_word_of_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("plain", "with space", "$(touch pwned)", "it's", "`id`", "a;b", "-rf\n\u202e"):
        words = shlex.split(f"rm {quote_path(tmp_path / 'below' / name)}")
        assert words == ["rm", console.escape(f"below/{name}")]
    assert quote_path(tmp_path / "-rf") == "./-rf"
