"""Draft images from Dockerfiles: select production variants, find contexts, choose stages."""

from __future__ import annotations

import os
import posixpath
from pathlib import PurePosixPath

from lyra_tasks.compose.translation.names import make_image_name, unique_name
from lyra_tasks.dockerfile.stages import list_base_images, resolve_declared_image
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.scaffold.drafts import Draft, DraftImage, DraftTable
from lyra_tasks.scaffold.project_files import DOCKERFILE_PATH, ProjectFiles

_DEVELOPMENT_NAMES = {"dev", "develop", "development", "local", "debug"}
_TEST_NAMES = {"test", "tests", "ci", "lint", "e2e"}
_PRODUCTION_NAMES = {"prod", "production", "release", "final", "runtime"}
_GENERIC_DIRECTORIES = {"docker", ".docker", "dockerfiles", "build", "deploy", "src", "app"}


def draft_from_dockerfiles(project: ProjectFiles) -> Draft:
    """Return an image and a service for each production Dockerfile, with notes about the others."""
    draft = Draft()
    variants = {path: _variant(path) for path in project.dockerfiles}
    production = {
        posixpath.dirname(path): path for path, name in reversed(variants.items()) if name in _PRODUCTION_NAMES
    }
    for path, variant in variants.items():
        if variant in _DEVELOPMENT_NAMES:
            hint = "use a stage of the other Dockerfile as `dev_target` instead"
            draft.notes.append(f"skipped {path}: for development; {hint}")
        elif variant in _TEST_NAMES:
            draft.notes.append(f"skipped {path}: for tests")
        elif not variant and posixpath.dirname(path) in production:
            draft.notes.append(f"skipped {path}: {production[posixpath.dirname(path)]} is for production")
        else:
            name = unique_name(name_image(path, project), draft.images)
            draft.images[name] = draft_image(path, project)
            draft.services[name] = DraftTable(written={"image": name})
    return draft


def draft_image(path: str, project: ProjectFiles) -> DraftImage:
    """Return the table of an image that a Dockerfile builds, in the nearest context upwards that has what it copies."""
    image = DraftImage(dockerfile=project.dockerfiles[path])
    directory = PurePosixPath(path).parent
    missing = {str(context): _list_missing(image, context, project) for context in (directory, *directory.parents)}
    context = next((context for context, paths in missing.items() if not paths), str(directory))
    is_guess = context != str(directory)
    image.add("context", context, f"a guess: the nearest directory with what {path} copies" if is_guess else "")
    if (dockerfile := posixpath.relpath(path, context)) != "Dockerfile":
        image.add("dockerfile", dockerfile)
    if paths := missing[context]:
        image.todos.append(f"{path} copies {', '.join(paths)}, not found in the context {context}: correct `context`")
    return image


def name_image(path: str, project: ProjectFiles) -> str:
    """Return a name for the image of a Dockerfile: of its variant, or of the directory that it is for."""
    variant = _variant(path)
    if variant and variant not in _PRODUCTION_NAMES:
        return make_image_name(variant)
    parts = [part for part in path.split("/")[:-1] if part not in _GENERIC_DIRECTORIES]
    return make_image_name(parts[-1] if parts else project.root.name)


def declare_image(image: DraftImage) -> None:
    """Choose the stages of an image, and note what they declare."""
    if image.dockerfile is None:
        return
    _choose_stages(image, [stage.name for stage in image.dockerfile.stages])
    target, args = str(image.get("target") or ""), image.entries("args")
    try:
        image.declared = resolve_declared_image(image.dockerfile, target, args)
        image.bases = [use.reference for use in list_base_images(image.dockerfile, target, args)]
    except ConfigurationError as error:
        message = error.message.replace(str(image.dockerfile.path), image.dockerfile_path)
        image.todos.append(f"{message}. {error.hint}")


def _choose_stages(image: DraftImage, names: list[str]) -> None:
    """Set the development stage, and the production stage if the last one is for development or tests."""
    development = next((name for name in names if name.lower() in _DEVELOPMENT_NAMES), "")
    if development and not image.get("dev_target"):
        image.add("dev_target", development, "stage for `create`")
    others = [name for name in names if name.lower() not in _DEVELOPMENT_NAMES | _TEST_NAMES]
    if image.get("target") or names[-1] in others:
        return
    production_names = [name for name in others if name.lower() in _PRODUCTION_NAMES]
    if target := (production_names or [name for name in others if name] or [""])[-1]:
        image.add("target", target)


def _variant(path: str) -> str:
    """Return the variant in the name of a Dockerfile: `dev` of `Dockerfile.dev`, `web` of `web.Dockerfile`."""
    match = DOCKERFILE_PATH.fullmatch(path)
    return (match[1] or match[2] or "").lower() if match else ""


def _list_missing(image: DraftImage, context: PurePosixPath, project: ProjectFiles) -> list[str]:
    """Return what the Dockerfile copies from a context and is not there, patterns apart."""
    return [
        path
        for path in image.copied_paths
        if not set(path) & set("$*?[\\")
        and not os.path.lexists(project.root / context / posixpath.normpath(f"/{path}").lstrip("/"))
    ]
