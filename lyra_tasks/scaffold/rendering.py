"""Render drafts as the text of `.lyra.toml`, with comments and TODOs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lyra_tasks.scaffold.drafts import DraftImage, DraftService, DraftVariable

_WIDTH = 120


def render_configuration(
    name: str, images: Sequence[DraftImage], services: Sequence[DraftService], todos: Sequence[str], origin: str
) -> str:
    """Return the text of the configuration."""
    lines = [
        f"# Written by `lyra init` from {origin}.",
        "# Lines with TODO need your input; delete them when done.",
        '# Sizes are "64m" or "8g", times "1.5s" or "2m". `lyra config.show` prints all effective values.',
        "",
        "schema = 1",
        "",
        "[project]",
        f"name = {toml_string(name)} # images: {name}/IMAGE, bundles: promotion/{name}/",
        "# TODO: description in one line, the heading of the bundle",
        'description = ""',
        *_render_todos(todos),
        "",
        "# Capabilities of the production node, which limit every build and test.",
        "[proxima]",
        'platforms = ["linux/amd64"]',
        'min_engine = "20.10" # the oldest engine that must load the bundle',
        "# cpus = 4               # limits of the node",
        '# memory = "8g"',
        '# max_image_size = "400m"',
        "",
        "[engine]",
        'sandbox = "auto" # a private engine if no other responds (Debian or Ubuntu, root; installs nothing)',
    ]
    for image in images:
        lines += ["", *_render_image(image)]
    for service in services:
        lines += ["", f"# {f' {service.name}':->{_WIDTH - 2}}", *_render_service(service)]
    checks = [(service.name, check) for service in services for check in service.checks]
    if checks:
        lines += ["", f"# {' tests':->{_WIDTH - 2}}"]
    for service_name, check in checks:
        lines += ["", "[[tests]]", f"name = {toml_string(check['name'])}", f"service = {toml_string(service_name)}"]
        lines += [f"{key} = {toml_value(value)}" for key, value in check.items() if key != "name"]
    return "\n".join(lines) + "\n"


def toml_string(value: str) -> str:
    """Return a TOML string, which is a JSON string except for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_value(value: Any) -> str:
    """Return a TOML value on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return toml_string(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml_key(str(key))} = {toml_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, Iterable):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return str(value)


def _render_image(image: DraftImage) -> list[str]:
    keys = (
        ("context", image.context, ""),
        ("dockerfile", image.dockerfile if image.dockerfile != "Dockerfile" else "", " # below the context"),
        ("target", image.target, ""),
        ("dev_target", image.dev_target, " # stage for `create`"),
        ("args", image.args, ""),
    )
    return [f"[images.{image.name}]", *_render_todos(image.todos), *_render_keys(keys)]


def _render_service(service: DraftService) -> list[str]:
    table_name = f"services.{service.name}"
    if not (service.image or service.external):
        return ["", *_render_todos([f"{service.name} has no valid image", *service.todos])]
    keys = (("image", service.image or service.external, ""),)
    optional_keys = (
        ("ports", service.ports, ""),
        ("depends_on", service.depends_on, " # ready first"),
        ("limits", service.limits, " # disk covers volumes and /tmp"),
        ("tmpfs", service.tmpfs, ""),
        ("healthcheck", service.healthcheck, ""),
        ("dev", service.dev, ""),
    )
    lines = ["", f"[{table_name}]", *_render_todos(service.todos), *_render_keys(keys)]
    lines += [f"{key} = {toml_value(value)}" for key, value in service.values.items()]
    lines += _render_keys(optional_keys)
    if service.environment:
        lines += ["", f"[{table_name}.environment]"]
        for name, variable in service.environment.items():
            lines += _render_variable(name, variable)
    for table, entries in (("secrets", service.secrets), ("configs", service.configs), ("volumes", service.volumes)):
        for key, entry in entries.items():
            lines += ["", f"[{table_name}.{table}.{key}]"]
            lines += [f"{name} = {toml_string(value)}" for name, value in entry.items()]
    return lines


def _render_variable(name: str, variable: DraftVariable) -> list[str]:
    table: dict[str, Any] = {
        "default": variable.default,
        "secret": variable.secret or None,
        "required": variable.required or None,
        "test_value": variable.test_value,
        "description": variable.description or None,
    }
    line = f"{name} = {toml_value({key: value for key, value in table.items() if value is not None})}"
    return [line] if variable.description else [f"# TODO: description of {name}", line]


def _render_keys(keys: Iterable[tuple[str, Any, str]]) -> list[str]:
    return [f"{key} = {toml_value(value)}{comment}" for key, value, comment in keys if value]


def _render_todos(texts: Iterable[str]) -> list[str]:
    return [f"# TODO: {' '.join(text.split())}" for text in texts]


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_string(key)
