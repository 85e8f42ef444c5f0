"""Convert variables, limits and mounts of a compose service."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from lyra_tasks.config.models import Limits
from lyra_tasks.config.validation.consistency import MIN_MEMORY_BYTES
from lyra_tasks.scaffold.compose_file import ComposeFile, get_list, get_table, interpolate
from lyra_tasks.scaffold.drafts import SHARED_TEST_VALUE, TMP, DraftService, DraftVariable, set_variable, unique_name
from lyra_tasks.scaffold.project_files import ProjectFiles, parse_env_file
from lyra_tasks.units import parse_size

_EXAMPLE_SUFFIXES = (".example", ".sample", ".dist", ".template")  # of the template of an env file
_TMPFS_SIZE = "16m"
_MAX_DIRECTORY_FILES = 10


class _Mount(NamedTuple):
    kind: str
    source: str
    target: str
    read_only: bool


def add_environment(
    draft: DraftService, name: str, raw: Mapping[str, Any], compose: ComposeFile, project: ProjectFiles
) -> None:
    """Add the variables of a service from its env files and its table, which takes precedence."""
    for path in _env_files(raw):
        example = next(
            (candidate for suffix in _EXAMPLE_SUFFIXES if (candidate := f"{path}{suffix}") in project.texts), ""
        )
        file_text = project.texts.get(path, project.texts.get(example))
        if file_text is None:
            draft.todos.append(f"{path} not found: list its variables in [services.{draft.name}.environment]")
        for key, value, comment in parse_env_file(file_text or ""):
            set_variable(draft, key, value, comment, shared=True)
    pairs: list[tuple[str, Any]] = [*get_table(raw, "environment").items()]
    pairs += [split_assignment(str(entry)) for entry in get_list(raw, "environment")]
    examples = _read_examples(project)
    for key, raw_value in pairs:
        text = "" if raw_value is None else format_scalar(raw_value)
        interpolation = interpolate(text, {})
        unresolved = (key,) if raw_value is None else interpolation.unresolved
        comment = compose.comments.get((name, key), "") or "".join(
            examples[variable][1] for variable in unresolved if variable in examples
        )
        if unresolved or interpolation.has_secret:
            _add_unresolved_variable(draft, key, text, comment, examples)
        else:
            set_variable(draft, key, interpolation.text, comment, shared=True)


def _add_unresolved_variable(
    draft: DraftService, key: str, text: str, comment: str, examples: Mapping[str, tuple[str, str]]
) -> None:
    """Add a variable that is set from outside, with a test value from the example of the env file."""
    set_variable(draft, key, None, comment, shared=True)
    if key not in draft.environment or draft.environment[key].secret:
        return
    interpolation = interpolate(text or f"${{{key}}}", {name: value for name, (value, _) in examples.items() if value})
    secret, value = interpolation.has_secret, None if interpolation.unresolved else interpolation.text
    description = draft.environment[key].description
    draft.environment[key] = DraftVariable(test_value=value, required=True, secret=secret, description=description)
    if value is None:
        draft.todos.append(f"{key} has no value for tests: give it a test_value")


def _read_examples(project: ProjectFiles) -> dict[str, tuple[str, str]]:
    """Return value and comment of the variables in the example of `.env`, but not in `.env`, which is private."""
    examples: dict[str, tuple[str, str]] = {}
    for path in (*(f".env{suffix}" for suffix in _EXAMPLE_SUFFIXES), "example.env"):
        for name, value, comment in parse_env_file(project.texts.get(path, "")):
            examples.setdefault(name, (value, comment))
    return examples


def _env_files(raw: Mapping[str, Any]) -> list[str]:
    value = raw.get("env_file") or []
    items = value if isinstance(value, list) else [value]
    return [posixpath.normpath(str(item.get("path") if isinstance(item, dict) else item)) for item in items]


def split_assignment(text: str) -> tuple[str, str | None]:
    """Split `NAME=value`; the value is None without `=`, which means that it is set from outside."""
    name, equals, value = text.partition("=")
    return name, value if equals else None


def format_scalar(value: object) -> str:
    """Return a YAML value as Compose puts it into the environment."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def convert_limits(draft: DraftService, raw: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Return the limits that can be enforced; 0 and -1 mean unlimited in Compose, which is not permitted here."""
    deploy_limits = get_table(get_table(get_table(raw, "deploy"), "resources"), "limits")
    converters: dict[str, tuple[str, Callable[[str], Any]]] = {
        "cpus": ("cpus", float), "memory": ("mem_limit", str.lower), "pids": ("pids_limit", int),
    }  # fmt: skip
    result: dict[str, Any] = {}
    for key, (compose_key, convert) in converters.items():
        value = raw.get(compose_key, deploy_limits.get(key))
        if value is not None:
            try:
                limit = convert(interpolate(str(value), values).text)
                if Limits.model_validate({key: limit}).memory < MIN_MEMORY_BYTES:
                    raise ValueError(limit)
                result[key] = limit
            except ValueError:
                draft.todos.append(f"{value} is not an enforceable limit of {key}: replaced by a small one")
    return result


