"""Recognize variables and URLs that hold secrets."""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET_WORDS = frozenset(
    {"PASS", "PASSPHRASE", "PASSWORD", "PASSWORDS", "PASSWD", "SECRET", "SECRETS", "TOKEN", "TOKENS"}
)
_SECRET_SUFFIXES = ("PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN")
_SECRET_KEY = re.compile(r"(?:ACCESS|API|AUTH|ENCRYPTION|MASTER|PRIVATE|SECRET|SIGNING|SSH)KEYS?")
_HARMLESS_KEYS = frozenset(
    {"CACHE", "COLUMN", "FOREIGN", "GROUP", "HOT", "INDEX", "PARTITION", "PRIMARY", "PUBLIC", "PUBLISHABLE", "ROUTING",
     "SORT", "UNIQUE"}
)  # fmt: skip
"""What makes a key one that everybody may know."""
_QUANTITIES = frozenset({"MAX", "MIN", "NUM", "NUMBER", "TOTAL"})
"""What makes the next word one that is counted: MAX_TOKENS."""
_ATTRIBUTES = frozenset(
    {"AGE", "ALG", "ALGORITHM", "AUDIENCE", "CHARS", "COUNT", "DAYS", "DIR", "DIRECTORY", "DURATION", "ENABLED",
     "ENDPOINT", "EXPIRATION", "EXPIRE", "EXPIRES", "EXPIRY", "FIELD", "FILE", "FORMAT", "HEADER", "HOST", "HOURS",
     "ID", "ISSUER", "LEN", "LENGTH", "LIFETIME", "LIMIT", "MAX", "MIN", "MINUTES", "MODE", "NAME", "PATH", "PATTERN",
     "POLICY", "PORT", "PREFIX", "REQUIRED", "ROTATION", "ROUNDS", "SECONDS", "SIZE", "SUFFIX", "TIMEOUT", "TTL",
     "TYPE", "URI", "URL"}
)  # fmt: skip
"""What is said about a secret without giving it away: TOKEN_TTL, PASSWORD_MIN_LENGTH."""


def is_secret_name(name: str) -> bool:
    """Return whether a variable of this name holds a secret, not just its path or something about it.

    Words count, not letters inside a word: VALKEY is none, PGPASSWORD and PASS are.
    """
    words = [word.upper() for word in _WORD.findall(name)]
    last = max((index for index in range(len(words)) if _is_secret_word(words, index)), default=None)
    return last is not None and not _ATTRIBUTES & set(words[last + 1 :])


def _is_secret_word(words: list[str], index: int) -> bool:
    word = words[index]
    if index and words[index - 1] in _QUANTITIES:
        return False
    if word in {"KEY", "KEYS"}:
        return not (index and words[index - 1] in _HARMLESS_KEYS)
    if word == "PWD":
        return index > 0  # PWD itself is the working directory
    return word in _SECRET_WORDS or word.endswith(_SECRET_SUFFIXES) or _SECRET_KEY.fullmatch(word) is not None


def strip_url_credentials(text: str) -> str:
    """Remove user and password from the URLs in a text; a password may itself contain an `@`."""
    return re.sub(r"//[^/\s]*@", "//", text)
