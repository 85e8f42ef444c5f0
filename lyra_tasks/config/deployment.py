"""What things are called on Proxima: names in the compose file and in `.env`, made of a service's name and a key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from lyra_tasks.config.models import EnvironmentVariable, Service
from lyra_tasks.config.positions import Location
from lyra_tasks.config.problems import Problem, dotted


def object_name(service: str, key: str) -> str:
    """A volume, config or secret in the compose file: `web-data`."""
    return f"{service}-{key}"


def publish_variable(service: str, port: str) -> str:
    """The variable that says where a port is published: `WEB_HTTP_PUBLISH`."""
    return f"{_word(service)}_{_word(port)}_PUBLISH"


def secret_variable(service: str, secret: str) -> str:
    """The variable that names the file holding a secret: `WEB_SESSION_KEY_FILE`."""
    return f"{_word(service)}_{_word(secret)}_FILE"


def config_path(service: str, key: str, source: str) -> str:
    """Where a config file lies, below `deploy/`; it keeps its ending."""
    return f"configs/{service}/{key}{PurePosixPath(source).suffix}"


def stands_as_default(text: str) -> bool:
    """Whether Compose reads a default in `${NAME-default}` to its end: it counts braces, and not the one after another.

    Measured with Compose 2.26 and 2.40; what does not stand there stands in `.env.example`, for all services at once.
    """
    expression = f"{{X-{text.replace('$', '$$')}}}"
    depth = at = 0
    while at < len(expression):
        if expression[at] == "}":
            depth -= 1
            if not depth:
                return at == len(expression) - 1
        elif expression[at] == "{":
            depth += 1
            at += 1
        at += 1
    return True


def check_deployment(services: Mapping[str, Service]) -> Iterator[Problem]:
    """Two things that would have one name on Proxima: one of them would be mounted, or given, in place of the other."""
    owners: dict[str, tuple[Location, Location]] = {}
    for name, service in services.items():
        if service.promoted:
            for called, thing, location in _names(name, service):
                first_thing, first = owners.setdefault(called, (thing, location))
                if first_thing != thing:
                    text = f"would be {called} on Proxima, which {dotted(first)} is already; choose another name"
                    yield Problem(location, text)
    yield from _check_defaults({name: each.environment for name, each in services.items() if each.promoted})


def _check_defaults(environments: Mapping[str, Mapping[str, EnvironmentVariable]]) -> Iterator[Problem]:
    for name, environment in environments.items():
        for key, variable in environment.items():
            if variable.default is None or stands_as_default(variable.default):
                continue
            for other, variables in environments.items():
                if key in variables and variables[key].default != variable.default:
                    text = f"stands in .env for all services, for its braces, and services.{other} has another"
                    yield Problem(("services", name, "environment", key, "default"), f"{text}; give both the same")
                    break


def _names(name: str, service: Service) -> Iterator[tuple[str, Location, Location]]:
    """A name, what it stands for, and where that is written; a variable is the same one in all services."""
    at: Location = ("services", name)
    for key in service.volumes:
        location = (*at, "volumes", key)
        yield f"the volume {object_name(name, key)}", location, location
    for key, file in service.configs.items():
        location = (*at, "configs", key)
        yield f"the config {object_name(name, key)}", location, location
        yield f"the file {config_path(name, key, file.source)}", location, location
    for key in service.secrets:
        location = (*at, "secrets", key)
        yield f"the variable {secret_variable(name, key)}", location, location
    for key in service.ports:
        location = (*at, "ports", key)
        yield f"the variable {publish_variable(name, key)}", location, location
    for key in service.environment:
        yield f"the variable {key}", (key,), (*at, "environment", key)


def _word(name: str) -> str:
    return name.upper().replace("-", "_").replace(".", "_")
