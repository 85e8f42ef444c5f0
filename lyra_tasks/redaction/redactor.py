"""Replace secrets in texts and in binary data, however they are spelled."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from lyra_tasks.redaction.search import SpellingSearch

MIN_REDACTED_LENGTH = 4
"""Minimum length of a value that is redacted; shorter ones occur everywhere by chance."""

_MASK = b"***"


class Redactor:
    """Redacts some values of at least `MIN_REDACTED_LENGTH` characters; thread-safe."""

    def __init__(self, values: Iterable[str]) -> None:
        searched = [value for value in dict.fromkeys(values) if len(value) >= MIN_REDACTED_LENGTH]
        self._search = SpellingSearch(searched, ignore_case=True)

    @property
    def max_spelling_bytes(self) -> int:
        """The length of the longest common spelling: as much of a stream must be held back at its end."""
        return self._search.max_spelling_bytes

    def redact_bytes(self, data: bytes) -> bytes:
        """Replace each spelling of each value by `***`."""
        spans = sorted(match.span for match in self._search.find(data))
        if not spans:
            return data
        parts, position = [], 0
        for start, end, _ in spans:
            if start >= position:
                parts += [data[position:start], _MASK]
            position = max(position, end)
        return b"".join((*parts, data[position:]))

    def redact(self, text: str) -> str:
        """Replace each spelling of each value by `***`."""
        data = text.encode(errors="surrogatepass")
        redacted = self.redact_bytes(data)
        return text if redacted is data else redacted.decode(errors="surrogatepass")


@lru_cache(maxsize=16)
def create_redactor(values: tuple[str, ...]) -> Redactor:
    """Return the redactor of some values."""
    return Redactor(values)


def redact(text: str, values: Iterable[str]) -> str:
    """Replace each of the secret values in a text, however it is spelled, by `***`."""
    return create_redactor(tuple(values)).redact(text) if text else text
