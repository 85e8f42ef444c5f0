"""Translate what `docker compose config` says of a project into tables of `.lyra.toml`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lyra_tasks.compose.model import Location
from lyra_tasks.compose.sources import SourceFiles, relative_name
from lyra_tasks.compose.translation.draft import Draft, ServiceDraft
from lyra_tasks.compose.translation.environment import VariableSources, add_environment, link_passwords
from lyra_tasks.compose.translation.images import ImageTable
from lyra_tasks.compose.translation.mounts import add_files, add_mounts, share_volumes, take_volumes
from lyra_tasks.compose.translation.names import name_services
from lyra_tasks.compose.translation.restrictions import check_resources, check_service
from lyra_tasks.compose.translation.services import (
    add_healthcheck,
    add_limits,
    add_names,
    add_plain_keys,
    add_ports,
    add_watch,
)
from lyra_tasks.documents import DocumentError, read_document

_MAX_TEXT_BYTES = 256 * 1024


def translate_project(
    document: Mapping[str, Any],
    sources: SourceFiles,
    root: Path,
    variables: Mapping[str, VariableSources],
    *,
    ignored: Iterable[str] = (),
    plain_names: frozenset[str] = frozenset(),
) -> Draft:
    """Return the tables for the services of a project, except those `ignored`.

    `variables` has what is known of the variables of each service, `plain_names` those that are no secrets whatever
    their name.
    """
    draft = Draft(root, sources, plain_names)
    all_services = document.get("services") or {}
    order = [name for name in sources.layers if name in all_services]
    order += [name for name in all_services if name not in order]
    left_out = set(ignored) | {name for name in order if _replicas(all_services[name]) == 0}
    names = name_services(name for name in order if name not in left_out)
    services = {name: ServiceDraft(draft, names[name], name, all_services[name]) for name in names}
    for name in set(order) - set(ignored) - set(names):
        draft.note(("services", name), "has no replicas, and is left out")
    contexts = _add_images(services, ImageTable(draft, document))
    link_aliases = _find_link_aliases(services)
    oneshots = {
        other
        for service in services.values()
        for other, options in service.raw_table("depends_on").items()
        if (options or {}).get("condition") == "service_completed_successfully"
    }
    for name, service in services.items():
        draft.origins["services", service.name] = ("services", name)
        take_volumes(service, all_services)
        add_mounts(service, contexts.get(name))
        add_files(service, document)
    _collect_public_texts(draft, services.values())
    for name, service in services.items():
        add_plain_keys(service)
        dependencies = [names[other] for other in service.raw_table("depends_on") if other in names]
        if dependencies:
            service.put("depends_on", dependencies)
        if name in oneshots:
            service.put("oneshot", True, "image")
        add_ports(service)
        add_limits(service)
        add_environment(service, variables.get(name, VariableSources({})))
        add_healthcheck(service)
        add_names(service, link_aliases.get(name, ()), set(names.values()))
        add_watch(service, _project_paths(service, root))
        check_service(service)
        if contexts.get(name) is not None:
            service.table.pop("platform", None)  # that of its image
        draft.services[service.name] = service.table
    check_resources(draft, _used_resources(document, services))
    share_volumes(services.values())
    link_passwords(services.values(), variables)
    return draft


def _collect_public_texts(draft: Draft, services: Iterable[ServiceDraft]) -> None:
    """Read the files that services mount; a password in one of them is the same in tests and everywhere else."""
    for service in services:
        for name, value in service.raw_table("environment").items():
            if name in draft.plain_names and value:
                draft.public_texts[name] = str(value)
        for config in service.table.get("configs", {}).values():
            path = draft.root / config.get("source", "")
            if "source" in config and path not in draft.public_texts:
                with suppress(OSError, DocumentError):
                    draft.public_texts[path] = read_document(path, _MAX_TEXT_BYTES).decode(errors="replace")


def _replicas(raw: Mapping[str, Any]) -> int | None:
    replicas = (raw.get("deploy") or {}).get("replicas", raw.get("scale"))
    return replicas if isinstance(replicas, int) else None


def _add_images(services: Mapping[str, ServiceDraft], images: ImageTable) -> dict[str, str | None]:
    contexts = {name: images.add_build(service) for name, service in services.items() if service.raw.get("build")}
    for name, service in services.items():
        if name not in contexts:
            images.add_reference(service)
    return contexts


def _find_link_aliases(services: Mapping[str, ServiceDraft]) -> dict[str, list[tuple[str, Location]]]:
    aliases: dict[str, list[tuple[str, Location]]] = {}
    for name, service in services.items():
        for index, link in enumerate(service.raw_list("links")):
            target, _, alias = str(link).partition(":")
            if alias and target in services:
                aliases.setdefault(target, []).append((alias, ("services", name, "links", index)))
    return aliases


def _project_paths(service: ServiceDraft, root: Path) -> dict[str, str]:
    """Return the watched paths of a service that are in the project, by what Compose calls them."""
    paths = [str(entry.get("path")) for entry in service.raw_table("develop").get("watch") or []]
    relative = {path: relative_name(path, root) for path in paths}
    return {path: name for path, name in relative.items() if not name.startswith("..")}


def _used_resources(document: Mapping[str, Any], services: Mapping[str, ServiceDraft]) -> dict[str, dict[str, Any]]:
    used: dict[str, set[str]] = {"networks": set(), "volumes": set(), "secrets": set(), "configs": set()}
    for service in services.values():
        used["networks"] |= service.raw_table("networks").keys()
        used["volumes"] |= {str(mount.get("source")) for mount in service.raw_list("volumes")}
        for key in ("secrets", "configs"):
            used[key] |= {str(entry.get("source")) for entry in service.raw_list(key)}
    return {
        key: {name: value for name, value in (document.get(key) or {}).items() if name in names}
        for key, names in used.items()
    }
