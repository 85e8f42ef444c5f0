"""Draft images from Dockerfiles: select production variants, find contexts, choose stages."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from lyra_tasks.compose.translation.names import make_image_name, unique_name
from lyra_tasks.dockerfile.parse import Dockerfile
from lyra_tasks.dockerfile.stages import DeclaredImage, resolve_declared_image
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.scaffold.drafts import Draft, DraftTable, dockerfile_path
from lyra_tasks.scaffold.project_files import ProjectFiles

_DEVELOPMENT_NAMES = {"dev", "develop", "development", "local", "debug"}
_TEST_NAMES = {"test", "tests", "ci", "lint", "e2e"}
_PRODUCTION_NAMES = {"prod", "production", "release", "final", "runtime"}
_GENERIC_DIRECTORIES = {"docker", ".docker", "dockerfiles", "build", "deploy", "src", "app"}


def draft_from_dockerfiles(project: ProjectFiles) -> Draft:
    """Return an image and a service for each production Dockerfile, with notes about the others."""
    draft = Draft()
    production_paths, draft.notes = _select_dockerfiles(project.dockerfiles)
    for path in production_paths:
        name = unique_name(name_image(path, project), draft.images)
        draft.images[name] = draft_image(path, project)
        draft.services[name] = DraftTable(written={"image": name})
    return draft


def draft_image(path: str, project: ProjectFiles) -> DraftTable:
    """Return the table of an image that a Dockerfile builds."""
    context, missing = _find_context(path.rpartition("/")[0] or ".", project.dockerfiles[path], project)
    image = DraftTable()
    is_own_directory = context == (path.rpartition("/")[0] or ".")
    image.add("context", context, "" if is_own_directory else f"a guess: the nearest directory with what {path} copies")
    dockerfile = posixpath.relpath(path, context)
    if dockerfile != "Dockerfile":
        image.add("dockerfile", dockerfile)
    if missing:
        image.todos.append(f"{path} copies {', '.join(missing)}, not found in the context {context}: correct `context`")
    return image


def name_image(path: str, project: ProjectFiles) -> str:
    """Return a name for the image of a Dockerfile: of its variant, or of the directory that it is for."""
    directory, _, file = path.rpartition("/")
    variant = _variant(file)
    if variant and variant not in _PRODUCTION_NAMES:
        return make_image_name(variant)
    parts = [part for part in directory.split("/") if part and part not in _GENERIC_DIRECTORIES]
    return make_image_name(parts[-1] if parts else project.directory_name)


def declare_image(image: DraftTable, project: ProjectFiles) -> DeclaredImage | None:
    """Choose the stages of an image and return what it declares, if its Dockerfile could be read."""
    dockerfile = project.dockerfiles.get(dockerfile_path(image))
    if dockerfile is None:
        return None
    _choose_stages(image, dockerfile)
    try:
        return resolve_declared_image(dockerfile, str(image.get("target") or ""), image.entries("args"))
    except ConfigurationError as error:
        image.todos.append(f"{error.message.replace(str(dockerfile.path), dockerfile_path(image))}. {error.hint}")
        return None


def _choose_stages(image: DraftTable, dockerfile: Dockerfile) -> None:
    """Set the development stage, and the production stage if the last one is for development or tests."""
    names = [stage.name for stage in dockerfile.stages]
    development = next((name for name in names if name.lower() in _DEVELOPMENT_NAMES), "")
    if development and not image.get("dev_target"):
        image.add("dev_target", development, "stage for `create`")
    if image.get("target") or names[-1].lower() not in _DEVELOPMENT_NAMES | _TEST_NAMES:
        return
    production_names = [name for name in names if name.lower() in _PRODUCTION_NAMES]
    other_names = [name for name in names if name.lower() not in _DEVELOPMENT_NAMES | _TEST_NAMES and name]
    if target := (production_names or other_names or [""])[-1]:
        image.add("target", target)


def _select_dockerfiles(paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the Dockerfiles of production images, and a note about each of the others."""
    by_directory: dict[str, dict[str, str]] = {}
    for path in paths:
        directory, _, name = path.rpartition("/")
        by_directory.setdefault(directory, {})[path] = _variant(name)
    production_paths: list[str] = []
    notes: list[str] = []
    for variants in by_directory.values():
        production = next((path for path, variant in variants.items() if variant in _PRODUCTION_NAMES), None)
        for path, variant in variants.items():
            if variant in _DEVELOPMENT_NAMES:
                hint = "use a stage of the other Dockerfile as `dev_target` instead"
                notes.append(f"skipped {path}: for development; {hint}")
            elif variant in _TEST_NAMES:
                notes.append(f"skipped {path}: for tests")
            elif variant == "" and production:
                notes.append(f"skipped {path}: {production} is for production")
            else:
                production_paths.append(path)
    return sorted(production_paths), notes


def _variant(name: str) -> str:
    """Return the variant in the name of a Dockerfile: `dev` of `Dockerfile.dev`, `web` of `web.Dockerfile`."""
    match = re.fullmatch(r"(?:Dockerfile|Containerfile)(?:[._-](.+))?|(.+)\.[Dd]ockerfile", name)
    return ((match[1] or match[2] or "") if match else "").lower()


def _find_context(directory: str, dockerfile: Dockerfile, project: ProjectFiles) -> tuple[str, list[str]]:
    """Return the nearest directory upwards with all files that the Dockerfile copies, else its own and the missing."""
    copied_paths = list(dict.fromkeys(path for stage in dockerfile.stages for path in stage.copied_paths))
    for candidate in map(str, (PurePosixPath(directory), *PurePosixPath(directory).parents)):
        if not _list_missing(candidate, copied_paths, project):
            return candidate, []
    return directory, _list_missing(directory, copied_paths, project)


def _list_missing(context: str, copied_paths: list[str], project: ProjectFiles) -> list[str]:
    return [
        path
        for path in copied_paths
        if not re.search(r"[$*?\[\\]", path)
        and (resolved := posixpath.normpath(posixpath.join(context, path.lstrip("/")))) not in project.files
        and resolved not in project.directories
    ]
