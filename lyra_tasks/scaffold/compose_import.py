"""Draft what a Compose project leaves open: nothing that stands in its files is written again."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from lyra_tasks.compose.model import DEFAULT_FILES, OVERRIDE_FILES, Finding, Location
from lyra_tasks.compose.translation.names import make_image_name, unique_name
from lyra_tasks.scaffold.dockerfile_import import draft_image, name_image
from lyra_tasks.scaffold.drafts import Draft, DraftTable, ImageOffer, dockerfile_path
from lyra_tasks.scaffold.known_images import find_known_image
from lyra_tasks.scaffold.project_files import ComposeFiles, ProjectFiles

_REGISTRY = re.compile(r"[.:]|^localhost$")


def draft_from_compose(compose: ComposeFiles, project: ProjectFiles) -> Draft:
    """Return the draft for a Compose project, with notes about everything that it does not carry."""
    document = compose.project.document
    draft = Draft(compose=_draft_settings(compose), project_name=compose.project.name)
    draft.images = {name: DraftTable(given=table) for name, table in (document.get("images") or {}).items()}
    draft.services = {name: DraftTable(given=table) for name, table in (document.get("services") or {}).items()}
    for finding in compose.project.findings:
        if finding.is_refused and finding.override[:1] == ("services",):
            _settle(draft, finding)
    for service in draft.services.values():
        if requests := service.get("host_access"):
            service.todos.append(
                f"it asks the host for {'; '.join(requests)}, and does not get it: if it does without, write "
                "host_access = []"
            )
    draft.notes += _describe_findings(compose)
    _recognize_own_images(draft, project)
    built = {dockerfile_path(image) for image in draft.images.values()}
    draft.notes += [f"no service builds {path}" for path in project.dockerfiles if path not in built]
    return draft


def _draft_settings(compose: ComposeFiles) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if not set(compose.files) <= {*DEFAULT_FILES, *OVERRIDE_FILES} and compose.settings.files is not None:
        settings["files"] = list(compose.files)
    if compose.settings.profiles is not None:
        settings["profiles"] = list(compose.settings.profiles)
    if compose.settings.ignore:
        settings["ignore"] = list(compose.settings.ignore)
    return settings


def _settle(draft: Draft, finding: Finding) -> None:
    """Write a value that the Compose project leaves open."""
    _, name, key, *rest = (*finding.override, "", "")
    service = draft.services.get(str(name))
    if service is None or key not in service.given:
        return
    service.add(str(key), service.given[str(key)])
    service.todos.append(f"{'.'.join(map(str, (key, *filter(None, rest))))} {finding.message}")


def _describe_findings(compose: ComposeFiles) -> list[str]:
    """Return a line for each thing that is not carried, with its places; the same for several services is one line."""
    by_message: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in compose.project.findings:
        by_message[_key_of(finding.location), finding.message].append(finding)
    lines = []
    for (key, message), findings in by_message.items():
        places = [str(compose.project.places.get(finding.location, compose.files[0])) for finding in findings]
        more = f" and {len(set(places)) - 1} more" if len(set(places)) > 1 else ""
        ignored = "the service is left out: " if findings[0].is_refused and not findings[0].override else ""
        lines.append(f"{places[0]}{more}: {key}: {ignored}{message}" if key else f"{places[0]}{more}: {message}")
    return lines


def _key_of(location: Location) -> str:
    """Return the key of a finding without the names of services and items."""
    if location[0] != "services":
        return ".".join(str(part) for part in (location[0], *location[2:]) if not isinstance(part, int))
    names = [str(part) for part in location[2:] if not isinstance(part, int)]
    return ".".join(names) if names else str(location[1]) if len(location) > 1 else ""


def _recognize_own_images(draft: Draft, project: ProjectFiles) -> None:
    """Find the services whose image is named as it is published, while its Dockerfile is here."""
    built = {dockerfile_path(image) for image in draft.images.values()}
    unused = {path: name_image(path, project) for path in project.dockerfiles if path not in built}
    candidates = {
        name: _repository_names(str(service.get("image")))
        for name, service in draft.services.items()
        if service.get("image") not in draft.images and find_known_image(str(service.get("image"))) is None
    }
    published = [name for name, names in candidates.items() if len(names) > 1]
    for path, image_name in unused.items():
        matches = [
            name
            for name, names in candidates.items()
            if make_image_name(image_name) in names
            or (len(unused) == 1 and make_image_name(project.directory_name) in names)
            or (len(unused) == 1 and published == [name])
        ]
        if matches:
            key = unique_name(image_name, draft.images)
            draft.images[key] = draft_image(path, project)
            for name in matches:
                reference = draft.services[name].get("image")
                draft.services[name].add("image", key, f"built from {path}; the Compose file names it {reference}")
                candidates.pop(name)
        elif published:
            draft.offers.append(ImageOffer(image_name, path, published[0], draft_image(path, project).written))


def _repository_names(reference: str) -> set[str]:
    """Return the parts of a published name by which its project may be known; none of an official image."""
    parts = [part for part in reference.partition("@")[0].split("/") if part]
    if parts and len(parts) > 1 and _REGISTRY.search(parts[0]):
        parts = parts[1:]
    if not parts:
        return set()
    last = parts[-1].partition(":")[0]
    names = {make_image_name(last)} if len(parts) > 1 or "/" in reference or ":" not in reference else set()
    if len(parts) > 1:
        names |= {make_image_name(f"{parts[-2]}-{last}")}
    return names
