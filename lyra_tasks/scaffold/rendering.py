"""Render the files that `init` writes from their templates."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lyra_tasks.references import suggest_archive_name


def render_template(file: str, **values: object) -> str:
    """Return the text of a file, from the template beside this module."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(  # noqa: S701 - no HTML
        loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"toml": toml_value, "toml_key": toml_key, "archive_name": suggest_archive_name}
    return environment.get_template(file).render(values)


def toml_value(value: Any) -> str:
    """Return a TOML value on one line: apart from tables and DEL, as in JSON."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{toml_key(str(key))} = {toml_value(item)}" for key, item in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_key(key: str) -> str:
    """Return a key of a TOML table, in quotes if it needs them."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)
