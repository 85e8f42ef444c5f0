"""What a `[[tests]]` entry and a healthcheck must be: one kind, and something there to ask."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lyra_tasks.config.models import TEST_KINDS, Configuration, Service, Test
from lyra_tasks.config.positions import Location
from lyra_tasks.config.problems import Problem, dotted, kind_of, missing_name, not_a_regex, quoted

_REQUEST = re.compile(r"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) /\S*")
_NEEDS = {
    "http": "service",
    "exec": "service",
    "tcp": "service",
    "log": "service",
    "stage": "image",
    "structure": "image",
}
_ONLY_WITH = {
    "http": ("status", "body", "json", "headers", "send"),
    "exec": ("exit_code", "output"),
}


def check_tests(config: Configuration, document: Mapping[str, Any]) -> Iterator[Problem]:
    """Everything wrong between a test and what it names."""
    names: dict[str, int] = {}
    for number, test in enumerate(config.tests):
        at: Location = ("tests", number)
        first = names.setdefault(test.name, number)
        if first != number:
            yield Problem((*at, "name"), f"is the name of {dotted(('tests', first))} already; give each test its own")
        yield from _check_kind(at, test)
        yield from _check_target(at, test, document)
        service = config.services.get(test.service or "")
        if service is not None:
            yield from _check_addresses(at, test.http, test.tcp, service, ("services", test.service or "", "ports"))
        if test.log is not None and (wrong := not_a_regex(test.log)):
            yield Problem((*at, "log"), wrong)
        for place, value in _not_json((*at, "json"), test.json_):
            kind = "a number that is not finite" if isinstance(value, float) else kind_of(value)
            yield Problem(place, f"must be what JSON has, found {kind}; write what the answer has, mostly a string")


def check_healthcheck(at: Location, service: Service) -> Iterator[Problem]:
    """Everything wrong between a service's healthcheck and its ports."""
    health = service.healthcheck
    if health is None:
        return
    here = (*at, "healthcheck")
    kinds = [kind for kind in ("exec", "http", "tcp") if getattr(health, kind) is not None]
    if len(kinds) != 1:
        yield Problem(here, f"must have exactly one of exec, http and tcp, found {_listed(kinds)}")
    yield from _check_addresses(here, health.http, health.tcp, service, (*at, "ports"))


def _check_kind(at: Location, test: Test) -> Iterator[Problem]:
    kinds = [kind for kind in TEST_KINDS if getattr(test, kind) is not None]
    if len(kinds) != 1:
        yield Problem(at, f"must have exactly one of {', '.join(TEST_KINDS)}, found {_listed(kinds)}")
    written = {"json" if field == "json_" else field for field in test.model_fields_set}
    for kind, keys in _ONLY_WITH.items():
        for key in keys:
            if kinds and kind not in kinds and key in written:
                yield Problem((*at, key), f"belongs to {kind} tests only; this is a test of kind {_listed(kinds)}")


def _not_json(at: Location, value: object) -> Iterator[tuple[Location, object]]:
    """What TOML can say and no answer in JSON can hold: dates, times, and numbers that are not finite."""
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _not_json((*at, key), each)
    elif isinstance(value, datetime.date | datetime.time) or (isinstance(value, float) and not math.isfinite(value)):
        yield at, value


def _check_target(at: Location, test: Test, document: Mapping[str, Any]) -> Iterator[Problem]:
    kind = next((kind for kind in TEST_KINDS if getattr(test, kind) is not None), None)
    needed = _NEEDS.get(kind or "")
    for key, table in (("service", "services"), ("image", "images")):
        name = getattr(test, key)
        if name is None and needed == key:
            yield Problem(at, f"a test of kind {kind} needs {key}; name one of [{table}]")
        elif name is not None and needed is not None and needed != key:
            yield Problem((*at, key), f"a test of kind {kind} has no {key}; it needs {needed}")
        elif name is not None and (wrong := missing_name(document, table, name)):
            yield Problem((*at, key), wrong)


def _check_addresses(
    at: Location, http: str | None, tcp: int | str | None, service: Service, ports: Location
) -> Iterator[Problem]:
    if http is not None and not _REQUEST.fullmatch(http):
        yield Problem((*at, "http"), f'{quoted(http)} is not a request; write a method and a path, such as "GET /"')
    if http is not None and service.http_port is None:
        yield Problem((*at, "http"), f'needs a port named "http", or only one port; {_ports(service)}', ports)
    if tcp is not None and not isinstance(service.port(tcp), int):
        wanted = quoted(tcp) if isinstance(tcp, str) else str(tcp)
        yield Problem((*at, "tcp"), f"the service has no TCP port {wanted}; {_ports(service)}", ports)


def _ports(service: Service) -> str:
    if not service.ports:
        return "it has none in ports"
    return f"its ports are {', '.join(f'{name} = {port}' for name, port in service.ports.items())}"


def _listed(kinds: list[str]) -> str:
    return " and ".join(kinds) if kinds else "none"
