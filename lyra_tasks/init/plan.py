"""What `init` will write, as a value: whole files, and lines that are added to ignore files."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lyra_tasks.config.discovery import Todo, list_todos
from lyra_tasks.config.validation.paths import excludes_directory
from lyra_tasks.errors import PreconditionError
from lyra_tasks.init.compose_import import draft_from_compose
from lyra_tasks.init.dockerfile_import import draft_from_dockerfiles, find_dockerfile
from lyra_tasks.init.drafts import DraftImage, DraftService, make_name
from lyra_tasks.init.project_files import CONFIG_FILE, TASKS_FILE, ProjectFiles
from lyra_tasks.init.rendering import render_configuration
from lyra_tasks.init.service_defaults import complete_images, complete_service

# Each changes without the source having changed: a context that holds one is stale after every run or commit
_GENERATED_DIRECTORIES = (".git", ".lyra", "promotion")
_TASKS_TEMPLATE = '''\
"""The words of lyra-tasks: `invoke --list` shows them. The program `lyra` has the same, and needs no such file."""

from lyra_tasks import namespace

# With tasks of your own beside them:
#
#   import lyra_tasks
#   namespace = lyra_tasks.collection(mine, other)

__all__ = ["namespace"]
'''


@dataclass(frozen=True)
class PlannedFile:
    """A new file with its text; or, with `adds`, the lines that a file gets at its end, which may be there already."""

    path: str
    text: str
    appended_lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class InitPlan:
    """What will be written. `kept` is there already and stays: with the configuration in it, nothing is written.

    `todos` are the open points of the configuration, `notes` what was seen and left out.
    """

    files: tuple[PlannedFile, ...]
    existing: tuple[str, ...]
    todos: tuple[Todo, ...]
    notes: tuple[str, ...]

    @property
    def has_configuration(self) -> bool:
        """Whether there is a configuration already."""
        return CONFIG_FILE in self.existing


def plan_init(project: ProjectFiles) -> InitPlan:
    """Plan the files for the repository; PreconditionError if there is nothing to make images of."""
    if project.compose is None and not project.dockerfiles and not project.dockerfile_errors:
        raise PreconditionError(
            "there is no Dockerfile and no compose file in this folder or below",
            hint="call `init` in the folder of the project, or write a Dockerfile first",
        )
    images, services, notes, project_todos = _draft_services(project)
    text = render_configuration(
        make_name(project.directory_name), images, services, project_todos, _describe_origin(project)
    )
    files = [PlannedFile(CONFIG_FILE, text), PlannedFile(TASKS_FILE, _TASKS_TEMPLATE)]
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
        images, services, further_notes = draft_from_compose(project.compose, project)
        built_paths = {posixpath.normpath(posixpath.join(image.context, image.dockerfile)) for image in images}
        further_notes += [
            f"{path} is built by no service of {project.compose.path}"
            for path in project.dockerfiles
            if path not in built_paths
        ]
    else:
        images, services, further_notes = draft_from_dockerfiles(project)
    further_notes += [
        f"{path}: its `# syntax` line has every build ask a registry; where none answers, delete that line"
        for path, dockerfile in project.dockerfiles.items()
        if re.match(r"#\s*syntax\s*=", "".join(dockerfile.lines[:1]))
    ]
    by_name = {image.name: image for image in images}
    image_configs = complete_images(images, project)
    runnable = {service.name for service in services if service.image or service.external}
    for service in (candidate for candidate in services if candidate.name in runnable):
        image = by_name.get(service.image)
        complete_service(
            service,
            image_configs.get(service.image),
            find_dockerfile(image, project.dockerfiles) if image else None,
            project,
        )
    for service in services:
        service.depends_on = [name for name in dict.fromkeys(service.depends_on) if name in runnable]
    service_notes = [note for service in services for note in service.notes]
    return (
        images,
        services,
        [*notes, *further_notes, *service_notes],
        [f"{error}: no image was made of it" for error in project.dockerfile_errors.values()],
    )


def _describe_origin(project: ProjectFiles) -> str:
    parts = [project.compose.path] if project.compose else []
    count = len(project.dockerfiles)
    if count:
        parts.append("1 Dockerfile" if count == 1 else f"{count} Dockerfiles")
    return " and ".join(parts)


def _ignore_files(project: ProjectFiles, images: Sequence[DraftImage]) -> Iterator[PlannedFile]:
    """Contexts leave out what is no source, and git leaves out the bundles."""
    lines_by_file: dict[str, list[str]] = {}
    for image in images:
        dockerfile = posixpath.normpath(posixpath.join(image.context, image.dockerfile))
        specific_file = f"{dockerfile}.dockerignore"
        file = (
            specific_file
            if specific_file in project.files
            else posixpath.normpath(posixpath.join(image.context, ".dockerignore"))
        )
        if image.context == ".":
            text = project.texts.get(file, "")
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
    """Whether the Dockerfile asks for this very folder."""
    dockerfile = find_dockerfile(image, project.dockerfiles)
    stages = dockerfile.stages if dockerfile else ()
    return any(path.strip("/").partition("/")[0] == directory for stage in stages for path in stage.copied_paths)
