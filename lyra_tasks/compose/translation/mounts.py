"""Translate the mounts of a service: data volumes, files of the project, secrets, and the source under development."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lyra_tasks.compose.model import Location
from lyra_tasks.compose.probes import MAX_LISTED_FILES
from lyra_tasks.compose.sources import relative_name
from lyra_tasks.compose.stand_ins import SHARED_TEST_VALUE, replace_passwords
from lyra_tasks.compose.translation.draft import ServiceDraft
from lyra_tasks.compose.translation.names import unique_name
from lyra_tasks.redaction import is_secret_name
from lyra_tasks.units import format_size, parse_size

_TMP = "/tmp"  # noqa: S108
_TMPFS_SIZE = "16m"
_DEFAULT_SIZE = 64 * 1024**2
_SPARE_DISK = 32 * 1024**2


def add_mounts(service: ServiceDraft, context: str | None) -> None:
    """Add volumes, tmpfs and bind mounts; `context` is the build context of the service's own image."""
    mounts = list(enumerate(service.raw_list("volumes")))
    source_target = _find_source_target(service, context)
    for index, mount in mounts:
        kind, target = str(mount.get("type")), posixpath.normpath("/" + str(mount.get("target")).lstrip("/"))
        path: Location = ("volumes", index)
        if target == "/":
            service.refuse("nothing can be mounted over the whole container", *path)
        elif kind == "tmpfs":
            _add_tmpfs(service, target, (mount.get("tmpfs") or {}).get("size"), path)
        elif kind == "bind":
            _add_bind(service, mount, target, context, source_target, path)
        elif kind == "volume" and source_target and target.startswith(f"{source_target}/"):
            service.note(f"{target} only keeps files of the image from being hidden under development", *path)
        elif kind == "volume" and target == _TMP:
            service.note(f"{_TMP} is a tmpfs in every container, and its files are not kept", *path)
        elif kind == "volume":
            _add_volume(service, str(mount.get("source") or ""), target, path)
        else:
            service.refuse(f"a mount of type {kind} is not possible; put its files into the image", *path)
    for index, text in enumerate(service.raw_list("tmpfs")):
        target, _, options = str(text).partition(":")
        if posixpath.normpath(target) != _TMP or _find_size(options):
            _add_tmpfs(service, posixpath.normpath(target), _find_size(options), ("tmpfs", index))
    _add_disk_limit(service)


def _find_source_target(service: ServiceDraft, context: str | None) -> str:
    """Return where the source is mounted under development, or ''."""
    for mount in service.raw_list("volumes"):
        if mount.get("type") == "bind" and _is_source(service, mount, context):
            return posixpath.normpath(str(mount["target"]))
    return ""


def _is_source(service: ServiceDraft, mount: Mapping[str, Any], context: str | None) -> bool:
    if context is None or mount.get("read_only"):
        return False
    source = relative_name(str(mount.get("source")), service.draft.root)
    is_below = source == context or context == "." or source.startswith(f"{context}/")
    is_above = source == "." or context.startswith(f"{source}/")
    return (
        (is_below or is_above)
        and not source.startswith("..")
        and (service.draft.probes.kind_of(service.draft.root / source) == "directory")
    )


def _add_bind(
    service: ServiceDraft,
    mount: Mapping[str, Any],
    target: str,
    context: str | None,
    source_target: str,
    path: Location,
) -> None:
    absolute = Path(str(mount.get("source")))
    source = relative_name(absolute, service.draft.root)
    is_inside = not source.startswith("..") and _is_inside(absolute, service.draft.root)
    if target == source_target:
        service.table.setdefault("dev", {})["source"] = target
        service.add_origin(("dev", "source"), path)
    elif not is_inside:
        what = "the engine itself" if source.endswith("docker.sock") else "a path of the host"
        service.ask_host(f"{absolute} at {target}: {what}", *path)
    elif (kind := service.draft.probes.kind_of(absolute)) == "file":
        _add_config(service, posixpath.basename(source), target, source, path)
    elif _is_source(service, mount, context):
        service.note(f"{source} at {target} is mounted under development only by the first source", *path)
    elif kind != "directory":
        if mount.get("read_only") and kind == "missing":
            service.refuse(f"{source} does not exist; mount what the project has", *path)
        else:
            _add_volume(service, posixpath.basename(source), target, path)
    else:
        _add_directory(service, absolute, source, target, path)


def _is_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root.resolve())
    except OSError:
        return False


def _add_directory(service: ServiceDraft, directory: Path, source: str, target: str, path: Location) -> None:
    """Add one config per file of a directory: the container reads them, and nothing writes to the project."""
    files = service.draft.probes.list_files(directory)
    if not files:
        service.ask_host(f"{source} at {target}: more than {MAX_LISTED_FILES} files of the project", *path)
    for file in files:
        _add_config(service, file, posixpath.join(target, file), posixpath.join(source, file), path)


def _add_volume(service: ServiceDraft, source: str, target: str, path: Location) -> None:
    volumes = service.table.setdefault("volumes", {})
    if any(volume["path"] == target for volume in volumes.values()):
        return
    name = unique_name(source or target, volumes)
    comment = service.draft.sources.find_comment(("services", service.compose_name, *path))
    volume: dict[str, Any] = {"path": target, "description": comment or f"data in {target}"}
    if service.raw["volumes"][path[1]].get("read_only"):
        volume["read_only"] = True
    service.put_entry("volumes", name, volume, *path)


def take_volumes(service: ServiceDraft, services: Mapping[str, Mapping[str, Any]]) -> None:
    """Mount what the services in `volumes_from` mount, where the service itself mounts nothing."""
    service.raw = {**service.raw, "volumes": _list_mounts(service.compose_name, services)}
    for index, entry in enumerate(service.raw_list("volumes_from")):
        if str(entry).startswith("container:"):
            service.refuse(f"{entry} is not possible: add the container as a service", "volumes_from", index)
        else:
            service.note("only its own `volumes` are taken, not those of its image: name them", "volumes_from", index)


