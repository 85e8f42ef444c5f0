"""What a compose file mounts: data as volumes, files as configs, secrets as secrets; source is left to `create`."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lyra_tasks.config.units import parse_size
from lyra_tasks.setup.compose_file import ComposeFile, entries, fill, table
from lyra_tasks.setup.draft import SHARED_TEST_VALUE, TMP, DraftService, free_name
from lyra_tasks.setup.facts import Facts

_TMPFS_SIZE = "16m"
_MOST_FILES = 10


class _Mount(NamedTuple):
    kind: str
    source: str
    target: str
    read_only: bool


def add_volumes(draft: DraftService, raw: Mapping[str, Any], facts: Facts, values: Mapping[str, str]) -> None:
    """Volumes, tmpfs and bind mounts of one service."""
    for mount in _mounts(raw, values):
        target = posixpath.normpath(mount.target)
        if not mount.target.startswith("/") or target == "/":
            draft.todos.append(f"the mount at {mount.target!r} has no place in the container")
        elif mount.kind == "volume" and target == TMP:
            draft.notes.append(f"{draft.name}: {TMP} is in memory here, and nothing in it is kept")
        elif mount.kind == "volume":
            if any(each["path"] == target for each in draft.volumes.values()):
                continue
            name = free_name(mount.source or target, draft.volumes)
            draft.volumes[name] = {"path": target, "description": f"what it keeps in {target}"}
        elif mount.kind == "tmpfs":
            draft.tmpfs[target] = _TMPFS_SIZE
        elif mount.kind == "bind":
            _bind(draft, mount, target, facts)
        else:
            draft.todos.append(f"the mount at {target} is of the type {mount.kind}, which is not carried over")
    written = raw.get("tmpfs") or []
    for each in written if isinstance(written, list) else [written]:
        path, _, options = fill(str(each), values).text.partition(":")
        if path.startswith("/") and posixpath.normpath(path) != TMP:
            draft.tmpfs[posixpath.normpath(path)] = _size(options)


def add_files(
    draft: DraftService, raw: Mapping[str, Any], compose: ComposeFile, facts: Facts, values: Mapping[str, str]
) -> None:
    """The configs and secrets of one service, short and long form."""
    for name, target in _named(raw, "configs", "/"):
        source = table(compose.configs, name).get("file")
        if source is None:
            draft.todos.append(f"the config {name} is no file of the project: write it into one, and name it here")
            continue
        path = posixpath.normpath(fill(str(source), values).text)
        if path not in facts.files:
            draft.todos.append(f"the config {name} is {path}, which is no file of this folder")
            continue
        draft.configs[free_name(name, draft.configs)] = {
            "path": target,
            "source": path,
            "description": f"the file {name}",
        }
    for name, target in _named(raw, "secrets", "/run/secrets/"):
        draft.secrets[free_name(name, draft.secrets)] = {
            "path": target, "description": f"the secret {name}", "test_value": SHARED_TEST_VALUE,
        }  # fmt: skip


def _bind(draft: DraftService, mount: _Mount, target: str, facts: Facts) -> None:
    source = posixpath.normpath(mount.source)
    if source in facts.files:
        key = free_name(posixpath.basename(source), draft.configs)
        draft.configs[key] = {"path": target, "source": source, "description": f"the file {posixpath.basename(source)}"}
    elif source not in facts.folders:
        why = "the engine itself" if source.endswith("docker.sock") else "what lies outside the project"
        draft.todos.append(f"{source} at {target} is not mounted: a container on Lyra gets nothing of {why}")
    elif draft.image and not mount.read_only:
        draft.dev.setdefault("source", target)
        draft.notes.append(
            f"{draft.name}: the source at {target} is what `create` mounts; tests run what the image has"
        )
    else:
        _folder(draft, source, target, facts)


def _folder(draft: DraftService, source: str, target: str, facts: Facts) -> None:
    """A small folder that is only read: one config per file."""
    inside = sorted(each for each in facts.files if each.startswith(f"{source}/"))
    if not 0 < len(inside) <= _MOST_FILES:
        draft.todos.append(f"{source} at {target} is not mounted: put its {len(inside)} files into the image")
        return
    for each in inside:
        below = posixpath.relpath(each, source)
        place = posixpath.join(target, below)
        draft.configs[free_name(below, draft.configs)] = {
            "path": place,
            "source": each,
            "description": f"the file {below}",
        }


def _mounts(raw: Mapping[str, Any], values: Mapping[str, str]) -> Iterator[_Mount]:
    for each in entries(raw, "volumes"):
        if isinstance(each, dict):
            source = fill(str(each.get("source") or ""), values).text
            yield _Mount(str(each.get("type", "volume")), source, str(each.get("target")), bool(each.get("read_only")))
            continue
        parts = fill(str(each), values).text.split(":")
        if len(parts) == 1:
            yield _Mount("volume", "", parts[0], False)
            continue
        is_path = parts[0].startswith((".", "/", "~"))
        read_only = "ro" in (parts[2].split(",") if len(parts) > 2 else [])
        yield _Mount("bind" if is_path else "volume", parts[0], parts[1], read_only)


def _named(raw: Mapping[str, Any], key: str, folder: str) -> Iterator[tuple[str, str]]:
    for each in entries(raw, key):
        name = str(each.get("source") if isinstance(each, dict) else each)
        target = str((each.get("target") if isinstance(each, dict) else "") or name)
        yield name, target if target.startswith("/") else f"{folder}{target}"


def _size(options: str) -> str:
    for option in options.split(","):
        key, _, value = option.partition("=")
        if key == "size":
            try:
                parse_size(value)
            except ValueError:
                break
            return value
    return _TMPFS_SIZE
