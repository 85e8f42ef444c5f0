"""What text in a configuration must be: no control characters, a single line, not blank; what nobody may see of it."""

from __future__ import annotations

import re


def reject_control_characters(value: str) -> str:
    """The text, unless it could act on a terminal or end a C string; ValueError then."""
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", value):
        raise ValueError("holds control characters; write plain text")
    return value


def require_single_line(value: str) -> str:
    """The text, unless it holds a line break or control characters; ValueError then."""
    if "\n" in value:
        raise ValueError("must be a single line")
    return reject_control_characters(value)


def require_not_blank(value: str) -> str:
    """The text, unless it is empty or white space alone; ValueError then."""
    if not value.strip():
        raise ValueError("is blank; write it down")
    return value


def strip_url_credentials(text: str) -> str:
    """The text without what stands before the host of a URL in it; a password may itself hold an `@`."""
    return re.sub(r"//[^/\s]*@", "//", text)
