"""What must be known to run the services: every variable, secret, volume, port, config and limit, for machines.

Image and configuration are merged; what only the image declares is listed too, so that nothing stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lyra_tasks.bundle.subject import PromotedService
from lyra_tasks.config.deployment import config_path, stands_as_default
from lyra_tasks.config.ports import number, protocol

SCHEMA = "lyra.environment/1"
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")
# Set by every base image or by the engine; not the project's to document.
_USUAL = {"PATH", "HOME", "HOSTNAME", "LANG", "LC_ALL", "GPG_KEY"}


def environment_document(project: str, services: Sequence[PromotedService]) -> dict[str, Any]:
    """The content of `deploy/environment.json`; secret values are nowhere in it."""
    return {"schema": SCHEMA, "project": project, "services": {each.name: _service(each) for each in services}}


def variables(each: PromotedService) -> list[dict[str, Any]]:
    """The environment variables of a service, documented ones first, then those that only the image sets."""
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "type": "string",
            "required": variable.default is None and (variable.required or variable.secret),
            "secret": variable.secret,
            "default": None if variable.secret else variable.default,
            "pattern": variable.pattern or None,
            "description": variable.description,
            "from": "configuration",
        }
        for name, variable in each.service.environment.items()
    ]
    for pair in each.image_config.get("Env") or []:
        name, _, value = str(pair).partition("=")
        if name not in each.service.environment and name not in _USUAL:
            found.append(
                {
                    "name": name, "type": "string", "required": False, "secret": False, "default": value,
                    "pattern": None, "description": "", "from": "image",
                }
            )  # fmt: skip
    return found


def env_example(services: Sequence[PromotedService]) -> str:
    """The content of `deploy/.env.example`: what must be set is open, what may be set is commented out.

    A variable of several services is one, and open if any of them requires it.
    """
    lines = ["# Copy to .env beside compose.yaml and fill in what has no value. Written by lyra-tasks."]
    known: dict[str, dict[str, Any]] = {}
    for variable in (variable for each in services for variable in variables(each)):
        there = known.get(variable["name"])
        if variable["from"] != "image" and (there is None or (variable["required"] and not there["required"])):
            known[variable["name"]] = variable
    seen: set[str] = set()
    for each in services:
        lines += ["", f"# {each.name}"]
        for name in each.service.environment:
            if name not in seen:
                seen.add(name)
                lines += _variable(known[name])
        for key, secret in each.service.secrets.items():
            lines.append(f"# path of a file, readable by user {each.shape.user or '0'}: {secret.description or key}")
            lines.append(f"{each.secret_variable(key)}=")
        for key, port in each.service.ports.items():
            lines.append(f"# where port {port} ({key}) is published")
            place = each.places[key]
            lines.append(f"#{each.publish_variable(key)}={place}" if place else f"{each.publish_variable(key)}=")
    return "\n".join(lines) + "\n"


def quoted(value: str) -> str:
    """A value as Compose reads it in `.env`: as it is, or in the quotes that it can stand in."""
    if _PLAIN.fullmatch(value):
        return value
    if not {"'", "\\"} & set(value):
        return f"'{value}'"
    return '"' + re.sub(r'["$\\]', r"\\\g<0>", value) + '"'


def _variable(variable: dict[str, Any]) -> list[str]:
    name, default = variable["name"], variable["default"] or ""
    mark = "" if variable["required"] or not stands_as_default(default) else "#"
    return [
        f"# {variable['description'] or name}",
        f"{mark}{name}={'' if variable['required'] else quoted(default)}",
    ]


def _service(each: PromotedService) -> dict[str, Any]:
    service, shape = each.service, each.shape
    return {
        "image": each.reference,
        "user": shape.user,
        "environment": variables(each),
        "secrets": [
            {"name": key, "path": secret.path, "description": secret.description, "variable": each.secret_variable(key)}
            for key, secret in service.secrets.items()
        ],
        "volumes": [
            {"name": key, "path": volume.path, "size": volume.size, "owner": volume.owner,
             "description": volume.description}
            for key, volume in service.volumes.items()
        ],
        "ports": [
            {"name": key, "port": number(port), "protocol": protocol(port), "variable": each.publish_variable(key)}
            for key, port in service.ports.items()
        ],
        "configs": [
            {"name": key, "path": file.path, "description": file.description,
             "file": config_path(each.name, key, file.source)}
            for key, file in service.configs.items()
        ],
        "limits": {
            "cpus": service.limits.cpus, "memory": shape.memory, "pids": service.limits.pids,
            "tmpfs": dict(sorted(shape.tmpfs.items())),
        },
        "depends_on": list(service.depends_on),
        "egress": service.egress,
        "healthcheck": shape.has_healthcheck,
    }  # fmt: skip
