"""Plan the files that `init` writes, and the lines that it adds to ignore files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from lyra_tasks.compose.translation.names import make_image_name
from lyra_tasks.config.load import CONFIG_FILE_NAME, list_todos
from lyra_tasks.config.validation.paths import excludes_directory
from lyra_tasks.dockerfile.stages import list_base_images
from lyra_tasks.documents import translate_failures
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.results.configuration import Todo
from lyra_tasks.scaffold.compose_import import draft_from_compose
from lyra_tasks.scaffold.dockerfile_import import declare_image, draft_from_dockerfiles
from lyra_tasks.scaffold.drafts import Draft, DraftTable, dockerfile_path
from lyra_tasks.scaffold.project_files import TASKS_FILE, ProjectFiles
from lyra_tasks.scaffold.rendering import render_template
from lyra_tasks.scaffold.service_defaults import complete_service, describe_shortage

# They change without the source: an image whose context includes one is stale after each run or commit
_GENERATED_DIRECTORIES = (".git", ".lyra", "promotion")


@dataclass(frozen=True)
class PlannedFile:
    """A new file with its text, or the lines to append to a file that may exist."""

    path: str
    text: str
    appended_lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class InitPlan:
    """The files to write; `existing` files are kept, and with a configuration among them nothing is written.

    `todos` are those in the configuration, `notes` tell what was skipped.
    """

    files: tuple[PlannedFile, ...]
    existing: tuple[str, ...]
    todos: tuple[Todo, ...]
    notes: tuple[str, ...]
    is_in_git: bool = True

    @property
    def has_configuration(self) -> bool:
        """Return whether a configuration exists already."""
        return CONFIG_FILE_NAME in self.existing


def plan_init(project: ProjectFiles) -> InitPlan:
    """Plan the files for a project; raise PreconditionError if it has no Dockerfile and no Compose file."""
    if project.compose is None and not project.dockerfiles and not project.dockerfile_errors:
        hint = "Run `init` in the directory of the project, or write a Dockerfile first"
        if project.other_compose_files:
            hint = f"Name the Compose file: `init --compose {project.other_compose_files[0]}`"
        raise PreconditionError("No Dockerfile and no Compose file in this directory or below", hint=hint)
    draft = _draft_project(project)
    name = draft.project_name or make_image_name(project.directory_name)
    text = render_template("lyra.toml.jinja", name=name, draft=draft, origin=_describe_origin(project))
    files = [PlannedFile(CONFIG_FILE_NAME, text), PlannedFile(TASKS_FILE, render_template("tasks.py.jinja"))]
    existing = tuple(file.path for file in files if file.path in project.files)
    images = tuple(draft.images.values())
    return InitPlan(
        files=(*(file for file in files if file.path not in existing), *_ignore_files(project, images)),
        existing=existing,
        todos=list_todos(text),
        notes=tuple(draft.notes),
        is_in_git=project.is_in_git,
    )


def _draft_project(project: ProjectFiles) -> Draft:
    if project.compose is not None:
        draft = draft_from_compose(project.compose, project)
    else:
        draft = draft_from_dockerfiles(project)
    draft.notes += [f"{path} was not read" for path in project.other_compose_files]
    draft.notes += [
        f"{path}: its `# syntax` line needs a registry for each build; delete it if none is available"
        for path, dockerfile in project.dockerfiles.items()
        if re.match(r"#\s*syntax\s*=", "".join(dockerfile.lines[:1]))
    ]
    draft.todos += [f"{error}: skipped" for error in project.dockerfile_errors.values()]
    declared = {name: declare_image(image, project) for name, image in draft.images.items()}
    for name, service in draft.services.items():
        image_name = str(service.get("image"))
        image = draft.images.get(image_name)
        dockerfile = project.dockerfiles.get(dockerfile_path(image)) if image is not None else None
        complete_service(draft, name, declared.get(image_name), dockerfile, project)
    draft.foreign_images = _list_foreign_images(draft, project)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    draft.todos += filter(None, [describe_shortage(draft.services.values(), os.cpu_count() or 1, memory)])
    if todo := _describe_missing_comments(draft, project):
        draft.todos.append(todo)
    return draft


def _list_foreign_images(draft: Draft, project: ProjectFiles) -> dict[str, list[str]]:
    """Return the references of base images and third-party images, with the images and services that use them."""
    users: dict[str, list[str]] = {}
    for name, image in draft.images.items():
        dockerfile = project.dockerfiles.get(dockerfile_path(image))
        with suppress(ConfigurationError):
            target, args = str(image.get("target") or ""), image.entries("args")
            for use in list_base_images(dockerfile, target, args) if dockerfile is not None else ():
                users.setdefault(use.reference, []).append(name)
    for name, service in draft.services.items():
        if service.get("image") not in draft.images:
            users.setdefault(str(service.get("image")), []).append(name)
    return {reference: list(dict.fromkeys(names)) for reference, names in users.items()}


def _describe_missing_comments(draft: Draft, project: ProjectFiles) -> str:
    """Return how many variables of the Compose project nothing describes, and where to do it."""
    names = {
        name: sum(not entry.get("description") for entry in (service.given.get("environment") or {}).values())
        for name, service in draft.services.items()
    }
    missing = {name: count for name, count in names.items() if count}
    if project.compose is None or not missing:
        return ""
    counts = ", ".join(f"{name} {count}" for name, count in missing.items())
    return f"a comment above each variable in {project.compose.files[0]} is its description in the bundle ({counts})"


def _describe_origin(project: ProjectFiles) -> str:
    count = len(project.dockerfiles)
    dockerfiles = f"{count} Dockerfile{'s' if count > 1 else ''}" if count else ""
    compose = ", ".join(project.compose.files) if project.compose else ""
    return " and ".join(filter(None, (compose, dockerfiles)))


def _ignore_file_error(file: str, problem: str) -> ConfigurationError:
    return ConfigurationError(f"Cannot read {file}: {problem}", hint="Fix or remove the line")


def _ignore_files(project: ProjectFiles, images: Sequence[DraftTable]) -> Iterator[PlannedFile]:
    """Yield the lines that exclude generated files from contexts, and bundles from git."""
    lines_by_file: dict[str, list[str]] = {}
    for image in images:
        if image.get("context") == ".":
            specific_file = f"{dockerfile_path(image)}.dockerignore"
            file = specific_file if specific_file in project.files else ".dockerignore"
            text = project.texts.get(file, "")
            with translate_failures(partial(_ignore_file_error, file)):
                lines_by_file[file] = [
                    directory
                    for directory in _GENERATED_DIRECTORIES
                    if not excludes_directory(text, directory) and not _is_copied(directory, image, project)
                ]
    if project.is_in_git and "promotion/" not in project.texts.get(".gitignore", "").splitlines():
        lines_by_file[".gitignore"] = ["promotion/"]
    for path, lines in lines_by_file.items():
        if lines:
            yield PlannedFile(path, "".join(f"{line}\n" for line in lines), tuple(lines))


def _is_copied(directory: str, image: DraftTable, project: ProjectFiles) -> bool:
    dockerfile = project.dockerfiles.get(dockerfile_path(image))
    stages = dockerfile.stages if dockerfile else ()
    return any(path.strip("/").partition("/")[0] == directory for stage in stages for path in stage.copied_paths)
