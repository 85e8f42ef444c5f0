"""Collect the files of a project: Dockerfiles, a Compose project, and ignore files."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lyra_tasks.compose.cache import read_new_project
from lyra_tasks.compose.locate import find_compose_files, find_repository
from lyra_tasks.compose.model import ComposeProject, ComposeSettings
from lyra_tasks.compose.overrides import has_value
from lyra_tasks.config.validation.problems import Problem, problems_to_error
from lyra_tasks.dockerfile.parse import Dockerfile, read_dockerfile
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.files import escape_surrogates

TASKS_FILE = "tasks.py"
DOCKERFILE_PATH = re.compile(
    r"(?:.*/)?(?!.*\.(?:dockerignore|md|j2|tmpl)$)"
    r"(?:(?:Dockerfile|Containerfile)(?:[._-]([A-Za-z0-9._-]+))?|([A-Za-z0-9_-]+)\.[Dd]ockerfile)"
)
"""Has the variant that a Dockerfile is for: `dev` of `Dockerfile.dev`, `web` of `web.Dockerfile`."""
_COMPOSE_PATH = re.compile(r"(?:.*/)?(?:docker-)?compose[^/]*\.ya?ml")
_IGNORED_DIRECTORIES = {
    "node_modules", "venv", "__pycache__", "site-packages", "vendor", "promotion", "target", "dist", "build",
}  # fmt: skip
_MAX_FILES = 50_000


@dataclass(frozen=True)
class ComposeFiles:
    """The Compose project at hand: its files, the settings that it was read with, and what it says."""

    files: tuple[str, ...]
    settings: ComposeSettings
    project: ComposeProject


@dataclass(frozen=True)
class ProjectFiles:
    """The files of a project, with paths relative to its directory.

    `dockerfile_errors` has the messages of Dockerfiles that cannot be parsed.
    """

    root: Path
    is_in_git: bool
    files: frozenset[str]
    dockerfiles: Mapping[str, Dockerfile]
    dockerfile_errors: tuple[str, ...]
    compose: ComposeFiles | None
    other_compose_files: tuple[str, ...]

    def read_text(self, path: str) -> str:
        """Return the text of an ignore file, whatever its encoding, or nothing without one."""
        file = self.root / path
        return file.read_text(encoding="utf-8-sig", errors="replace") if file.is_file() else ""


def inspect_project(directory: Path, compose_files: Sequence[str] = ()) -> ProjectFiles:
    """Collect the files of a project; `compose_files` are those to read instead of Compose's own choice."""
    root = directory.resolve()
    files = _list_files(root)
    dockerfiles: dict[str, Dockerfile] = {}
    errors = []
    for name in filter(DOCKERFILE_PATH.fullmatch, files):
        try:
            dockerfiles[name] = read_dockerfile(root / name)
        except ConfigurationError as error:
            errors.append(error.message.replace(f"{root}/", ""))
    compose = _read_compose(root, ComposeSettings(files=tuple(compose_files) or None))
    read = {os.path.relpath(path, root) for path in compose.project.read} if compose else set()
    return ProjectFiles(
        root=root,
        is_in_git=find_repository(root) is not None,
        files=frozenset(files),
        dockerfiles=dockerfiles,
        dockerfile_errors=tuple(errors),
        compose=compose,
        other_compose_files=tuple(name for name in files if _COMPOSE_PATH.fullmatch(name) and name not in read),
    )


def _list_files(root: Path) -> list[str]:
    """Return the files of a project in order, apart from those whose names no configuration can have."""
    files: list[str] = []
    for path, subdirectories, names in os.walk(root):
        directory = Path(path).relative_to(root)
        subdirectories[:] = [
            name
            for name in subdirectories
            if name not in _IGNORED_DIRECTORIES and (name == ".docker" or name[0] != ".")
        ]
        files += [(directory / name).as_posix() for name in names]
        if len(files) > _MAX_FILES:
            raise PreconditionError(
                f"{root} contains more than {_MAX_FILES} files", hint="Run `init` in the directory of one project"
            )
    return sorted(file for file in files if file == escape_surrogates(file))


def _read_compose(root: Path, settings: ComposeSettings) -> ComposeFiles | None:
    """Read the Compose project, without services that cannot run; with all profiles if nothing starts without one."""
    files = find_compose_files(root, settings, "--compose")
    if not files:
        return None
    project = read_new_project(root, files, settings)
    for finding in project.findings:
        if finding.override == ("compose", "profiles"):
            settings = replace(settings, profiles=tuple(re.findall(r'"([^"]+)"', finding.message)))
            project = read_new_project(root, files, settings)
    refusals = [finding for finding in project.findings if finding.is_refused and finding.service]
    # `init` settles the others by a value that it writes
    if impossible := {finding.service for finding in refusals if not has_value(finding.override, project.document)}:
        settings = replace(settings, ignore=tuple(sorted(impossible)))
        possible, places = read_new_project(root, files, settings), project.places
        if not possible.document:
            raise _impossible_error(root, files, project)
        left_out = [finding for finding in refusals if finding.service in impossible]
        project = replace(possible, findings=(*left_out, *possible.findings), places={**places, **possible.places})
    return ComposeFiles(tuple(os.path.relpath(file, root) for file in files), settings, project)


def _impossible_error(root: Path, files: Sequence[Path], project: ComposeProject) -> ConfigurationError:
    problems = [Problem(finding.location, finding.message) for finding in project.findings if finding.is_refused]
    details = problems_to_error(problems, file="", lines={}, overrides={}, places=project.places).details
    hint = "Change what the Compose file says there"
    top = find_repository(root)
    if top not in (None, root) and any(" is outside of the project" in detail for detail in details):
        names = " ".join(f"--compose {shlex.quote(os.path.relpath(file, top))}" for file in files)
        hint = (
            f"Run it at the top of the repository: `cd {shlex.quote(os.path.relpath(top, root))} && lyra init {names}`"
        )
    return ConfigurationError("None of the services can run here", hint=hint, details=details)
