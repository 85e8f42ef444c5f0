"""Drafts as the text of `.lyra.toml`: commented, and with a `TODO` line for everything that could not be known."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lyra_tasks.setup.draft import DraftImage, DraftService, Variable

_WIDTH = 120


def configuration(
    name: str, images: Sequence[DraftImage], services: Sequence[DraftService], open_points: Sequence[str], origin: str
) -> str:
    """The whole file."""
    lines = [
        f"# Written by `lyra init` from {origin}.",
        "# A line with TODO is something that could not be known; delete it when it is done.",
        '# Sizes are "64m" or "8g", times "1.5s" or "2m". `lyra config.show` prints all values in force.',
        "",
        "schema = 1",
        "",
        "[project]",
        f"name = {text(name)} # images are called {name}/IMAGE; bundles lie in promotion/{name}/",
        "# TODO: description, in one line: it heads the bundle",
        'description = ""',
        *_todos(open_points),
        "",
        "# What the production node can run. Every build and test is held against it.",
        "[proxima]",
        'platforms = ["linux/amd64"]',
        'min_engine = "20.10" # the oldest engine that must load the bundle',
        "# cpus = 4               # what it has: what does not fit is refused",
        '# memory = "8g"',
        '# max_image_size = "400m"',
        "",
        "[engine]",
        'sandbox = "auto" # where no Docker engine answers: a private one (Debian or Ubuntu, root; installs nothing)',
    ]
    for image in images:
        lines += ["", *_image(image)]
    for service in services:
        lines += ["", f"# {f' {service.name}':->{_WIDTH - 2}}", *_service(service)]
    checks = [(service.name, check) for service in services for check in service.checks]
    if checks:
        lines += ["", f"# {' tests':->{_WIDTH - 2}}"]
    for service_name, check in checks:
        lines += ["", "[[tests]]", f"name = {text(check['name'])}", f"service = {text(service_name)}"]
        lines += [f"{key} = {value_text(value)}" for key, value in check.items() if key != "name"]
    return "\n".join(lines) + "\n"


def text(value: str) -> str:
    """A TOML string: what JSON escapes is escaped alike, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def value_text(value: Any) -> str:
    """A TOML value on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(key))} = {value_text(each)}" for key, each in value.items()) + " }"
    if isinstance(value, Iterable):
        return "[" + ", ".join(value_text(each) for each in value) + "]"
    return str(value)


def _image(image: DraftImage) -> list[str]:
    lines = [f"[images.{image.name}]", *_todos(image.todos), f"context = {text(image.context)}"]
    if image.dockerfile != "Dockerfile":
        lines.append(f"dockerfile = {text(image.dockerfile)} # below the context")
    if image.target:
        lines.append(f"target = {text(image.target)}")
    if image.dev_target:
        lines.append(f"dev_target = {text(image.dev_target)} # the stage that `create` starts to develop in")
    if image.args:
        lines.append(f"args = {value_text(image.args)}")
    return lines


def _service(service: DraftService) -> list[str]:
    at = f"services.{service.name}"
    if not (service.image or service.external):
        return ["", *_todos([f"{service.name} has no image that could be written down", *service.todos])]
    lines = ["", f"[{at}]", *_todos(service.todos)]
    if service.image:
        lines.append(f"image = {text(service.image)}")
    else:
        lines.append(f"external = {text(service.external)} # takes part in tests, and does not travel to Proxima")
    lines += [f"{key} = {value_text(value)}" for key, value in service.values.items()]
    if service.ports:
        lines.append(f"ports = {value_text(service.ports)}")
    if service.depends_on:
        lines.append(f"depends_on = {value_text(service.depends_on)} # ready first")
    lines.append(f"limits = {value_text(service.limits)} # in force; disk covers volumes and /tmp")
    if service.tmpfs:
        lines.append(f"tmpfs = {value_text(service.tmpfs)}")
    if service.healthcheck:
        lines.append(f"healthcheck = {value_text(service.healthcheck)}")
    if service.dev:
        lines.append(f"dev = {value_text(service.dev)}")
    if service.environment:
        lines += ["", f"[{at}.environment]"]
        for name, variable in service.environment.items():
            lines += _variable(name, variable)
    for table, entries in (("secrets", service.secrets), ("configs", service.configs), ("volumes", service.volumes)):
        for key, entry in entries.items():
            lines += ["", f"[{at}.{table}.{key}]", *(f"{name} = {text(each)}" for name, each in entry.items())]
    return lines


def _variable(name: str, variable: Variable) -> list[str]:
    table: dict[str, Any] = {
        "default": variable.default,
        "secret": variable.secret or None,
        "required": variable.required or None,
        "test_value": variable.test_value,
        "description": variable.description or None,
    }
    line = f"{name} = {value_text({key: each for key, each in table.items() if each is not None})}"
    return [line] if variable.description else [f"# TODO: description of {name}", line]


def _todos(texts: Iterable[str]) -> list[str]:
    return [f"# TODO: {' '.join(each.split())}" for each in texts]


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else text(key)
