"""Where builds read and write their cache: the entries of `[builder]` as Buildx takes them, by image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lyra_tasks.config.models import Builder
from lyra_tasks.config.platforms import Variant

LOCAL = "type=local"


def caches(builder: Builder, builds: Sequence[Variant], root: Path) -> dict[str, dict[str, list[str]]]:
    """By what a build is called, the lists `cache-from` and `cache-to`; a local cache that is not there is not read."""
    return {
        each.key: {
            "cache-from": [entry for entry in _entries(builder.cache_from, each, root) if _is_there(entry)],
            "cache-to": _entries(builder.cache_to, each, root),
        }
        for each in builds
    }


def _entries(entries: Sequence[str], build: Variant, root: Path) -> list[str]:
    name = build.key.replace("@", "-").replace("/", "-")
    return [_entry(entry.replace("{image}", name), root) for entry in entries]


def _entry(entry: str, root: Path) -> str:
    """Local folders are below the project, not where the command was typed."""
    fields = entry.split(",")
    if LOCAL not in fields:
        return entry
    return ",".join(_placed(field, root) for field in fields)


def _placed(field: str, root: Path) -> str:
    key, _, value = field.partition("=")
    return f"{key}={root / value}" if key in {"src", "dest"} else field


def _is_there(entry: str) -> bool:
    sources = [field.removeprefix("src=") for field in entry.split(",") if field.startswith("src=")]
    return LOCAL not in entry.split(",") or all(Path(source, "index.json").is_file() for source in sources)
