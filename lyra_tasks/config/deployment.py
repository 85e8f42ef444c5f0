"""Names on Proxima, in the compose file and in `.env`, and checks that they do not collide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from lyra_tasks.config.models import EnvironmentVariable, Service
from lyra_tasks.config.validation.positions import Location
from lyra_tasks.config.validation.problems import Problem, format_location


def compose_object_name(service: str, key: str) -> str:
    """Return the name of a volume, config or secret in the compose file: `web-data`."""
    return f"{service}-{key}"


def publish_variable(service: str, port: str) -> str:
    """Return the variable that sets where a port is published: `WEB_HTTP_PUBLISH`."""
    return f"{env_name(service)}_{env_name(port)}_PUBLISH"


def secret_variable(service: str, secret: str) -> str:
    """Return the variable that names the file of a secret: `WEB_SESSION_KEY_FILE`."""
    return f"{env_name(service)}_{env_name(secret)}_FILE"


def config_path(service: str, key: str, source: str) -> str:
    """Return the path of a config file below `deploy/`, with the suffix of its source."""
    return f"configs/{service}/{key}{PurePosixPath(source).suffix}"


def can_be_compose_default(text: str) -> bool:
    """Return whether Compose reads the whole text as the default in `${NAME-text}`.

    Compose counts braces, but skips the character after an opening one (measured with 2.26 and 2.40). Other defaults
    are written to `.env.example`, where they apply to all services.
    """
    expression = f"{{X-{text.replace('$', '$$')}}}"
    depth = position = 0
    while position < len(expression):
        if expression[position] == "}":
            depth -= 1
            if not depth:
                return position == len(expression) - 1
        elif expression[position] == "{":
            depth += 1
            position += 1
        position += 1
    return True


def check_deployment(services: Mapping[str, Service]) -> Iterator[Problem]:
    """Yield volumes, files and variables of promoted services that would have the same name on Proxima."""
    owners: dict[str, tuple[Location, Location]] = {}
    for name, service in services.items():
        if service.is_promoted:
            for deployed_name, identity, location in _list_deployed_names(name, service):
                first_identity, first_location = owners.setdefault(deployed_name, (identity, location))
                if first_identity != identity:
                    owner = format_location(first_location)
                    message = f"collides with {owner}: both are {deployed_name} on Proxima; choose another name"
                    yield Problem(location, message)
    yield from _check_env_file_defaults(
        {name: service.environment for name, service in services.items() if service.is_promoted}
    )


def _check_env_file_defaults(environments: Mapping[str, Mapping[str, EnvironmentVariable]]) -> Iterator[Problem]:
    for name, environment in environments.items():
        for key, variable in environment.items():
            if variable.default is None or can_be_compose_default(variable.default):
                continue
            for other, variables in environments.items():
                if key in variables and variables[key].default != variable.default:
                    message = f"goes into .env for all services because of its braces, but services.{other} has another"
                    yield Problem(("services", name, "environment", key, "default"), f"{message}; give both the same")
                    break


def _list_deployed_names(name: str, service: Service) -> Iterator[tuple[str, Location, Location]]:
    """Yield each name on Proxima, the identity of its owner, and the location; variables are shared by all services."""
    service_location: Location = ("services", name)
    for key in service.volumes:
        location = (*service_location, "volumes", key)
        yield f"the volume {compose_object_name(name, key)}", location, location
    for key, file in service.configs.items():
        location = (*service_location, "configs", key)
        yield f"the config {compose_object_name(name, key)}", location, location
        yield f"the file {config_path(name, key, file.source)}", location, location
    for key in service.secrets:
        location = (*service_location, "secrets", key)
        yield f"the variable {secret_variable(name, key)}", location, location
    for key in service.ports:
        location = (*service_location, "ports", key)
        yield f"the variable {publish_variable(name, key)}", location, location
    for key in service.environment:
        yield f"the variable {key}", (key,), (*service_location, "environment", key)


def env_name(name: str) -> str:
    """Return a name as part of an environment variable: `WEB_1` for `web-1`."""
    return name.upper().replace("-", "_").replace(".", "_")
