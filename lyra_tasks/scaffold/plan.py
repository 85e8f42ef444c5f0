"""Plan the files that `init` writes, and the lines that it adds to ignore files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from lyra_tasks.config.load import CONFIG_FILE_NAME, list_todos
from lyra_tasks.config.validation.paths import excludes_directory
from lyra_tasks.documents import translate_failures
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.results.configuration import Todo
from lyra_tasks.scaffold.compose_import import draft_from_compose
from lyra_tasks.scaffold.dockerfile_import import draft_from_dockerfiles
from lyra_tasks.scaffold.drafts import DraftImage, DraftService, make_name
from lyra_tasks.scaffold.project_files import TASKS_FILE, ProjectFiles
from lyra_tasks.scaffold.rendering import render_configuration
from lyra_tasks.scaffold.service_defaults import complete_image, complete_service

# They change without the source: an image whose context includes one is stale after each run or commit
_GENERATED_DIRECTORIES = (".git", ".lyra", "promotion")
_TASKS_TEMPLATE = '''\
"""The tasks of lyra-tasks: `invoke --list` lists them. The program `lyra` has the same tasks without this file."""

from lyra_tasks import namespace

# To add tasks of your own:
#
#   import lyra_tasks
#   namespace = lyra_tasks.collection(mine, other)

__all__ = ["namespace"]
'''


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

    @property
    def has_configuration(self) -> bool:
        """Return whether a configuration exists already."""
        return CONFIG_FILE_NAME in self.existing


def plan_init(project: ProjectFiles) -> InitPlan:
    """Plan the files for a project; raise PreconditionError if it has no Dockerfile and no compose file."""
    if project.compose is None and not project.dockerfiles and not project.dockerfile_errors:
        raise PreconditionError(
            "No Dockerfile and no compose file in this directory or below",
            hint="Run `init` in the directory of the project, or write a Dockerfile first",
        )
    images, services, notes, project_todos = _draft_services(project)
    text = render_configuration(
        make_name(project.directory_name), images, services, project_todos, _describe_origin(project)
    )
    files = [PlannedFile(CONFIG_FILE_NAME, text), PlannedFile(TASKS_FILE, _TASKS_TEMPLATE)]
    existing = tuple(file.path for file in files if file.path in project.files)
    return InitPlan(
        files=(*(file for file in files if file.path not in existing), *_ignore_files(project, images)),
        existing=existing,
        todos=list_todos(text),
        notes=tuple(notes),
    )


def _draft_services(project: ProjectFiles) -> tuple[list[DraftImage], list[DraftService], list[str], list[str]]:
    notes = [f"{path} was not read" for path in project.other_compose_files]
    if project.compose is not None:
        images, services, compose_notes = draft_from_compose(project.compose, project)
        notes += compose_notes
        built_paths = {image.dockerfile_path for image in images}
        unused_paths = [path for path in project.dockerfiles if path not in built_paths]
        notes += [f"no service of {project.compose.path} builds {path}" for path in unused_paths]
    else:
        images, services, dockerfile_notes = draft_from_dockerfiles(project)
        notes += dockerfile_notes
    notes += [
        f"{path}: its `# syntax` line needs a registry for each build; delete it if none is available"
        for path, dockerfile in project.dockerfiles.items()
        if re.match(r"#\s*syntax\s*=", "".join(dockerfile.lines[:1]))
    ]
    images_by_name = {image.name: image for image in images}
    image_configs = {image.name: complete_image(image, project) for image in images}
    runnable = [service for service in services if service.image or service.external]
    for service in runnable:
        image = images_by_name.get(service.image)
        dockerfile = project.dockerfiles.get(image.dockerfile_path) if image else None
        complete_service(service, image_configs.get(service.image), dockerfile, project)
    names = {service.name for service in runnable}
    for service in services:
        service.depends_on = [name for name in dict.fromkeys(service.depends_on) if name in names]
        notes += service.notes
    return images, services, notes, [f"{error}: skipped" for error in project.dockerfile_errors.values()]


def _describe_origin(project: ProjectFiles) -> str:
    count = len(project.dockerfiles)
    dockerfiles = f"{count} Dockerfile{'s' if count > 1 else ''}" if count else ""
    return " and ".join(filter(None, (project.compose.path if project.compose else "", dockerfiles)))


def _ignore_file_error(file: str, problem: str) -> ConfigurationError:
    return ConfigurationError(f"Cannot read {file}: {problem}", hint="Fix or remove the line")


def _ignore_files(project: ProjectFiles, images: Sequence[DraftImage]) -> Iterator[PlannedFile]:
    """Yield the lines that exclude generated files from contexts, and bundles from git."""
    lines_by_file: dict[str, list[str]] = {}
    for image in images:
        if image.context == ".":
            specific_file = f"{image.dockerfile_path}.dockerignore"
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


def _is_copied(directory: str, image: DraftImage, project: ProjectFiles) -> bool:
    dockerfile = project.dockerfiles.get(image.dockerfile_path)
    stages = dockerfile.stages if dockerfile else ()
    return any(path.strip("/").partition("/")[0] == directory for stage in stages for path in stage.copied_paths)
