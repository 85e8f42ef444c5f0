"""Render a draft as the text of `.lyra.toml`, with comments and TODOs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lyra_tasks.references import suggest_archive_name
from lyra_tasks.scaffold.drafts import Draft, DraftTable

_WIDTH = 120
_TABLES = ("environment", "secrets", "configs", "volumes")


def render_configuration(name: str, draft: Draft, origin: str) -> str:
    """Return the text of the configuration."""
    lines = [
        f"# Written by `lyra init` from {origin}.",
        "# Lines with TODO need your input; delete them when done.",
        '# Sizes are "64m" or "8g", times "1.5s" or "2m". `lyra config.show` prints all effective values.',
        "",
        "schema = 1",
        "",
        "[project]",
        f"# The name is that of the Compose project: {name}"
        if draft.project_name
        else f"name = {toml_string(name)} # images: {name}/IMAGE, bundles: promotion/{name}/",
        "# TODO: description in one line, the heading of the bundle",
        'description = ""',
        *_render_todos(draft.todos),
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
    if draft.compose:
        lines += ["", "[compose]", *(f"{key} = {toml_value(value)}" for key, value in draft.compose.items())]
    lines += ["", *(f"# {line}".rstrip() for line in draft.tables_to_paste)] if draft.tables_to_paste else []
    for image_name, image in draft.images.items():
        lines += _render_image(image_name, image)
    for service_name, service in draft.services.items():
        lines += _render_service(service_name, service)
    lines += _render_foreign_images(draft.foreign_images)
    if draft.checks:
        lines += ["", f"# {' tests':->{_WIDTH - 2}}"]
    for check in draft.checks:
        lines += ["", "[[tests]]", *(f"{key} = {toml_value(value)}" for key, value in check.items())]
    return "\n".join(lines) + "\n"


def _render_foreign_images(users_by_reference: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a table for each image from elsewhere, which gives it another source where no registry is reachable."""
    if not users_by_reference:
        return []
    lines = [
        "",
        "# Without a registry, uncomment these tables: `docker save IMAGE -o FILE` where an image is, or `rootfs`.",
    ]
    for reference, users in users_by_reference.items():
        table = f"# [bases.{toml_key(reference)}] # {', '.join(users)}"
        lines += [table, f'# archive = "{suggest_archive_name(reference)}"']
    return lines


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
        return "{ " + ", ".join(f"{toml_key(str(key))} = {toml_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, Iterable):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return str(value)


def toml_key(key: str) -> str:
    """Return a key of a TOML table, in quotes if it needs them."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_string(key)


def _render_image(name: str, image: DraftTable) -> list[str]:
    if not image.written and not image.todos:
        return []
    return ["", f"[images.{toml_key(name)}]", *_render_todos(image.todos), *_render_keys(image, image.written)]


def _render_service(name: str, service: DraftTable) -> list[str]:
    if not service.written and not service.todos:
        return []
    table = f"services.{toml_key(name)}"
    lines = ["", f"# {f' {name}':->{_WIDTH - 2}}"]
    keys = [key for key in service.written if key not in _TABLES]
    if keys or service.todos:
        lines += ["", f"[{table}]", *_render_todos(service.todos), *_render_keys(service, keys)]
    for key in _TABLES:
        entries = service.written.get(key) or {}
        if entries and key == "environment":
            lines += ["", f"[{table}.environment]"]
            for variable, entry in entries.items():
                lines += _render_variable(variable, entry, service.given.get("environment") or {})
        for entry_name, entry in entries.items() if key != "environment" else ():
            lines += ["", f"[{table}.{key}.{toml_key(entry_name)}]"]
            lines += [f"{entry_key} = {toml_value(value)}" for entry_key, value in entry.items()]
    return lines


def _render_variable(name: str, entry: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    shown = {key: value for key, value in entry.items() if value != "" or key == "default"}
    line = f"{toml_key(name)} = {toml_value(shown)}"
    return [line] if entry.get("description") or name in given else [f"# TODO: description of {name}", line]


def _render_keys(table: DraftTable, keys: Iterable[str]) -> list[str]:
    return [
        f"{key} = {toml_value(table.written[key])}" + (f" # {table.guesses[key]}" if key in table.guesses else "")
        for key in keys
    ]


def _render_todos(texts: Sequence[str]) -> list[str]:
    return [f"# TODO: {' '.join(text.split())}" for text in texts]
