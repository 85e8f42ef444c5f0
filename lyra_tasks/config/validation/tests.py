"""Check `[[tests]]` entries and health checks: they have one kind and a target that exists."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lyra_tasks.config.models import TEST_KINDS, Configuration, Healthcheck, Service, Test
from lyra_tasks.config.validation.positions import Location, walk_values
from lyra_tasks.config.validation.problems import (
    Problem,
    check_name,
    check_regex,
    format_location,
    quote_text,
    toml_type_name,
)

_HTTP_REQUEST = re.compile(r"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) /\S*")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_TARGET_KEYS = dict.fromkeys(("http", "exec", "tcp", "log"), "service") | dict.fromkeys(("stage", "structure"), "image")
_KEYS_BY_KIND = {"http": ("status", "body", "json", "headers", "send"), "exec": ("exit_code", "output")}


def check_tests(config: Configuration, document: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems of all checks with their names, kinds and targets."""
    names: dict[str, int] = {}
    for index, test in enumerate(config.tests):
        location: Location = ("tests", index)
        first_index = names.setdefault(test.name, index)
        if first_index != index:
            message = f"is already the name of {format_location(('tests', first_index))}; give each check its own"
            yield Problem((*location, "name"), message)
        yield from _check_kind_and_target(location, test, document)
        if test.service in config.services:
            ports_location: Location = ("services", test.service, "ports")
            yield from _check_addresses(location, test, config.services[test.service], ports_location)
        yield from check_regex((*location, "log"), test.log or "")
        for name in test.headers:
            if not _HEADER_NAME.fullmatch(name):
                message = f"{quote_text(name)} is not the name of a header; write one such as Accept-Language"
                yield Problem((*location, "headers", name), message)
        for value_location, value in walk_values(location, {"json": test.json_}):
            is_date = isinstance(value, datetime.date | datetime.time)
            if is_date or (isinstance(value, float) and not math.isfinite(value)):
                kind = toml_type_name(value) if is_date else "a number that is not finite"
                yield Problem(value_location, f"must be a JSON value, found {kind}; write it as in the response")


def check_healthcheck(location: Location, service: Service) -> Iterator[Problem]:
    """Yield the problems of a service's health check."""
    healthcheck = service.healthcheck
    if healthcheck is None:
        return
    healthcheck_location = (*location, "healthcheck")
    kinds = [kind for kind in ("exec", "http", "tcp") if getattr(healthcheck, kind) is not None]
    if healthcheck.disable and len(healthcheck.model_fields_set) > 1:
        yield Problem((*healthcheck_location, "disable"), "must be alone: a check that is off has no other key")
    elif len(kinds) > 1 or not (kinds or healthcheck.model_fields_set):
        yield Problem(healthcheck_location, f"must have exactly one of exec, http and tcp, found {_join_kinds(kinds)}")
    yield from _check_addresses(healthcheck_location, healthcheck, service, (*location, "ports"))


def _check_kind_and_target(location: Location, test: Test, document: Mapping[str, Any]) -> Iterator[Problem]:
    kinds = [kind for kind in TEST_KINDS if getattr(test, kind) is not None]
    if len(kinds) != 1:
        yield Problem(location, f"must have exactly one of {', '.join(TEST_KINDS)}, found {_join_kinds(kinds)}")
    written_keys = {"json" if field == "json_" else field for field in test.model_fields_set}
    for special_kind, keys in _KEYS_BY_KIND.items():
        for key in keys:
            if kinds and special_kind not in kinds and key in written_keys:
                yield Problem((*location, key), f"is for {special_kind} checks only, found {_join_kinds(kinds)}")
    kind = kinds[0] if kinds else ""
    if kind in {"pytest", "junit"} and test.retry:
        message = (
            f"{kind} checks have no retry, since each of their tests has a result of its own; let the runner retry"
        )
        yield Problem((*location, "retry"), message)
    required_key = _TARGET_KEYS.get(kind)
    for key, table in (("service", "services"), ("image", "images")):
        name = getattr(test, key)
        if name is None and required_key == key:
            yield Problem(location, f"{kind} checks need {key}; name one of [{table}]")
        elif name is not None and required_key is not None and required_key != key:
            yield Problem((*location, key), f"{kind} checks have no {key}; they need {required_key}")
        elif name is not None:
            yield from check_name((*location, key), name, table, document)


def _check_addresses(
    location: Location, check: Test | Healthcheck, service: Service, ports_location: Location
) -> Iterator[Problem]:
    ports = ", ".join(f"{name} = {port}" for name, port in service.ports.items())
    existing = f"its ports are {ports}" if ports else "it has no ports"
    if check.http is not None and not _HTTP_REQUEST.fullmatch(check.http):
        message = f'{quote_text(check.http)} is not a request; write a method and a path, such as "GET /"'
        yield Problem((*location, "http"), message)
    if check.http is not None and service.http_port is None:
        message = f'needs a port named "http", or only one port; {existing}'
        yield Problem((*location, "http"), message, ports_location)
    if check.tcp is not None and not isinstance(service.resolve_port(check.tcp), int):
        port_text = quote_text(check.tcp) if isinstance(check.tcp, str) else str(check.tcp)
        message = f"the service has no TCP port {port_text}; {existing}"
        yield Problem((*location, "tcp"), message, ports_location)


def _join_kinds(kinds: list[str]) -> str:
    return " and ".join(kinds) if kinds else "none"
