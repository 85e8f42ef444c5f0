"""Drafts of images and services, before they are written to the configuration."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from lyra_tasks.ports import ContainerPort
from lyra_tasks.redaction import is_secret_name

SHARED_TEST_VALUE = "only-for-tests-0123456789abcdef"
"""Test value of secrets in a compose file, which is not random since several services may share it."""
TMP = "/tmp"  # noqa: S108
"""Path that is a tmpfs in every container."""
_PASSWORD_PATTERNS = (
    re.compile(r"((?<=://)[^/\s:@]*:)[^/\s@]+(?=@)"),  # postgres://shop:PASSWORD@db/shop
    re.compile(r"(^[\w.-]+:)[^/\s@]+(?=@(?:tcp|unix)?\()"),  # shop:PASSWORD@tcp(db:3306)/shop
    re.compile(r"(\b(?:password|passwd|pwd)\s*=\s*)(?:'[^']*'|[^;&\s]+)", re.IGNORECASE),  # Server=db;Password=PASSWORD
)
"""Passwords in addresses, with the text before the password as a group."""


@dataclass
class DraftVariable:
    """An environment variable with the keys of the configuration."""

    default: str | None = None
    test_value: str | None = None
    required: bool = False
    secret: bool = False
    description: str = ""


@dataclass
class DraftImage:
    """An image; `dockerfile` is relative to `context`, which is relative to the project."""

    name: str
    context: str
    dockerfile: str
    target: str = ""
    dev_target: str = ""
    args: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    todos: list[str] = field(default_factory=list)

    @property
    def dockerfile_path(self) -> str:
        """Return the path of the Dockerfile, relative to the project."""
        return posixpath.normpath(posixpath.join(self.context, self.dockerfile))

    @property
    def build_key(self) -> tuple[object, ...]:
        """Return everything that the build depends on: images with the same key are the same."""
        return self.context, self.dockerfile, self.target, self.args


@dataclass
class DraftService:
    """A service with tables as in the configuration; `notes` are printed, `todos` written to the file."""

    name: str
    image: str = ""
    external: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    ports: dict[str, ContainerPort] = field(default_factory=dict)
    depends_on: list[str] = field(default_factory=list)
    limits: dict[str, Any] = field(default_factory=dict)
    tmpfs: dict[str, str] = field(default_factory=dict)
    healthcheck: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, DraftVariable] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    configs: dict[str, dict[str, str]] = field(default_factory=dict)
    volumes: dict[str, dict[str, str]] = field(default_factory=dict)
    dev: dict[str, Any] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    todos: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_name(text: str) -> str:
    """Convert a text to a name that is valid in the configuration and in an image reference."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-") or "app"


def unique_name(text: str, existing: Container[str]) -> str:
    """Convert a text to a name, with a number if the name exists already."""
    name = candidate = make_name(text)
    number = 2
    while candidate in existing:
        candidate, number = f"{name}-{number}", number + 1
    return candidate


def replace_passwords(value: str) -> tuple[str, bool]:
    """Replace the password in an address by the test value, and return whether there was one."""
    replaced = value
    for pattern in _PASSWORD_PATTERNS:
        replaced = pattern.sub(lambda match: f"{match[1]}{SHARED_TEST_VALUE}", replaced)
    return replaced, any(pattern.search(value) for pattern in _PASSWORD_PATTERNS)


def set_variable(service: DraftService, name: str, value: str | None, description: str, *, shared: bool) -> None:
    """Add a variable to a service, with its value as default unless it is a secret.

    `shared`: other services may need the same test value. `value` is None if it is not known.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        service.todos.append(f"the variable {name!r} does not have a valid name")
        return
    text = " ".join((description or VARIABLE_DESCRIPTIONS.get(name, "")).split())
    replaced, has_password = replace_passwords(value or "")
    if is_secret_name(name):
        service.environment[name] = DraftVariable(
            test_value=SHARED_TEST_VALUE if shared else None, required=True, secret=True, description=text
        )
    elif value is None:
        service.environment[name] = DraftVariable(required=True, description=text)
    elif has_password:
        service.environment[name] = DraftVariable(test_value=replaced, required=True, secret=True, description=text)
    elif re.search(r"[\x00-\x1f\x7f-\x9f]", value):
        service.todos.append(f"{name} has several lines: use a file in [services.{service.name}.configs]")
    else:
        service.environment[name] = DraftVariable(default=value, description=text)


VARIABLE_DESCRIPTIONS = {
    "PYTHONUNBUFFERED": "log without buffering",
    "PYTHONDONTWRITEBYTECODE": "do not write .pyc files",
    "PYTHONPATH": "search path of modules",
    "PIP_NO_CACHE_DIR": "do not cache packages of pip",
    "NODE_ENV": "environment that Node.js libraries assume",
    "PORT": "port to listen on",
    "HOST": "address to listen on",
    "TZ": "time zone",
    "LOG_LEVEL": "log level",
    "DEBUG": "debug mode",
    "DATABASE_URL": "URL of the database, with user and password",
    "REDIS_URL": "URL of Redis",
    "SECRET_KEY": "key that signs data for clients",
    "POSTGRES_USER": "user of the database",
    "POSTGRES_PASSWORD": "password of the database's user",
    "POSTGRES_DB": "name of the database",
    "MYSQL_ROOT_PASSWORD": "password of the database's root user",
    "MYSQL_DATABASE": "name of the database",
    "MYSQL_USER": "user of the database",
    "MYSQL_PASSWORD": "password of the database's user",
}
"""Descriptions of variables with a well-known name."""
