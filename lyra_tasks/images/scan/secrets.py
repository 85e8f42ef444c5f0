"""Search for secrets in all forms: verbatim, escaped, as base64 at every offset, as hex.

Matches name the secret and the form, never the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from lyra_tasks.images.stream.tar import Block
from lyra_tasks.redaction.search import SpellingSearch
from lyra_tasks.redaction.spellings import encode_text

MIN_SECRET_LENGTH = 8
"""Minimum secret length; shorter values match by chance."""

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
        parts = [(name, part) for name, value in secrets.items() for part in split_secret(value)]
        self._names = [name for name, _ in parts]
        self._search = SpellingSearch([part for _, part in parts], ignore_case=False)

    def __bool__(self) -> bool:
        return bool(self._names)

    def search(self, data: Block) -> set[SecretMatch]:
        """Return the matches in `data`."""
        return {SecretMatch(self._names[match.number], match.span.form) for match in self._search.find(bytes(data))}

    def search_stream(self, blocks: Iterable[Block], matches: set[SecretMatch]) -> Iterator[Block]:
        """Pass on the blocks; matches in them, also across two blocks, are added to `matches`."""
        longest = self._search.max_spelling_bytes
        tail = b""
        for block in blocks:
            matches |= self.search(block)
            if longest > 1:
                if tail:
                    matches |= self.search(tail + bytes(block[: longest - 1]))
                tail = (tail + bytes(block[-longest:]))[1 - longest :]
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
    return tuple(dict.fromkeys(part for part in candidates if len(encode_text(part)) >= MIN_SECRET_LENGTH))


def _looks_secret(word: str) -> bool:
    """Return whether a word of a file may be a secret: long, of letters and digits, not a URL or a heading."""
    if len(word) < _MIN_WORD_LENGTH or "://" in word or word.startswith(("--", "//")):
        return False
    return any(character.isdigit() for character in word) and any(character.isalpha() for character in word)
