"""Stand-ins for secrets: tests need values, and those that somebody really uses must not be in any record."""

from __future__ import annotations

import re
from collections.abc import Callable

SHARED_TEST_VALUE = "only-for-tests-0123456789abcdef"
"""Test value of the secrets of a Compose project, the same for all, since several services may share one."""
_PASSWORD_PATTERNS = (
    re.compile(r"((?<=://)[^/\s:@]*:)[^/\s@]+(?=@)"),  # postgres://shop:PASSWORD@db/shop
    re.compile(r"(^[\w.-]+:)[^/\s@]+(?=@(?:tcp|unix)?\()"),  # shop:PASSWORD@tcp(db:3306)/shop
    re.compile(r"(\b(?:password|passwd|pwd)\s*=\s*)(?:'[^']*'|[^;&\s]+)", re.IGNORECASE),  # Server=db;Password=PASSWORD
)
"""Passwords in addresses, with the text before the password as a group."""
_SECRET_OPTION = re.compile(r"--?[A-Za-z-]*(?:pass|passwd|password|token|secret|api-?key)", re.IGNORECASE)


def replace_passwords(value: str, is_public: Callable[[str], bool] = lambda _: False) -> tuple[str, bool]:
    """Replace the password in an address by the test value, and return whether there was one.

    One that `is_public` stays as it is.
    """

    def replace(match: re.Match[str]) -> str:
        password = match[0].removeprefix(match[1])
        return match[0] if is_public(password.strip("'")) else f"{match[1]}{SHARED_TEST_VALUE}"

    replaced = value
    for pattern in _PASSWORD_PATTERNS:
        replaced = pattern.sub(replace, replaced)
    return replaced, any(pattern.search(value) for pattern in _PASSWORD_PATTERNS)


def replace_password_by_variable(value: str, find_variable: Callable[[str], str | None]) -> str:
    """Return an address with `${NAME}` in the place of each password, for a name that is found by it; else ''."""
    names: list[str | None] = []

    def replace(match: re.Match[str]) -> str:
        names.append(name := find_variable(match[0].removeprefix(match[1]).strip("'")))
        return f"{match[1]}${{{name}}}"

    for pattern in _PASSWORD_PATTERNS:
        value = pattern.sub(replace, value)
    return value if names and None not in names else ""


def replace_secret_arguments(
    arguments: list[str], is_public: Callable[[str], bool] = lambda _: False
) -> tuple[list[str], bool]:
    """Replace secrets in a command, which is visible in the bundle and in process lists; return whether one was."""
    replaced = [replace_passwords(argument, is_public)[0] for argument in arguments]
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if _SECRET_OPTION.fullmatch(option) and equals and not is_public(value):
            replaced[index] = f"{option}={SHARED_TEST_VALUE}"
        elif _SECRET_OPTION.fullmatch(argument) and index + 1 < len(arguments) and not is_public(arguments[index + 1]):
            replaced[index + 1] = SHARED_TEST_VALUE
    return replaced, any(SHARED_TEST_VALUE in argument for argument in replaced)
