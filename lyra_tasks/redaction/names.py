"""Recognize variables and URLs that hold secrets."""

from __future__ import annotations

import re

SECRET_NAME_PATTERN = re.compile(
    r"TOKEN|PASSWORD|PASSWD|SECRET|KEYS?(?![A-Z])|(?<![A-Z])PASS(?:PHRASE)?(?![A-Z])|_PWD(?![A-Z])", re.IGNORECASE
)


def is_secret_name(name: str) -> bool:
    """Return whether a variable of this name holds a secret, not just the path of one."""
    return SECRET_NAME_PATTERN.search(name) is not None and not name.upper().endswith(("_FILE", "_PATH", "_DIR"))


def strip_url_credentials(text: str) -> str:
    """Remove user and password from the URLs in a text; a password may itself contain an `@`."""
    return re.sub(r"//[^/\s]*@", "//", text)
