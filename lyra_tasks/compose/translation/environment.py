"""Translate the variables of a service: what has a value here, and what the operator on Proxima sets."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from lyra_tasks.compose.model import Location
from lyra_tasks.compose.stand_ins import SHARED_TEST_VALUE, replace_password_by_variable, replace_passwords
from lyra_tasks.compose.translation.draft import Draft, ServiceDraft
from lyra_tasks.compose.variables import interpolate
from lyra_tasks.redaction import is_secret_name

_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SWITCHES = {"yes", "no", "true", "false", "on", "off", "1", "0"}
_ONE_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)(?::?[-?][^{}]*)?\}?")
_TEMPLATE = re.compile(r"(?:[^\s'\"\\$]|\$\{[A-Za-z_][A-Za-z0-9_]*\})+")
_HOST = re.compile(r"@(?:tcp\()?([\w.-]+)")
_USED = re.compile(r"\$\{(\w+)\}")
_NAME = re.compile(r"[^=\s\x00-\x1f\x7f]+")


@dataclass(frozen=True)
class VariableSources:
    """What is known of a service's variables besides their values.

    `texts` are those of the Compose file before interpolation, None for a variable that is passed through.
    `file_values` and `file_comments` are from env files or their examples, `example_comments` from that of `.env`.
    """

    texts: Mapping[str, str | None]
    file_values: Mapping[str, str] = field(default_factory=dict)
    file_comments: Mapping[str, str] = field(default_factory=dict)
    example_comments: Mapping[str, str] = field(default_factory=dict)


def add_environment(service: ServiceDraft, sources: VariableSources) -> None:
    """Add each variable of a service, with its default for Proxima and, if it is another, its value in tests."""
    for name, value in service.raw_table("environment").items():
        path: Location = ("environment", name)
        if not _NAME.fullmatch(name):
            service.note(f"{name!r} is not the name of a variable", "environment")
            continue
        if name in sources.texts:
            comment = service.draft.sources.find_comment(("services", service.compose_name, "environment", name))
            variable = _translate_text(name, sources.texts[name], value, service.draft)
            if not comment:
                names = interpolate(sources.texts[name] or f"${{{name}}}", {}).names
                comment = " ".join(filter(None, (sources.example_comments.get(used, "") for used in names)))
        else:
            comment, path = sources.file_comments.get(name, ""), ("env_file",)
            variable = _translate_value(name, sources.file_values.get(name, str(value or "")), service.draft)
            if value is not None and variable.get("default") not in (None, str(value)):
                variable["test_value"] = str(value)
        if variable.get("secret") and SHARED_TEST_VALUE not in (variable.get("test_value") or SHARED_TEST_VALUE):
            service.note(f"the password in {name} stands in a mounted file, too, and is the same in tests", *path)
        if comment or name in VARIABLE_DESCRIPTIONS:
            variable["description"] = " ".join((comment or VARIABLE_DESCRIPTIONS[name]).split())
        texts = [str(variable[key]) for key in ("default", "test_value") if key in variable]
        if any(_CONTROL_CHARACTER.search(text) for text in texts):
            service.note(f"{name} has several lines: mount a file in configs instead", "environment", name)
            continue
        service.put_entry("environment", name, variable, *path)


def _translate_text(name: str, text: str | None, value: object, draft: Draft) -> dict[str, Any]:
    """Return a variable of the Compose file; `text` is as it stands there, `value` what it is in tests."""
    plain_names = draft.plain_names
    interpolation = interpolate(text if text is not None else f"${{{name}}}", {})
    test_value = str(value) if value is not None else ""
    is_plain = name in plain_names
    secret_names = {name, *interpolation.names} if interpolation.names else {name}
    is_secret = not is_plain and any(is_secret_name(each) and each not in plain_names for each in secret_names)
    if not interpolation.unresolved and not is_secret:
        variable = _translate_value(name, interpolation.text, draft)
        if variable.get("default") not in (None, test_value):
            variable["test_value"] = replace_passwords(test_value, draft.is_public)[0]
        return variable
    if is_secret and not interpolation.names and interpolation.text.lower() in _SWITCHES:
        return {"default": interpolation.text, "secret": False}  # such as MARIADB_RANDOM_ROOT_PASSWORD
    replaced, _ = (test_value, False) if is_plain else replace_passwords(test_value, draft.is_public)
    if is_secret and (not interpolation.text and not interpolation.unresolved and not test_value):
        return {"default": "", "secret": False}  # an empty literal is no secret
    if is_secret and not interpolation.unresolved and is_secret_name(name) and name not in plain_names:
        is_literal = not interpolation.names
        replaced = test_value if is_literal and draft.is_public(test_value) else SHARED_TEST_VALUE
    elif is_secret and not interpolation.unresolved:
        replaced = _replace_defaults(text or "", plain_names)
    elif is_secret and not replaced:
        replaced = SHARED_TEST_VALUE
    variable = {"required": True, "test_value": replaced}
    return {**variable, "secret": True} if is_secret or replaced != test_value else variable


def _replace_defaults(text: str, plain_names: frozenset[str]) -> str:
    """Return a text with the stand-in for each secret variable in it, whatever default it has."""
    names = interpolate(text, {}).names
    values = {name: SHARED_TEST_VALUE for name in names if is_secret_name(name) and name not in plain_names}
    return replace_passwords(interpolate(text, values).text)[0]


def _translate_value(name: str, value: str, draft: Draft) -> dict[str, Any]:
    """Return a variable whose value is written down: its default, unless it is a secret."""
    if name in draft.plain_names:
        return {"default": value}
    if is_secret_name(name) and value:
        test_value = value if draft.is_public(value) else SHARED_TEST_VALUE
        return {"secret": True, "required": True, "test_value": test_value}
    replaced, has_password = replace_passwords(value, draft.is_public)
    if has_password:
        return {"secret": True, "required": True, "test_value": replaced}
    return {"default": value}


def link_passwords(services: Collection[ServiceDraft], sources: Mapping[str, VariableSources]) -> None:
    """Say of each password that is that of another variable, alone or in an address, how Proxima makes it of that."""
    owners: dict[str, dict[str, str]] = {}  # the names of the variables that have a password, by service
    uses: list[tuple[str, dict[str, Any], str]] = []
    for service in services:
        texts = sources.get(service.compose_name, VariableSources({})).texts
        for name, variable in service.table.get("environment", {}).items():
            if (text := texts.get(name)) and variable.get("secret"):
                uses.append((name, variable, text))
                if is_secret_name(name):
                    owners.setdefault(_to_password(text), {})[service.compose_name] = name
    for password, names in owners.items():
        if password.startswith("${"):  # one value, so that one variable has it; a literal may be the same by chance
            first = password[2:-1] if password[2:-1] in names.values() else next(iter(names.values()))
            owners[password] = dict.fromkeys(names, first)
    kept = {password[2:-1]: password for password in owners if password.startswith("${")}
    known = {name for names in owners.values() for name in names.values()}
    for name, variable, text in uses:
        if is_secret_name(name):
            owner = _choose_owner(owners[_to_password(text)], "") if text.startswith("$") else name
            template = f"${{{owner}}}" if owner not in (None, name) else ""
            unresolved: tuple[str, ...] = ()
        else:
            address = interpolate(text, kept)
            template = _link_address(address.text, owners)
            other_secrets = [used for used in address.names if is_secret_name(used) and used not in kept]
            unresolved = (*address.unresolved, *other_secrets)
        if _TEMPLATE.fullmatch(template) and set(_USED.findall(template)) <= known and not unresolved:
            variable["template"] = template


def _link_address(address: str, owners: Mapping[str, Mapping[str, str]]) -> str:
    """Return an address with the variable of its password, that of its host if several have the same."""
    host = _HOST.search(address)
    return replace_password_by_variable(
        address, lambda password: _choose_owner(owners.get(password, {}), host[1] if host else "")
    )


def _choose_owner(names: Mapping[str, str], host: str) -> str | None:
    """Return the variable of the service that an address is of, or the only one with its password."""
    return names.get(host) or (next(iter(names.values())) if len(set(names.values())) == 1 else None)


def _to_password(text: str) -> str:
    """Return a password as it stands in a Compose file: the variable that it is, as `${NAME}`, or itself."""
    variable = _ONE_VARIABLE.fullmatch(text)
    return f"${{{variable[1]}}}" if variable else text


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
