"""Names on Proxima, in the compose file and in `.env`."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from lyra_tasks.config.service_models import ConfigFile, Volume
from lyra_tasks.digests import sha256_hex


def compose_project(project: str) -> str:
    """Return the name of the project in the compose file.

    Compose allows no dots. Instead, the name gets a part of its digest, so that `shop.2` never is the project `shop-2`.
    """
    return f"{project.replace('.', '-')}-{sha256_hex(project.encode())[:8]}" if "." in project else project


def compose_object_name(service: str, key: str) -> str:
    """Return the name of a volume, config or secret in the compose file: `web-data`."""
    return f"{service}-{key}"


def publish_variable(service: str, port: str) -> str:
    """Return the variable that sets where a port is published: `WEB_HTTP_PUBLISH`."""
    return f"{env_name(service)}_{env_name(port)}_PUBLISH"


def secret_variable(service: str, secret: str) -> str:
    """Return the variable that names the file of a secret: `WEB_SESSION_KEY_FILE`."""
    return f"{env_name(service)}_{env_name(secret)}_FILE"


def volume_name(service: str, key: str, volume: Volume) -> str:
    """Return the name of a volume in the compose file, which services may share."""
    return volume.shared or compose_object_name(service, key)


def config_path(service: str, key: str, file: ConfigFile) -> str:
    """Return the path of a config file below `deploy/`, with the suffix of its source."""
    return f"configs/{service}/{key}{PurePosixPath(file.source or file.path).suffix}"


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


def is_settable_name(name: str) -> bool:
    """Return whether a variable can be set in `.env`; Docker takes other names, too, such as `discovery.type`."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None


def env_name(name: str) -> str:
    """Return a name as part of an environment variable: `WEB_1` for `web-1`."""
    return re.sub(r"[^A-Z0-9_]", "_", name.upper())
