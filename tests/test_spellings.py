"""Redact secrets in every common spelling, in whole texts and in streams."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import signal
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lyra_tasks.engine.client.monitoring import LogFollower
from lyra_tasks.redaction import redact
from tests.thorough import examples, keep_named

pytestmark = pytest.mark.slow


def _escape_characters(text: str, characters: str, form: str) -> str:
    return "".join(form.format(ord(character)) if character in characters else character for character in text)


SECRETS = ("canary-Hx72-zz&<q>", "plain0canary1value2")

SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "upper case": str.upper,
    "lower case": str.lower,
    "repr": repr,
    "repr of bytes": lambda value: repr(value.encode()),
    "JSON": json.dumps,
    "JSON in JSON": lambda value: json.dumps(json.dumps({"k": value})),
    "JSON for HTML": lambda value: _escape_characters(json.dumps(value), "&<>'", "\\u{:04x}"),
    "JSON for HTML, upper case": lambda value: _escape_characters(json.dumps(value), "&<>'", "\\u{:04X}"),
    "JSON, all characters": lambda value: "".join(f"\\u{ord(character):04x}" for character in value),
    "HTML": html.escape,
    "HTML, twice": lambda value: html.escape(html.escape(value)),
    "HTML, decimal": lambda value: _escape_characters(value, "&<>\"'-", "&#{:d};"),
    "HTML, hexadecimal": lambda value: _escape_characters(value, "&<>\"'-", "&#x{:X};"),
    "HTML, all characters": lambda value: "".join(f"&#{ord(character)};" for character in value),
    "XML": escape,
    "XML attribute": quoteattr,
    "URL": quote,
    "URL, lower case": lambda value: quote(value, safe="").lower(),
    "URL, form": quote_plus,
    "URL, twice": lambda value: quote(quote(value, safe=""), safe=""),
    "URL, all characters": lambda value: "".join(f"%{byte:02X}" for byte in value.encode()),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64, one byte before": lambda value: base64.b64encode(b":" + value.encode() + b"\n").decode(),
    "base64, two bytes before": lambda value: base64.b64encode(b"u:" + value.encode()).decode(),
    "base64url, no padding": lambda value: base64.urlsafe_b64encode(b"\xff" + value.encode()).decode().rstrip("="),
    "base64 of UTF-16": lambda value: base64.b64encode(value.encode("utf-16-le")).decode(),
    "hex": lambda value: value.encode().hex(),
    "hex, upper case": lambda value: value.encode().hex().upper(),
    "hex, colons": lambda value: value.encode().hex(":"),
    "hex, spaces": lambda value: value.encode().hex(" "),
    "hex, of a byte array": lambda value: ", ".join(f"0x{byte:02x}" for byte in value.encode()),
    "hex, escapes": lambda value: "".join(f"\\x{byte:02x}" for byte in value.encode()),
    "hex dump": lambda value: value.encode().hex(" ", -2),
    "hex of UTF-16": lambda value: value.encode("utf-16-le").hex(),
    "decimal byte array": lambda value: str(list(value.encode())),
    "octal escapes": lambda value: "".join(f"\\{byte:03o}" for byte in value.encode()),
    "shell quotes": shlex.quote,
    "backslashes": lambda value: "".join(c if c.isalnum() else f"\\{c}" for c in value),
    "quoted-printable": lambda value: _escape_characters(value, "&<>\"'=", "={:02X}"),
    "HTML in JSON in a log line": lambda value: json.dumps(json.dumps(html.escape(value))),
    "JSON in HTML": lambda value: html.escape(json.dumps(json.dumps(value))),
    "HTML in a URL": lambda value: quote(html.escape(value), safe=""),
    "HTML in JSON for HTML": lambda value: _escape_characters(json.dumps(html.escape(value)), "&<>'", "\\u{:04x}"),
    "JSON in a URL": lambda value: quote(json.dumps(value)),
    "repr of JSON for HTML": lambda value: repr(_escape_characters(json.dumps(value), "&<>'", "\\u{:04x}")),
}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_secret_is_redacted_in_every_spelling(spelling: str, secret: str) -> None:
    text = SPELLINGS[spelling](secret)
    redacted = redact(f"it is {text}, as you know", [secret])
    assert redacted.startswith("it is ") and redacted.endswith(", as you know")
    assert "***" in redacted
    assert len(redacted.replace("***", "")) < len("it is , as you know") + max(30, len(text) // 8)


def list_kept_spellings(secret: str) -> list[str]:
    """Return the names of the spellings in which a secret is not redacted."""
    texts = {name: f"it is {spell(secret)}, as you know" for name, spell in SPELLINGS.items()}
    return [name for name, text in texts.items() if "***" not in redact(text, [secret])]


@given(
    secret=st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"], max_codepoint=0xFFFF),
        min_size=8,
        max_size=30,
    )
)
@settings(max_examples=examples(20, thorough=60), deadline=None)
def test_no_secret_keeps_a_known_spelling(secret: str) -> None:
    assert list_kept_spellings(secret) == []


@pytest.mark.parametrize("character", string.punctuation + " \u00e9\u0436")
def test_secret_without_letters_keeps_no_known_spelling(character: str) -> None:
    for secret in (f"{character}:::::::", character * 8):
        assert list_kept_spellings(secret) == []


def escape_backslashes(text: str) -> str:
    """Write a backslash, as JSON in JSON for HTML does, before everything but letters and digits."""
    return re.sub("([^A-Za-z0-9])", r"\\\\u005c\1", text)


@contextmanager
def ending_within(seconds: float) -> Iterator[None]:
    """Fail if the block takes longer; `re` lets signals in."""

    def fail(_number: int, _frame: object) -> None:
        raise AssertionError(f"not ended after {seconds} s")

    previous = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize(
    "marks",
    keep_named(
        ["mixed", "-", "'", '"', "&", "\n", "\u00e9"],
        ["mixed", "'\"", *string.punctuation, " ", "\n", "\u00e9", "\udcff"],
    ),
)
def test_text_that_is_nearly_a_secret_takes_no_longer(marks: str) -> None:
    """There is one way to read each character: with two, forty characters would be read in 2**40 ways."""
    marks = string.punctuation * 2 if marks == "mixed" else marks * 40
    for secret, nearly in ((f"{marks}A1b2c3", f"{marks[1:]}A1b2c3"), (f"A1b2c3{marks}x", f"A1b2c3{marks}y")):
        redact(secret, [secret])  # compiles the patterns
        for spell in (*SPELLINGS.values(), escape_backslashes):
            with suppress(UnicodeEncodeError):
                text = spell(nearly)
                with ending_within(2):
                    redact(text, [secret])


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_secret_across_chunks_of_log_is_redacted(tmp_path: Path, size: int) -> None:
    secret, path = SECRETS[0], tmp_path / "web.log"
    printed = "".join(f"{name}: {spell(secret)}\n" for name, spell in SPELLINGS.items()).encode()
    nothing: Any = None
    LogFollower(nothing, "id", path, (secret,))._follow(
        (printed[start : start + size], None) for start in range(0, len(printed), size)
    )
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(SPELLINGS)
    assert [line for line in lines if "***" not in line] == []


def test_overlapping_secrets_are_redacted_as_one() -> None:
    assert redact("<abcdefghi>", ["abcdef", "defghi"]) == "<***>"


@pytest.mark.parametrize("secret", ["&<>!?#%", "\u043f\u0430\u0440\u043e\u043b\u044c", "a&b<c>d", "\\\\\"'`$"])
@pytest.mark.parametrize("spell", [str, json.dumps, html.escape, repr, lambda value: quote(value, safe="")])
def test_secret_without_long_word_is_redacted(secret: str, spell: Callable[[str], str]) -> None:
    assert "***" in redact(f"it is {spell(secret)}, as you know", [secret])


def test_short_value_is_left_alone() -> None:
    assert redact("abc abcd", ["abc"]) == "abc abcd"


def test_text_without_secret_is_left_alone() -> None:
    text = "canary, canary-Hx72 and zz&<q>; 63616e617279"
    assert redact(text, SECRETS) == text
