"""Check `[[tests]]` entries and health checks: they have one kind and a target that exists."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lyra_tasks.config.models import TEST_KINDS, Configuration, Service, Test
from lyra_tasks.config.validation.positions import Location
from lyra_tasks.config.validation.problems import (
    Problem,
    describe_regex_error,
    describe_unknown_name,
    format_location,
    quote_text,
    toml_type_name,
)

_HTTP_REQUEST = re.compile(r"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) /\S*")
_TARGET_KEYS = {
    "http": "service",
    "exec": "service",
    "tcp": "service",
    "log": "service",
    "stage": "image",
    "structure": "image",
}
_KEYS_BY_KIND = {
    "http": ("status", "body", "json", "headers", "send"),
    "exec": ("exit_code", "output"),
}


def check_tests(config: Configuration, document: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems of all checks with their names, kinds and targets."""
    names: dict[str, int] = {}
    for index, test in enumerate(config.tests):
        location: Location = ("tests", index)
        first_index = names.setdefault(test.name, index)
        if first_index != index:
            yield Problem(
                (*location, "name"),
                f"is already the name of {format_location(('tests', first_index))}; give each check its own",
            )
        yield from _check_kind(location, test)
        yield from _check_target(location, test, document)
        service = config.services.get(test.service or "")
        if service is not None:
            yield from _check_addresses(
                location, test.http, test.tcp, service, ("services", test.service or "", "ports")
            )
        if test.log is not None and (error := describe_regex_error(test.log)):
            yield Problem((*location, "log"), error)
        for value_location, value in _find_non_json_values((*location, "json"), test.json_):
            kind = "a number that is not finite" if isinstance(value, float) else toml_type_name(value)
            yield Problem(value_location, f"must be a JSON value, found {kind}; write it as in the response")


def check_healthcheck(location: Location, service: Service) -> Iterator[Problem]:
    """Yield the problems of a service's health check."""
    healthcheck = service.healthcheck
    if healthcheck is None:
        return
    healthcheck_location = (*location, "healthcheck")
    kinds = [kind for kind in ("exec", "http", "tcp") if getattr(healthcheck, kind) is not None]
    if len(kinds) != 1:
        yield Problem(healthcheck_location, f"must have exactly one of exec, http and tcp, found {_join_kinds(kinds)}")
    yield from _check_addresses(healthcheck_location, healthcheck.http, healthcheck.tcp, service, (*location, "ports"))


def _check_kind(location: Location, test: Test) -> Iterator[Problem]:
    kinds = [kind for kind in TEST_KINDS if getattr(test, kind) is not None]
    if len(kinds) != 1:
        yield Problem(location, f"must have exactly one of {', '.join(TEST_KINDS)}, found {_join_kinds(kinds)}")
    written_keys = {"json" if field == "json_" else field for field in test.model_fields_set}
    for kind, keys in _KEYS_BY_KIND.items():
        for key in keys:
            if kinds and kind not in kinds and key in written_keys:
                yield Problem((*location, key), f"is for {kind} checks only, found {_join_kinds(kinds)}")


def _find_non_json_values(location: Location, value: object) -> Iterator[tuple[Location, object]]:
    """Yield values that TOML has and JSON has not: dates, times, and numbers that are not finite."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _find_non_json_values((*location, key), item)
    elif isinstance(value, datetime.date | datetime.time) or (isinstance(value, float) and not math.isfinite(value)):
        yield location, value


def _check_target(location: Location, test: Test, document: Mapping[str, Any]) -> Iterator[Problem]:
    kind = next((kind for kind in TEST_KINDS if getattr(test, kind) is not None), None)
    required_key = _TARGET_KEYS.get(kind or "")
    for key, table in (("service", "services"), ("image", "images")):
        name = getattr(test, key)
        if name is None and required_key == key:
            yield Problem(location, f"{kind} checks need {key}; name one of [{table}]")
        elif name is not None and required_key is not None and required_key != key:
            yield Problem((*location, key), f"{kind} checks have no {key}; they need {required_key}")
        elif name is not None and (error := describe_unknown_name(document, table, name)):
            yield Problem((*location, key), error)


def _check_addresses(
    location: Location, http: str | None, tcp: int | str | None, service: Service, ports_location: Location
) -> Iterator[Problem]:
    if http is not None and not _HTTP_REQUEST.fullmatch(http):
        yield Problem(
            (*location, "http"), f'{quote_text(http)} is not a request; write a method and a path, such as "GET /"'
        )
    if http is not None and service.http_port is None:
        yield Problem(
            (*location, "http"),
            f'needs a port named "http", or only one port; {_describe_ports(service)}',
            ports_location,
        )
    if tcp is not None and not isinstance(service.resolve_port(tcp), int):
        port_text = quote_text(tcp) if isinstance(tcp, str) else str(tcp)
        yield Problem(
            (*location, "tcp"), f"the service has no TCP port {port_text}; {_describe_ports(service)}", ports_location
        )


def _describe_ports(service: Service) -> str:
    if not service.ports:
        return "it has no ports"
    return f"its ports are {', '.join(f'{name} = {port}' for name, port in service.ports.items())}"


def _join_kinds(kinds: list[str]) -> str:
    return " and ".join(kinds) if kinds else "none"
