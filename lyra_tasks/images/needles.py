"""Secrets as they may stand in an image: raw, base64 at every offset, URL-encoded, as JSON writes them.

Values stay in memory: what is found is told by the secret's name, the form and the place.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from lyra_tasks.images.stage import Block

if TYPE_CHECKING:
    from ahocorasick_rs import BytesAhoCorasick

SHORTEST = 8
"""A shorter value stands in any image by chance; it is not looked for."""

_LONGEST = 256
_MOST_PARTS = 64
_PART = 16
_SEPARATORS = re.compile(r"[\s\"',;=<>]+")
_PUBLIC = re.compile(
    r"(?:^#[^\n]*\n|^\n)*^-----BEGIN (?:TRUSTED )?CERTIFICATE-----$.*?^-----END (?:TRUSTED )?CERTIFICATE-----$",
    re.DOTALL | re.MULTILINE,
)
_CREDENTIAL = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s:]*:([^/@\s]+)@", re.IGNORECASE)


@dataclass(frozen=True)
class Hit:
    """A secret that was found: its name and the form in which it stands there."""

    secret: str
    form: str


class Needles:
    """All forms of all secrets, looked for at once."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        patterns: dict[bytes, Hit] = {}
        for name, value in secrets.items():
            for part in parts(value):
                for pattern, form in forms(part):
                    patterns.setdefault(pattern, Hit(name, form))
        self._hits = list(patterns.values())
        self._longest = max(map(len, patterns), default=0)
        self._automaton = _automaton(list(patterns)) if patterns else None

    def __bool__(self) -> bool:
        return self._automaton is not None

    def search(self, data: Block) -> set[Hit]:
        """What stands in `data`."""
        if self._automaton is None:
            return set()
        return {self._hits[number] for number, _, _ in self._automaton.find_matches_as_indexes(data)}

    def watched(self, blocks: Iterable[Block], found: set[Hit]) -> Iterator[Block]:
        """The blocks as they come; what stands in them, also across two of them, is added to `found`."""
        before = b""
        for block in blocks:
            found |= self.search(block)
            if self._longest > 1:
                if before:
                    found |= self.search(before + bytes(block[: self._longest - 1]))
                before = (before + bytes(block[-self._longest :]))[1 - self._longest :]
            yield block


def parts(value: str) -> tuple[str, ...]:
    """What of a secret is looked for: all of it; of a file with several lines also what in it may be secret alone.

    Certificates are public, and programs bring the same ones: a file of them, with its comments, holds no secret.
    """
    whole = _PUBLIC.sub("", value).strip()
    found = [whole]
    found += _CREDENTIAL.findall(whole)
    if "\n" in whole:
        words = (word for line in whole.splitlines() for word in _SEPARATORS.split(line))
        telling = [word for word in words if _is_telling(word)]
        found += telling[:_MOST_PARTS]
    return tuple(dict.fromkeys(part for part in found if len(_bytes(part)) >= SHORTEST))


def written_forms(values: Iterable[str]) -> tuple[str, ...]:
    """Every form of some secrets as text, the longest first: what is to be blotted out of what is printed."""
    found = {
        pattern.decode(errors="replace")
        for value in values
        for part in parts(value)
        if len(_bytes(part)) >= SHORTEST
        for pattern, _ in forms(part)
    }
    return tuple(sorted(found, key=len, reverse=True))


def forms(value: str) -> Iterator[tuple[bytes, str]]:
    """Every form of a value, as the bytes to look for; of a very long one the beginning is enough."""
    data = _bytes(value)
    yield data[:_LONGEST], "as it is"
    for written in {quote(data, safe=""), quote(data), quote_plus(data)}:
        for each in (written, re.sub(r"%..", lambda match: match[0].lower(), written)):
            yield each.encode()[:_LONGEST], "URL-encoded"
    for ascii_only in (True, False):
        yield _bytes(json.dumps(value, ensure_ascii=ascii_only)[1:-1])[:_LONGEST], "as JSON"
    for offset in range(3):
        encoded = _inner(data[:_LONGEST], offset)
        yield encoded, "base64"
        yield encoded.translate(bytes.maketrans(b"+/", b"-_")), "base64"


def _bytes(text: str) -> bytes:
    """A secret as its file has it: one that is no text, such as a key store, is read with `surrogateescape`."""
    return text.encode(errors="surrogateescape")


def _inner(data: bytes, offset: int) -> bytes:
    """The base64 of `data` where it begins at `offset` in a group of three: the characters that depend on it alone."""
    encoded = base64.b64encode(bytes(offset) + data)
    start = (0, 2, 3)[offset]
    loose = (offset + len(data)) % 3
    return encoded[start : len(encoded) - (0, 3, 2)[loose]]


def _is_telling(word: str) -> bool:
    """Whether a word of a file may be secret on its own: long, of letters and digits, no address and no heading."""
    if len(word) < _PART or "://" in word or word.startswith(("--", "//")):
        return False
    return any(each.isdigit() for each in word) and any(each.isalpha() for each in word)


def _automaton(patterns: list[bytes]) -> BytesAhoCorasick:
    from ahocorasick_rs import BytesAhoCorasick

    return BytesAhoCorasick(patterns)
