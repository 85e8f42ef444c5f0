"""Search for secrets in all forms: verbatim, base64 at every offset, URL-encoded, JSON-escaped.

Matches name the secret and the form, never the value.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from lyra_tasks.images.stream.tar import Block

if TYPE_CHECKING:
    from ahocorasick_rs import BytesAhoCorasick

MIN_SECRET_LENGTH = 8
"""Minimum secret length; shorter values match by chance."""

_MAX_PATTERN_BYTES = 256
_MAX_PARTS = 64
_MIN_WORD_LENGTH = 16
_SEPARATORS = re.compile(r"[\s\"',;=<>]+")
_PUBLIC_CERTIFICATES = re.compile(
    r"(?:^#[^\n]*\n|^\n)*^-----BEGIN (?:TRUSTED )?CERTIFICATE-----$.*?^-----END (?:TRUSTED )?CERTIFICATE-----$",
    re.DOTALL | re.MULTILINE,
)
_CREDENTIAL = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s:]*:([^/@\s]+)@", re.IGNORECASE)


@dataclass(frozen=True)
class SecretMatch:
    """The name of a secret that was found, and its form there."""

    secret: str
    form: str


class SecretMatcher:
    """A search for all forms of all secrets at once."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        patterns: dict[bytes, SecretMatch] = {}
        for name, value in secrets.items():
            for part in split_secret(value):
                for pattern, form in encode_secret(part):
                    patterns.setdefault(pattern, SecretMatch(name, form))
        self._matches = list(patterns.values())
        self._longest_pattern = max(map(len, patterns), default=0)
        self._automaton: BytesAhoCorasick | None = None
        if patterns:
            from ahocorasick_rs import BytesAhoCorasick

            self._automaton = BytesAhoCorasick(list(patterns))

    def __bool__(self) -> bool:
        return self._automaton is not None

    def search(self, data: Block) -> set[SecretMatch]:
        """Return the matches in `data`."""
        if self._automaton is None:
            return set()
        return {self._matches[number] for number, _, _ in self._automaton.find_matches_as_indexes(data)}

    def search_stream(self, blocks: Iterable[Block], matches: set[SecretMatch]) -> Iterator[Block]:
        """Pass on the blocks; matches in them, also across two blocks, are added to `matches`."""
        tail = b""
        for block in blocks:
            matches |= self.search(block)
            if self._longest_pattern > 1:
                if tail:
                    matches |= self.search(tail + bytes(block[: self._longest_pattern - 1]))
                tail = (tail + bytes(block[-self._longest_pattern :]))[1 - self._longest_pattern :]
            yield block


def split_secret(value: str) -> tuple[str, ...]:
    """Return the parts of a secret to search for: all of it, passwords in URLs, and secret words in a multi-line file.

    Certificates are left out with their comments: they are public, and programs ship the same ones.
    """
    whole = _PUBLIC_CERTIFICATES.sub("", value).strip()
    candidates = [whole, *_CREDENTIAL.findall(whole)]
    if "\n" in whole:
        words = (word for line in whole.splitlines() for word in _SEPARATORS.split(line))
        candidates += islice(filter(_looks_secret, words), _MAX_PARTS)
    return tuple(dict.fromkeys(part for part in candidates if len(_bytes(part)) >= MIN_SECRET_LENGTH))


def encode_secrets(values: Iterable[str]) -> tuple[str, ...]:
    """Return all forms of some secrets as text to redact, longest first."""
    encoded = {
        pattern.decode(errors="replace")
        for value in values
        for part in split_secret(value)
        for pattern, _ in encode_secret(part)
    }
    return tuple(sorted(encoded, key=len, reverse=True))


def encode_secret(value: str) -> Iterator[tuple[bytes, str]]:
    """Yield all forms of a value as bytes, truncated if it is very long, with the name of the form."""
    data = _bytes(value)
    yield data[:_MAX_PATTERN_BYTES], "verbatim"
    for quoted in {quote(data, safe=""), quote(data), quote_plus(data)}:
        for variant in (quoted, re.sub(r"%..", lambda match: match[0].lower(), quoted)):
            yield variant.encode()[:_MAX_PATTERN_BYTES], "URL-encoded"
    for ascii_only in (True, False):
        yield _bytes(json.dumps(value, ensure_ascii=ascii_only)[1:-1])[:_MAX_PATTERN_BYTES], "JSON-escaped"
    for offset in range(3):
        encoded = _stable_base64(data[:_MAX_PATTERN_BYTES], offset)
        yield encoded, "base64"
        yield encoded.translate(bytes.maketrans(b"+/", b"-_")), "base64"


def _bytes(text: str) -> bytes:
    """Return a secret as in its file; binary files, such as key stores, are read with `surrogateescape`."""
    return text.encode(errors="surrogateescape")


def _stable_base64(data: bytes, offset: int) -> bytes:
    """Return the base64 characters that depend on `data` alone, if it begins at `offset` in a group of three bytes."""
    encoded = base64.b64encode(bytes(offset) + data)
    start = (0, 2, 3)[offset]
    remainder = (offset + len(data)) % 3
    return encoded[start : len(encoded) - (0, 3, 2)[remainder]]


def _looks_secret(word: str) -> bool:
    """Return whether a word of a file may be a secret: long, of letters and digits, not a URL or a heading."""
    if len(word) < _MIN_WORD_LENGTH or "://" in word or word.startswith(("--", "//")):
        return False
    return any(character.isdigit() for character in word) and any(character.isalpha() for character in word)
