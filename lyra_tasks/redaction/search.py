"""Find some values in text or binary data, however they are spelled."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from lyra_tasks.redaction.spellings import (
    Encoding,
    compile_escapes,
    encode_text,
    find_anchor,
    list_encodings,
    list_starts,
    max_escaped_bytes,
    max_spelling_bytes,
    name_escapes,
)

if TYPE_CHECKING:
    from ahocorasick_rs import BytesAhoCorasick

_MAX_DFA_BYTES = 1 << 16  # of fragments; twice as fast, and takes about 250 times as much memory
_MIN_PREFIX_BYTES = 256  # of an encoded value that is cut off
# With few fragments, the automaton skips to bytes that are rare in text, which is three times as slow in binary data.
# These fragments begin with bytes that no text contains, and make it read on.
_PREFILTER_STOPPERS = tuple(bytes([byte]) * 16 for byte in range(0xF5, 0xF9))


class Span(NamedTuple):
    """Where a value is, and in which form."""

    start: int
    end: int
    form: str


class Match(NamedTuple):
    """Where the value with this number is."""

    number: int
    span: Span


class _Escapes:
    """An escaped value; its pattern is compiled when it is needed first."""

    def __init__(self, value: str, *, ignore_case: bool) -> None:
        anchor = find_anchor(value)
        self.fragments = list_starts(value) if anchor is None else (anchor[0].lower().encode(),)
        self._data = encode_text(value)
        self._ignore_case = ignore_case
        middle = anchor.end() if anchor else 0
        self._head, self._tail = value[:middle], value[middle:]
        self._margin_before = max_escaped_bytes(value[: anchor.start()]) if anchor else max_escaped_bytes(value[0])

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
        head, tail = (compile_escapes(part, ignore_case=self._ignore_case) for part in (self._head, self._tail))
        return re.compile(head.pattern + rb"\Z", head.flags), tail

    def match(self, data: bytes, start: int, end: int) -> Span | None:
        """Return where the value is around the fragment from `start` to `end`."""
        head, tail = self._patterns
        begin = max(0, start - self._margin_before)
        if self._head:
            match = head.search(data, begin, end) if self._margin_before else head.match(data, start, end)
            rest = tail.match(data, end) if match else None
        else:  # the fragment is somewhere in the first character
            match = rest = tail.search(data, begin, end + max_escaped_bytes(self._tail))
        if not match or not rest:
            return None
        text = data[match.start() : rest.end()]
        return Span(match.start(), rest.end(), name_escapes(text, self._data))


class SpellingSearch:
    """A search for all spellings of some values at once.

    With `ignore_case`, values that were converted to upper or lower case are found, too.
    """

    def __init__(self, values: Sequence[str], *, ignore_case: bool) -> None:
        targets: dict[bytes, list[tuple[int, _Escapes | Encoding]]] = {}
        for number, value in enumerate(values):
            escapes = _Escapes(value, ignore_case=ignore_case)
            for fragment in escapes.fragments:
                targets.setdefault(fragment, []).append((number, escapes))
            for encoding in filter(lambda encoding: encoding.fragment, list_encodings(value)):
                targets.setdefault(encoding.fragment, []).append((number, encoding))
        self.max_spelling_bytes = max(map(max_spelling_bytes, values), default=0)
        self._targets = [*targets.values(), *([] for _ in _PREFILTER_STOPPERS)]
        self._automaton = _build_automaton(list(targets)) if targets else None

    def find(self, data: bytes) -> Iterator[Match]:
        """Yield all matches in `data`, which may overlap, in no order."""
        if self._automaton is None:
            return
        for fragment, start, end in self._automaton.find_matches_as_indexes(data.lower(), overlapping=True):
            for number, target in self._targets[fragment]:
                if isinstance(target, Encoding):
                    found = _match_encoding(target, data, start, end)
                else:
                    found = target.match(data, start, end)
                if found:
                    yield Match(number, found)


def _build_automaton(fragments: list[bytes]) -> BytesAhoCorasick:
    from ahocorasick_rs import BytesAhoCorasick, Implementation

    implementation = Implementation.DFA if sum(map(len, fragments)) <= _MAX_DFA_BYTES else None
    return BytesAhoCorasick([*fragments, *_PREFILTER_STOPPERS], implementation=implementation)


def _match_encoding(encoding: Encoding, data: bytes, start: int, end: int) -> Span | None:
    """Return where an encoded value is whose fragment is found from `start` to `end`; a long one may be cut off."""
    text, following = encoding.text, data[start : start + len(encoding.text)]
    if not encoding.case_sensitive:
        text, following = text.lower(), following.lower()
    length = len(text) if following == text else _common_length(text, following)
    if length < min(len(text), _MIN_PREFIX_BYTES):
        return None
    end = min(len(data), start + length + encoding.partial_after)
    return Span(max(0, start - encoding.partial_before), end, encoding.form)


def _common_length(first: bytes, second: bytes) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((number for number, (one, other) in pairs if one != other), min(len(first), len(second)))
