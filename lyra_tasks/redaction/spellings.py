"""List how programs spell a value: escaped for JSON, HTML, URLs, shells and source code, or encoded as hex or base64.

Escapes leave letters and digits as they are, so that one such run finds a value whose other characters are escaped in
any way, and a regular expression confirms it. Encodings change every character; they are listed one by one.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise
from urllib.parse import quote

_MAX_NEEDLE_BYTES = 24  # more would not be found faster
_MAX_ESCAPED_BYTES = 32  # of one character: `\\\\\\\\u0026`, `&amp;amp;lt;`, `%25252526`
_MAX_ENCODED_BYTES = 8  # of one byte: `\\\\u0026`
_LONG_RUN = 6  # from here on, an earlier run is better than a longer one
_MIN_CORE_LENGTH = 4  # base64 characters that depend on a value alone

_RUN = re.compile(r"[A-Za-z0-9]+")
_PIECE = re.compile(r"[A-Za-z0-9]+|\\+|['\"]+|.", re.DOTALL)
_SEPARATORS_BY_FORM = {
    "hex": ("", ":", " ", "-", ",", ", ", " 0x", ",0x", ", 0x"),
    "escaped": ("\\x", "\\\\x", "="),
    "URL-encoded": ("%", "%25"),
}
_DECIMAL_SEPARATORS = (",", ", ", " ")
_OCTAL_SEPARATORS = ("\\", "\\\\", " ")
_CONTROL_LETTERS = {"\0": "0", "\a": "a", "\b": "b", "\t": "t", "\n": "n", "\v": "v", "\f": "f", "\r": "r", "\x1b": "e"}
_BEFORE_ENTITY_NAMES = ("&", "26", ";", "3b")  # as in `&lt;`, `\u0026lt;`, `&amp;lt;` and `%26amp%3Blt;`
_BACKSLASH = rb"(?:\\+u005c|\\+x5c|\\+134|\\|%(?:25)*5c|&(?:amp;)*(?:#0*92|#x0*5c|bsol);|=5c)"
_BACKSLASH_CODE = re.compile(r"u005c|x5c|134", re.IGNORECASE)
# One before another character. A text can be divided into such spellings in one way: if there were two for a character,
# to find that a text is not quite a value would take twice the time for each.
_LEADING_BACKSLASH = _BACKSLASH.replace(rb"|\\|", rb"|\\(?!\\*(?:u005c|x5c|134))|")
_AMPERSAND = rb"(?:&|\\+u0026|\\+x26|%(?:25)*26)"
_NUMBER_SIGN = rb"(?:#|\\+u0023|\\+x23|%(?:25)*23)"
_SEMICOLON = rb"(?:;|\\+u003b|\\+x3b|%(?:25)*3b)"


@dataclass(frozen=True)
class Encoding:
    """An encoded value: `text` begins with `fragment`, which is looked for in lower-cased data.

    `partial_before` and `partial_after` count the adjacent characters that encode a part of the value, too.
    """

    fragment: bytes
    text: bytes
    form: str
    case_sensitive: bool = False
    partial_before: int = 0
    partial_after: int = 0


def encode_text(value: str) -> bytes:
    """Return a value as in its file; binary files, such as key stores, are read with `surrogateescape`."""
    try:
        return value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return value.encode(errors="surrogatepass")


def list_encodings(value: str) -> Iterator[Encoding]:
    """Yield the encodings of a value in which no character remains as it is."""
    data = encode_text(value)
    yield from _list_hex_dumps(data)
    yield from _list_code_points(value)
    for separator in _DECIMAL_SEPARATORS:
        yield _encoding(separator.join(map(str, data)), "decimal")
    for separator in _OCTAL_SEPARATORS:
        yield _encoding(separator.join(f"{byte:03o}" for byte in data), "octal")
    for text in _texts_to_encode(value, data):
        yield from _list_base64(text)
    for codec in ("utf-16-le", "utf-16-be"):
        wide = value.encode(codec, errors="surrogatepass")
        yield _encoding(wide.strip(b"\0"), "UTF-16")
        yield _encoding(wide.hex(), "hex")
        yield from _list_base64(wide)


def find_anchor(value: str) -> re.Match[str] | None:
    """Return the run of letters and digits by which an escaped value is found, if it has any."""
    runs = list(_RUN.finditer(value))
    return max(runs, key=lambda run: min(len(run[0]), _LONG_RUN), default=None)


def list_starts(value: str) -> tuple[bytes, ...]:
    """Return the ways to spell the first character of a value that has no anchor, in lower case."""
    first = value[0]
    code, data = ord(first), encode_text(first)
    numbers = (f"{code}", f"0{code}", f"x{code:x}", f"x0{code:x}")
    starts = {f"{mark}{number}" for number in numbers for mark in ("#", "23")}
    starts |= {f"u{{{code:x}", f"u{code:08x}", f"x{code:02x}"}
    starts |= {f"{prefix}{data[0]:02x}" for prefix in ("x", "%", "25", "=")} | {f"\\{data[0]:03o}"}
    starts |= {f"u{unit}" for unit in _utf16_units(first)[:1]} | {f"\\{_CONTROL_LETTERS.get(first, first)}"}
    starts |= {f"{end}{name}" for name in _entity_names().get(first, ()) for end in _BEFORE_ENTITY_NAMES}
    starts |= {first, first.lower(), first.upper()}
    return tuple(sorted({encode_text(start).lower() for start in starts}))


def max_escaped_bytes(text: str) -> int:
    """Return how many bytes a part of an escaped value takes at most."""
    return sum(1 if character.isascii() and character.isalnum() else _MAX_ESCAPED_BYTES for character in text)


def max_spelling_bytes(value: str) -> int:
    """Return how many bytes a common spelling of a value takes at most."""
    return _MAX_ENCODED_BYTES * len(encode_text(value)) + _MAX_ESCAPED_BYTES


def compile_escapes(value: str, *, ignore_case: bool) -> re.Pattern[bytes]:
    """Return a pattern of a value whose characters, except letters and digits, are escaped in any way."""
    flags = re.IGNORECASE if ignore_case else re.NOFLAG
    pieces = [*_PIECE.findall(value), ""]
    escaped = (_escape_piece(piece, after, ignore_case=ignore_case) for piece, after in pairwise(pieces))
    return re.compile(b"".join(escaped), flags)


def name_escapes(text: bytes, value: bytes) -> str:
    """Return the name of the form in which a text spells a value."""
    if value in text:
        return "verbatim"
    if re.search(rb"&[#\w]+;", text):
        return "HTML-escaped"
    if re.search(rb"%[0-9A-Fa-f]{2}", text):
        return "URL-encoded"
    return "JSON-escaped" if b"\\" in text else "escaped"


def _encoding(text: str | bytes, form: str) -> Encoding:
    data = text.encode() if isinstance(text, str) else text
    return Encoding(data[:_MAX_NEEDLE_BYTES].lower(), data, form)


def _list_code_points(value: str) -> Iterator[Encoding]:
    units = [unit for character in value for unit in _utf16_units(character)]
    for backslash in ("\\", "\\\\"):
        yield _encoding(f"{backslash}u".join(units), "JSON-escaped")
    yield _encoding(";&#".join(str(ord(character)) for character in value), "HTML-escaped")
    yield _encoding(";&#x".join(f"{ord(character):x}" for character in value), "HTML-escaped")


def _list_hex_dumps(data: bytes) -> Iterator[Encoding]:
    digits = [f"{byte:02x}" for byte in data]
    for form, separators in _SEPARATORS_BY_FORM.items():
        for separator in separators:
            yield _encoding(separator.join(digits), form)
    for start in (0, 1):  # where the pairs of `xxd` and the little-endian words of `od -x` begin
        head, pairs = digits[:start], [digits[at : at + 2] for at in range(start, len(digits), 2)]
        yield _encoding(" ".join(["".join(head)] * start + ["".join(pair) for pair in pairs]), "hex")
        words = ["".join(reversed(pair)) for pair in pairs if len(pair) == 2]
        if len(words) > 1:
            yield _encoding(" ".join(words), "hex")


def _texts_to_encode(value: str, data: bytes) -> set[bytes]:
    """Return a value as it stands in documents, which are then encoded as a whole."""
    escaped = json.dumps(value)[1:-1]
    texts = (escaped, json.dumps(value, ensure_ascii=False)[1:-1], html.escape(value), quote(data, safe=""))
    for character in "&<>":
        escaped = escaped.replace(character, f"\\u{ord(character):04x}")
    return {data, *(encode_text(text) for text in (*texts, escaped))}


def _list_base64(data: bytes) -> Iterator[Encoding]:
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + data)
        remainder = (offset + len(data)) % 3
        # only the characters that depend on `data` alone, if it begins at `offset` in a group of three bytes
        core = encoded[(0, 2, 3)[offset] : len(encoded) - (0, 3, 2)[remainder]]
        if len(core) < _MIN_CORE_LENGTH:
            continue
        url_safe = core.translate(bytes.maketrans(b"+/", b"-_"))
        quoted = core.replace(b"+", b"%2B").replace(b"/", b"%2F")
        for text in {core, url_safe, quoted, core.replace(b"/", b"\\/")}:
            partial_after = int(remainder != 0)
            yield Encoding(text[:_MAX_NEEDLE_BYTES].lower(), text, "base64", True, int(offset != 0), partial_after)


def _escape_piece(piece: str, after: str, *, ignore_case: bool) -> bytes:
    """Return a pattern of letters and digits, of backslashes or of quotes, or of another character, escaped."""
    if piece.isascii() and piece.isalnum():
        return piece.encode()
    if piece[0] == "\\":
        backslash = _BACKSLASH if _BACKSLASH_CODE.match(after) else _LEADING_BACKSLASH
        return b"(?i:%b){%d,%d}" % (backslash, len(piece), 16 * len(piece))
    if piece[0] in "'\"" and len(piece) > 1:  # in a shell's quotes, one may become five
        quotes = b"|".join(chain(_escape_character("'"), _escape_character('"')))
        return b"(?:%b){%d,%d}" % (quotes, len(piece), 5 * len(piece))
    variants = dict.fromkeys((piece, piece.lower(), piece.upper()) if ignore_case else (piece,))
    alternatives = [
        alternative
        for variant in variants
        for alternative in (_escape_character(variant) if len(variant) == 1 else [re.escape(encode_text(variant))])
    ]
    if piece in "'\"":
        alternatives.insert(0, piece.encode() * 2)  # in CSV, SQL and YAML
    if piece == "'":
        alternatives.insert(0, rb"'(?:\\+'|\"'\")'")  # in a shell's quotes
    return b"(?:%b)" % b"|".join(alternatives)


def _escape_character(character: str) -> Iterator[bytes]:
    data, code = encode_text(character), ord(character)
    backslashes = _LEADING_BACKSLASH + b"+"
    codes = [rb"u\{0*%x\}" % code, b"U%08x" % code]
    codes.append(backslashes.join(b"u" + unit.encode() for unit in _utf16_units(character)))
    codes.append(backslashes.join(b"x%02x" % byte for byte in data))
    codes.append(backslashes.join(b"%03o" % byte for byte in data))
    if code < 256:
        codes.append(b"x%02x" % code)
    if character in _CONTROL_LETTERS:
        codes.append(_CONTROL_LETTERS[character].encode())
    names = [b"%b(?:0*%d|x0*%x)" % (_NUMBER_SIGN, code, code)]
    names += sorted({name.lower().encode() for name in _entity_names().get(character, ())})
    entity = b"%b(?:(?:amp|%b(?:0*38|x0*26))%b)*(?:%b)%b" % (
        _AMPERSAND, _NUMBER_SIGN, _SEMICOLON, b"|".join(names), _SEMICOLON
    )  # fmt: skip
    percents = b"".join(b"%%(?:25)*%02x" % byte for byte in data)
    yield re.escape(data)
    yield b"(?i:%b{1,16}(?:%b))" % (_LEADING_BACKSLASH, b"|".join(codes))
    yield b"(?i:%b){1,16}(?:%b)" % (_LEADING_BACKSLASH, re.escape(data))
    yield b"(?i:(?:%b){0,16}(?:%b|%b))" % (_LEADING_BACKSLASH, percents, entity)
    yield b"(?i:%b)" % b"".join(b"=%02x" % byte for byte in data)
    if character == " ":
        yield rb"\+"
    if character == "\n":
        yield b"\r\n"


def _utf16_units(character: str) -> list[str]:
    data = character.encode("utf-16-be", errors="surrogatepass")
    return [data[at : at + 2].hex() for at in range(0, len(data), 2)]


@cache
def _entity_names() -> dict[str, list[str]]:
    """Return the names of HTML's entities by character, without the semicolon."""
    from html.entities import html5

    names: dict[str, list[str]] = {}
    for name, character in html5.items():
        if name.endswith(";"):
            names.setdefault(character, []).append(name.removesuffix(";"))
    return names
