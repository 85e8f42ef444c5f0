"""Draft images from Dockerfiles: select production variants, find contexts, choose stages."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from lyra_tasks.dockerfile.parse import Dockerfile
from lyra_tasks.init.drafts import DraftImage, DraftService, make_name, unique_name
from lyra_tasks.init.project_files import ProjectFiles

_DEVELOPMENT_NAMES = {"dev", "develop", "development", "local", "debug"}
_TEST_NAMES = {"test", "tests", "ci", "lint", "e2e"}
_PRODUCTION_NAMES = {"prod", "production", "release", "final", "runtime"}
_GENERIC_DIRECTORIES = {"docker", ".docker", "dockerfiles", "build", "deploy", "src", "app"}


def draft_from_dockerfiles(project: ProjectFiles) -> tuple[list[DraftImage], list[DraftService], list[str]]:
    """Return an image and a service for each production Dockerfile, and notes about the others."""
    images: list[DraftImage] = []
    notes: list[str] = []
    production_paths, skipped_paths = _select_dockerfiles(project.dockerfiles)
    for path, reason in skipped_paths:
        notes.append(f"skipped {path}: {reason}")
    for path in production_paths:
        image = _draft_image(path, project)
        image.name = unique_name(image.name, {other.name for other in images})
        images.append(image)
    return images, [DraftService(draft.name, image=draft.name) for draft in images], notes


def choose_stages(image: DraftImage, dockerfile: Dockerfile) -> None:
    """Set the development stage, and the production stage if the last one is for development or tests."""
    names = [stage.name for stage in dockerfile.stages]
    if not image.dev_target:
        image.dev_target = next((name for name in names if name.lower() in _DEVELOPMENT_NAMES), "")
    if image.target or names[-1].lower() not in _DEVELOPMENT_NAMES | _TEST_NAMES:
        return
    production_names = [name for name in names if name.lower() in _PRODUCTION_NAMES]
    image.target = (
        production_names
        or [name for name in names if name.lower() not in _DEVELOPMENT_NAMES | _TEST_NAMES and name]
        or [""]
    )[-1]


def _select_dockerfiles(paths: Iterable[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the Dockerfiles of production images, and the others with the reason."""
    by_directory: dict[str, dict[str, str]] = {}
    for path in paths:
        directory, _, name = path.rpartition("/")
        by_directory.setdefault(directory, {})[path] = _variant(name)
    production_paths: list[str] = []
    skipped_paths: list[tuple[str, str]] = []
    for variants in by_directory.values():
        production = next((path for path, variant in variants.items() if variant in _PRODUCTION_NAMES), None)
        for path, variant in variants.items():
            if variant in _DEVELOPMENT_NAMES:
                skipped_paths.append(
                    (path, "for development; use a stage of the other Dockerfile as `dev_target` instead")
                )
            elif variant in _TEST_NAMES:
                skipped_paths.append((path, "for tests"))
            elif variant == "" and production:
                skipped_paths.append((path, f"{production} is for production"))
            else:
                production_paths.append(path)
    return sorted(production_paths), skipped_paths


def _variant(name: str) -> str:
    """Return the variant in the name of a Dockerfile: `dev` of `Dockerfile.dev`, `web` of `web.Dockerfile`."""
    match = re.fullmatch(r"(?:Dockerfile|Containerfile)(?:[._-](.+))?|(.+)\.[Dd]ockerfile", name)
    return ((match[1] or match[2] or "") if match else "").lower()


def _draft_image(path: str, project: ProjectFiles) -> DraftImage:
    directory, _, file = path.rpartition("/")
    context, missing = _find_context(directory or ".", project.dockerfiles[path], project)
    variant = _variant(file)
    if variant and variant not in _PRODUCTION_NAMES:
        name = make_name(variant)
    else:
        parts = [part for part in directory.split("/") if part and part not in _GENERIC_DIRECTORIES]
        name = make_name(parts[-1] if parts else project.directory_name)
    image = DraftImage(name, context, posixpath.relpath(path, context))
    if missing:
        image.todos.append(f"{path} copies {', '.join(missing)}, not found in the context {context}")
    return image


def _find_context(directory: str, dockerfile: Dockerfile, project: ProjectFiles) -> tuple[str, list[str]]:
    """Return the nearest directory upwards with all files that the Dockerfile copies, else its own and the missing."""
    copied_paths = list(dict.fromkeys(path for stage in dockerfile.stages for path in stage.copied_paths))
    candidate = directory
    while True:
        if not _list_missing(candidate, copied_paths, project):
            return candidate, []
        if candidate == ".":
            return directory, _list_missing(directory, copied_paths, project)
        candidate = posixpath.dirname(candidate) or "."


def _list_missing(context: str, copied_paths: list[str], project: ProjectFiles) -> list[str]:
    missing: list[str] = []
    for path in copied_paths:
        if re.search(r"[$*?\[\\]", path):
            continue
        resolved = posixpath.normpath(posixpath.join(context, path.lstrip("/")))
        if resolved not in project.files and resolved not in project.directories:
            missing.append(path)
    return missing