def _list_mounts(name: str, services: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the mounts of a service, then those that it takes; an anonymous volume that others take gets a name."""
    raw = services.get(name) or {}
    taken_from = {
        str(entry).partition(":")[0] for other in services.values() for entry in other.get("volumes_from") or ()
    }
    mounts = [dict(mount) for mount in raw.get("volumes") or ()]
    for mount in mounts if name in taken_from else ():
        if mount.get("type") == "volume":
            mount.setdefault("source", f"{name}{mount['target']}")
    for entry in raw.get("volumes_from") or ():
        source, _, mode = str(entry).partition(":")
        targets = {mount["target"] for mount in mounts}
        taken = [mount for mount in _list_mounts(source, services) if mount["target"] not in targets]
        mounts += [{**mount, "read_only": True} for mount in taken] if mode == "ro" else taken
    return mounts


def share_volumes(services: Iterable[ServiceDraft]) -> None:
    """Give one name to the volumes that are one in the Compose project: the same volume, or the same directory."""
    uses: dict[str, list[tuple[ServiceDraft, str]]] = {}
    taken: set[str] = set()
    for service in services:
        for key in service.table.get("volumes", {}):
            taken.add(f"{service.name}-{key}")
            origin = service.draft.origins["services", service.name, "volumes", key]
            source = str(service.raw["volumes"][origin[3]].get("source") or "")
            if source:
                uses.setdefault(source, []).append((service, key))
    for source, mounts in uses.items():
        if len(mounts) > 1:
            name = unique_name(posixpath.basename(source), taken)
            taken.add(name)
            for service, key in mounts:
                service.table["volumes"][key]["shared"] = name


def _add_tmpfs(service: ServiceDraft, target: str, size: object, path: Location) -> None:
    text = str(size or "")
    service.put_entry(
        "tmpfs", target, format_size(int(text)) if text.isdecimal() and int(text) else text or _TMPFS_SIZE, *path
    )


def _find_size(options: str) -> str:
    match = re.search(r"(?:^|,)size=([^,]*)", options)
    return match[1] if match else ""


def _add_config(service: ServiceDraft, name: str, target: str, source: str, path: Location) -> None:
    entry = {"path": target, "source": source, "description": f"the file {posixpath.basename(source)}"}
    _add_file(service, "configs", name, entry, path)


def _add_file(service: ServiceDraft, table: str, name: str, entry: dict[str, str], path: Location) -> None:
    service.put_entry(table, unique_name(name, service.table.get(table, {})), entry, *path)


def _add_disk_limit(service: ServiceDraft) -> None:
    """Raise `limits.disk` where the volumes alone would fill it."""
    sizes = [_DEFAULT_SIZE for _ in service.table.get("volumes", {})]
    sizes += [parse_size(size) for size in service.table.get("tmpfs", {}).values()]
    if sizes and sum(sizes) + _SPARE_DISK > _DEFAULT_SIZE:
        service.put_entry("limits", "disk", format_size(sum(sizes) + _SPARE_DISK), "volumes")


def add_files(service: ServiceDraft, document: Mapping[str, Any]) -> None:
    """Add the configs and secrets of a service."""
    for index, entry in enumerate(service.raw_list("configs")):
        name, path = str(entry.get("source")), ("configs", index)
        definition = (document.get("configs") or {}).get(name) or {}
        target = _file_target(entry, name, "/")
        if definition.get("file"):
            source = relative_name(str(definition["file"]), service.draft.root)
            if source.startswith(".."):
                service.refuse_at(("configs", name, "file"), f"{source} is outside of the project; copy it into it")
            else:
                _add_config(service, name, target, source, path)
        elif definition.get("content") is not None:
            _add_content(service, name, target, definition, path)
        else:
            key = "environment" if definition.get("environment") else "external"
            service.refuse_at(
                ("configs", name, key), "has no content here: write it to a file, and name that as `file`"
            )
    for index, entry in enumerate(service.raw_list("secrets")):
        name = str(entry.get("source"))
        _add_secret(service, name, _file_target(entry, name, "/run/secrets/"), SHARED_TEST_VALUE, ("secrets", index))


def _add_content(service: ServiceDraft, name: str, target: str, definition: Mapping[str, Any], path: Location) -> None:
    """Add a config whose content stands in the Compose file; with a password in it, the file is a secret."""
    content, variable = str(definition["content"]), str(definition.get("environment") or "")
    is_secret_variable = is_secret_name(variable) and variable not in service.draft.plain_names
    replaced, has_password = replace_passwords(content)
    if is_secret_variable or has_password or SHARED_TEST_VALUE in content:
        service.note("it has a password in it, so that it is a secret: Proxima's operator writes the file", *path)
        _add_secret(service, name, target, SHARED_TEST_VALUE if is_secret_variable else replaced, path)
        return
    comment = service.draft.sources.find_comment(("configs", name))
    entry = {"path": target, "content": content, "description": comment or f"the config {name}"}
    _add_file(service, "configs", name, entry, path)


def _add_secret(service: ServiceDraft, name: str, target: str, test_value: str, path: Location) -> None:
    comment = service.draft.sources.find_comment((str(path[0]), name))
    entry = {"path": target, "test_value": test_value, "description": comment or f"the secret {name}"}
    _add_file(service, "secrets", name, entry, path)


def _file_target(entry: Mapping[str, Any], name: str, directory: str) -> str:
    target = str(entry.get("target") or name)
    return posixpath.normpath(target if target.startswith("/") else f"{directory}{target}")
