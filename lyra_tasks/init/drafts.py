"""A service and an image on their way into the configuration."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from lyra_tasks.config.validation.problems import is_secret_name
from lyra_tasks.ports import ContainerPort

SHARED_TEST_VALUE = "only-for-tests-0123456789abcdef"
"""For secrets of a compose file: several services may have to agree on one, so that it cannot be random."""
TMP = "/tmp"  # noqa: S108
"""Every container has it, in memory, whatever else is said of it."""
_PASSWORD_PATTERNS = (
    re.compile(r"((?<=://)[^/\s:@]*:)[^/\s@]+(?=@)"),  # postgres://shop:PASSWORD@db/shop
    re.compile(r"(^[\w.-]+:)[^/\s@]+(?=@(?:tcp|unix)?\()"),  # shop:PASSWORD@tcp(db:3306)/shop
    re.compile(r"(\b(?:password|passwd|pwd)\s*=\s*)(?:'[^']*'|[^;&\s]+)", re.IGNORECASE),  # Server=db;Password=PASSWORD
)
"""The ways in which a password stands in an address; the group is what is before it."""


@dataclass
class DraftVariable:
    """An environment variable; the names are those of the configuration's keys."""

    default: str | None = None
    test_value: str | None = None
    required: bool = False
    secret: bool = False
    description: str = ""


@dataclass
class DraftImage:
    """An image of the project: `dockerfile` is relative to `context`, which is relative to the project."""

    name: str
    context: str
    dockerfile: str
    target: str = ""
    dev_target: str = ""
    args: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    todos: list[str] = field(default_factory=list)


@dataclass
class DraftService:
    """A service; tables are as the configuration writes them. `notes` are said once, `todos` stand in the file."""

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
    """Text as a name of the configuration and as a part of an image reference."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
    return plain or "app"


def unique_name(text: str, existing: Container[str]) -> str:
    """`name_of` the text, with a number behind it where that is taken."""
    name = candidate = make_name(text)
    number = 2
    while candidate in existing:
        candidate, number = f"{name}-{number}", number + 1
    return candidate


def replace_passwords(value: str) -> tuple[str, bool]:
    """An address with the password in it replaced by the one for tests, and whether there was one."""
    replaced = value
    for pattern in _PASSWORD_PATTERNS:
        replaced = pattern.sub(lambda match: f"{match[1]}{SHARED_TEST_VALUE}", replaced)
    return replaced, any(pattern.search(value) for pattern in _PASSWORD_PATTERNS)


def set_variable(service: DraftService, name: str, value: str | None, description: str, *, shared: bool) -> None:
    """Put a variable into a service: a secret without its value, any other with it as default.

    `shared`: other services may have to have the same value. None: no value is known.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        service.todos.append(f"the variable {name!r} has a name that cannot be written here")
        return
    text = " ".join((description or VARIABLE_DESCRIPTIONS.get(name, "")).split())
    if is_secret_name(name):
        service.environment[name] = DraftVariable(
            test_value=SHARED_TEST_VALUE if shared else None, required=True, secret=True, description=text
        )
        return
    if value is None:
        service.environment[name] = DraftVariable(required=True, description=text)
        return
    replaced, has_password = replace_passwords(value)
    if has_password:
        service.environment[name] = DraftVariable(test_value=replaced, required=True, secret=True, description=text)
    elif re.search(r"[\x00-\x1f\x7f-\x9f]", value):
        service.todos.append(f"{name} has several lines: make it a file, in [services.{service.name}.configs]")
    else:
        service.environment[name] = DraftVariable(default=value, description=text)


VARIABLE_DESCRIPTIONS = {
    "PYTHONUNBUFFERED": "log lines appear when they are written",
    "PYTHONDONTWRITEBYTECODE": "Python writes no .pyc files",
    "PYTHONPATH": "where Python looks for modules",
    "PIP_NO_CACHE_DIR": "pip keeps no cache",
    "NODE_ENV": "what Node.js libraries take the machine for",
    "PORT": "the port that it listens on",
    "HOST": "the address that it listens on",
    "TZ": "the time zone of its clock",
    "LOG_LEVEL": "how much it logs",
    "DEBUG": "whether it tells more than a production service should",
    "DATABASE_URL": "where the database is, and who it is asked as",
    "REDIS_URL": "where Redis is",
    "SECRET_KEY": "signs what is handed to clients",
    "POSTGRES_USER": "the user that the database is made for",
    "POSTGRES_PASSWORD": "that user's password",
    "POSTGRES_DB": "the database that is made",
    "MYSQL_ROOT_PASSWORD": "the password of the database's root",
    "MYSQL_DATABASE": "the database that is made",
    "MYSQL_USER": "the user that the database is made for",
    "MYSQL_PASSWORD": "that user's password",
}
"""What a variable is for, where its name says so everywhere."""
