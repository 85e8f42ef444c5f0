"""Draft what a Compose project leaves open: nothing that stands in its files is written again."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from lyra_tasks.compose.model import DEFAULT_FILES, OVERRIDE_FILES, Finding, Location
from lyra_tasks.compose.overrides import has_value
from lyra_tasks.compose.translation.names import make_image_name, unique_name
from lyra_tasks.references import registry_host, strip_tag
from lyra_tasks.scaffold.dockerfile_import import draft_image, name_image
from lyra_tasks.scaffold.drafts import Draft, DraftImage, DraftTable
from lyra_tasks.scaffold.known_images import find_known_image
from lyra_tasks.scaffold.project_files import ComposeFiles, ProjectFiles


def draft_from_compose(compose: ComposeFiles, project: ProjectFiles) -> Draft:
    """Return the draft for a Compose project, with notes about everything that it does not carry."""
    document = compose.project.document
    draft = Draft(compose=_draft_settings(compose), project_name=compose.project.name)
    draft.images = {name: DraftImage(given=table) for name, table in (document.get("images") or {}).items()}
    draft.services = {name: DraftTable(given=table) for name, table in (document.get("services") or {}).items()}
    for image in draft.images.values():
        image.dockerfile = project.dockerfiles.get(image.dockerfile_path)
    for finding in compose.project.findings:
        if finding.is_refused and finding.override[:1] == ("services",) and has_value(finding.override, document):
            _, name, key, *rest = map(str, finding.override)
            draft.services[name].add(key, document["services"][name][key])
            draft.services[name].todos.append(f"{'.'.join((key, *rest))} {finding.message}")
    for service in draft.services.values():
        if requests := service.get("host_access"):
            service.todos.append(
                f"it asks the host for {'; '.join(requests)}, and does not get it: if it does without, write "
                "host_access = []"
            )
    draft.notes += _describe_findings(compose)
    _recognize_own_images(draft, project)
    draft.notes += [f"no service builds {path}" for path in _list_unused(draft, project)]
    return draft


def _list_unused(draft: Draft, project: ProjectFiles) -> list[str]:
    """Return the Dockerfiles that no service builds."""
    built = {image.dockerfile_path for image in draft.images.values()}
    return [path for path in project.dockerfiles if path not in built]


def _draft_settings(compose: ComposeFiles) -> dict[str, Any]:
    settings = compose.settings
    is_default = settings.files is None or set(compose.files) <= {*DEFAULT_FILES, *OVERRIDE_FILES}
    files = None if is_default else compose.files
    values = {"files": files, "profiles": settings.profiles, "ignore": settings.ignore or None}
    return {key: value for key, value in values.items() if value is not None}


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
    names = [str(part) for part in location[2:] if not isinstance(part, int)]
    if location[0] != "services":
        names.insert(0, str(location[0]))
    return ".".join(names or map(str, location[1:2]))


def _recognize_own_images(draft: Draft, project: ProjectFiles) -> None:
    """Find the services whose image is named as it is published, while its Dockerfile is here."""
    unused = {path: name_image(path, project) for path in _list_unused(draft, project)}
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
            if image_name in names
            or (len(unused) == 1 and (make_image_name(project.root.name) in names or published == [name]))
        ]
        if matches:
            key = unique_name(image_name, draft.images)
            draft.images[key] = draft_image(path, project)
            for name in matches:
                reference = draft.services[name].get("image")
                draft.services[name].add("image", key, f"built from {path}; the Compose file names it {reference}")
                candidates.pop(name)
        elif published:
            draft.offers.append((image_name, published[0], draft_image(path, project)))


def _repository_names(reference: str) -> set[str]:
    """Return the parts of a published name by which its project may be known; none of an official image."""
    if "/" not in reference and ":" in reference:
        return set()
    *namespace, last = strip_tag(reference).removeprefix(f"{registry_host(reference)}/").split("/")
    return {make_image_name("-".join(parts)) for parts in ([last], [*namespace[-1:], last])}