def add_volumes(draft: DraftService, raw: Mapping[str, Any], project: ProjectFiles, values: Mapping[str, str]) -> None:
    """Add volumes, tmpfs and bind mounts of a service."""
    for mount in _parse_mounts(raw, values):
        target = posixpath.normpath(mount.target)
        if not mount.target.startswith("/") or target == "/":
            draft.todos.append(f"the mount at {mount.target!r} is not a path in the container")
        elif mount.kind == "volume" and target == TMP:
            draft.notes.append(f"{draft.name}: {TMP} is a tmpfs here, and its files are not kept")
        elif mount.kind == "volume":
            if any(volume["path"] == target for volume in draft.volumes.values()):
                continue
            name = unique_name(mount.source or target, draft.volumes)
            draft.volumes[name] = {"path": target, "description": f"data in {target}"}
        elif mount.kind == "tmpfs":
            draft.tmpfs[target] = _TMPFS_SIZE
        elif mount.kind == "bind":
            _add_bind_mount(draft, mount, target, project)
        else:
            draft.todos.append(f"the mount at {target} has the unsupported type {mount.kind}")
    tmpfs = raw.get("tmpfs") or []
    for entry in tmpfs if isinstance(tmpfs, list) else [tmpfs]:
        path, _, options = interpolate(str(entry), values).text.partition(":")
        if path.startswith("/") and posixpath.normpath(path) != TMP:
            draft.tmpfs[posixpath.normpath(path)] = _parse_tmpfs_size(options)


def add_files(
    draft: DraftService, raw: Mapping[str, Any], compose: ComposeFile, project: ProjectFiles, values: Mapping[str, str]
) -> None:
    """Add configs and secrets of a service, in short or long form."""
    for name, target in _list_file_mounts(raw, "configs", "/"):
        source = get_table(compose.configs, name).get("file")
        if source is None:
            draft.todos.append(f"the config {name} is not a file: write it to a file of the project, and add that")
            continue
        path = posixpath.normpath(interpolate(str(source), values).text)
        if path not in project.files:
            draft.todos.append(f"the config {name} is {path}, which is not a file below this directory")
            continue
        _add_config(draft, name, target, path)
    for name, target in _list_file_mounts(raw, "secrets", "/run/secrets/"):
        draft.secrets[unique_name(name, draft.secrets)] = {
            "path": target, "description": f"the secret {name}", "test_value": SHARED_TEST_VALUE,
        }  # fmt: skip


def _add_config(draft: DraftService, name: str, target: str, source: str) -> None:
    key = unique_name(name, draft.configs)
    draft.configs[key] = {"path": target, "source": source, "description": f"the file {name}"}


def _add_bind_mount(draft: DraftService, mount: _Mount, target: str, project: ProjectFiles) -> None:
    source = posixpath.normpath(mount.source)
    if source in project.files:
        _add_config(draft, posixpath.basename(source), target, source)
    elif source not in project.directories:
        reason = "the engine itself" if source.endswith("docker.sock") else "files outside the project"
        draft.todos.append(f"{source} at {target} is not mounted: containers have no access to {reason}")
    elif draft.image and not mount.read_only:
        draft.dev.setdefault("source", target)
        draft.notes.append(f"{draft.name}: `create` mounts the source at {target}; tests use the files of the image")
    else:
        _add_directory(draft, source, target, project)


def _add_directory(draft: DraftService, source: str, target: str, project: ProjectFiles) -> None:
    """Add one config per file of a small directory that is only read."""
    files = sorted(file for file in project.files if file.startswith(f"{source}/"))
    if not 0 < len(files) <= _MAX_DIRECTORY_FILES:
        draft.todos.append(f"{source} at {target} is not mounted: put its {len(files)} files into the image")
        return
    for file in files:
        relative_path = posixpath.relpath(file, source)
        _add_config(draft, relative_path, posixpath.join(target, relative_path), file)


def _parse_mounts(raw: Mapping[str, Any], values: Mapping[str, str]) -> Iterator[_Mount]:
    for entry in get_list(raw, "volumes"):
        if isinstance(entry, dict):
            source = interpolate(str(entry.get("source") or ""), values).text
            yield _Mount(
                str(entry.get("type", "volume")), source, str(entry.get("target")), bool(entry.get("read_only"))
            )
            continue
        parts = interpolate(str(entry), values).text.split(":")
        if len(parts) == 1:
            yield _Mount("volume", "", parts[0], False)
            continue
        is_path = parts[0].startswith((".", "/", "~"))
        read_only = "ro" in (parts[2].split(",") if len(parts) > 2 else [])
        yield _Mount("bind" if is_path else "volume", parts[0], parts[1], read_only)


def _list_file_mounts(raw: Mapping[str, Any], key: str, directory: str) -> Iterator[tuple[str, str]]:
    for entry in get_list(raw, key):
        name = str(entry.get("source") if isinstance(entry, dict) else entry)
        target = str((entry.get("target") if isinstance(entry, dict) else "") or name)
        yield name, target if target.startswith("/") else f"{directory}{target}"


def _parse_tmpfs_size(options: str) -> str:
    match = re.search(r"(?:^|,)size=([^,]*)", options)
    with suppress(ValueError):
        if match and parse_size(match[1]):
            return match[1]
    return _TMPFS_SIZE
