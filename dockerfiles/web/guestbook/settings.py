"""Settings from environment variables, a configuration file and a secret file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

THEMES = ("light", "dark")
SHORTEST_KEY = 16


class SettingsError(Exception):
    """A setting is missing or invalid; the text names it without its value."""


@dataclass(frozen=True)
class Settings:
    """All settings of the service."""

    greeting: str
    title: str
    theme: str
    counter: tuple[str, int]
    database: Path
    admin_token: str = field(repr=False)
    session_key: bytes = field(repr=False)


def load_settings(
    environment: Mapping[str, str],
    *,
    site: Path = Path("/etc/guestbook.toml"),
    key: Path = Path("/run/secrets/session_key"),
    data: Path = Path("/data"),
) -> Settings:
    """Read all settings; raise SettingsError for the first problem."""
    title, theme = _site(site)
    return Settings(
        greeting=environment.get("GREETING", "hello"),
        title=title,
        theme=theme,
        counter=_address(environment.get("COUNTER_URL", "http://counter:8000")),
        database=data / "guestbook.sqlite3",
        admin_token=_token(environment.get("ADMIN_TOKEN", "")),
        session_key=_key(key),
    )


def _site(file: Path) -> tuple[str, str]:
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from error
    title, theme = values.get("title"), values.get("theme", "light")
    if not isinstance(title, str) or not 1 <= len(title) <= 80:
        raise SettingsError(f"{file}: title must be a text of 1 to 80 characters")
    if theme not in THEMES:
        raise SettingsError(f"{file}: theme must be one of {', '.join(THEMES)}")
    return title, theme


def _address(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError as error:
        raise SettingsError("COUNTER_URL must look like http://counter:8000") from error
    if parts.scheme != "http" or not host or parts.path.strip("/"):
        raise SettingsError("COUNTER_URL must look like http://counter:8000")
    return host, port


def _token(token: str) -> str:
    if not token or not token.isascii():
        raise SettingsError("ADMIN_TOKEN must be set, in ASCII")
    return token


def _key(file: Path) -> bytes:
    try:
        key = file.read_bytes().strip()
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from error
    if len(key) < SHORTEST_KEY:
        raise SettingsError(f"{file} must hold at least {SHORTEST_KEY} bytes")
    return key
