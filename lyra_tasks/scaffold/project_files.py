"""Collect the files of a project: Dockerfiles, a Compose project, and ignore files."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lyra_tasks.compose.locate import find_compose_files
from lyra_tasks.compose.model import ComposeProject, ComposeSettings, Finding
from lyra_tasks.compose.project import read_project
from lyra_tasks.config.validation.problems import format_location
from lyra_tasks.dockerfile.parse import Dockerfile, read_dockerfile
from lyra_tasks.errors import ConfigurationError, PreconditionError

TASKS_FILE = "tasks.py"
_DOCKERFILE_NAME = re.compile(r"(?:Dockerfile|Containerfile)(?:[._-][A-Za-z0-9._-]+)?|[A-Za-z0-9_-]+\.[Dd]ockerfile")
_COMPOSE_NAME = re.compile(r"(?:.*/)?(?:docker-)?compose[^/]*\.ya?ml")
_IGNORED_DIRECTORIES = {
    "node_modules", "venv", "__pycache__", "site-packages", "vendor", "promotion", "target", "dist", "build",
}  # fmt: skip
_MAX_FILES = 50_000
_MAX_TEXT_BYTES = 256 * 1024


@dataclass(frozen=True)
class ComposeFiles:
    """The Compose project at hand: its files, the settings that it was read with, and what it says."""

    files: tuple[str, ...]
    settings: ComposeSettings
    project: ComposeProject


@dataclass(frozen=True)
class ProjectFiles:
    """The files of a project, with paths relative to the working directory.

    `dockerfile_errors` has the messages of Dockerfiles that cannot be parsed, `texts` the text of ignore files.
    """

    directory_name: str
    is_in_git: bool
    files: frozenset[str]
    directories: frozenset[str]
    dockerfiles: Mapping[str, Dockerfile]
    dockerfile_errors: Mapping[str, str] = field(default_factory=dict)
    compose: ComposeFiles | None = None
    other_compose_files: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)


def inspect_project(root: Path, compose_files: Sequence[str] = ()) -> ProjectFiles:
    """Collect the files of the project at `root`; `compose_files` are those to read instead of Compose's own choice."""
    files, directories = _list_tree(root)
    dockerfiles: dict[str, Dockerfile] = {}
    errors: dict[str, str] = {}
    for name in sorted(file for file in files if _is_dockerfile(file)):
        try:
            dockerfiles[name] = read_dockerfile(root / name)
        except ConfigurationError as error:
            errors[name] = error.message.replace(f"{root}/", "")
    compose = _read_compose(root.resolve(), ComposeSettings(files=tuple(compose_files) or None))
    read = {os.path.relpath(path, root.resolve()) for path in compose.project.read} if compose else set()
    return ProjectFiles(
        directory_name=root.resolve().name,
        is_in_git=any((directory / ".git").exists() for directory in (root, *root.parents)),
        files=frozenset(files),
        directories=frozenset(directories),
        dockerfiles=dockerfiles,
        dockerfile_errors=errors,
        compose=compose,
        other_compose_files=tuple(sorted(name for name in files if _COMPOSE_NAME.fullmatch(name) and name not in read)),
        texts={
            name: text
            for name in sorted(files)
            if name.endswith((".gitignore", ".dockerignore")) and (text := _read_text(root / name)) is not None
        },
    )


def _read_compose(root: Path, settings: ComposeSettings) -> ComposeFiles | None:
    """Read the Compose project, without services that cannot run; with all profiles if nothing starts without one."""
    files = find_compose_files(root, settings)
    if not files:
        return None
    project = read_project(root, files, settings)
    if not project.document and (profiles := [finding for finding in project.findings if finding.override[:1]]):
        names = re.findall(r'"([^"]+)"', profiles[0].message)
        settings = replace(settings, profiles=tuple(names))
        project = read_project(root, files, settings)
    impossible = {
        finding.service for finding in project.findings if finding.is_refused and not _is_draftable(finding, project)
    }
    if impossible - {""}:
        settings = replace(settings, ignore=tuple(sorted(impossible - {""})))
        refusals = [finding for finding in project.findings if finding.is_refused and finding.service]
        places = project.places
        project = read_project(root, files, settings)
        project = replace(project, findings=(*refusals, *project.findings), places={**places, **project.places})
        if not project.document:
            raise _impossible_error(root, files, refusals, project)
    return ComposeFiles(tuple(os.path.relpath(file, root) for file in files), settings, project)


def _impossible_error(
    root: Path, files: Sequence[Path], refusals: Sequence[Finding], project: ComposeProject
) -> ConfigurationError:
    details = tuple(
        f"{project.places[finding.location]}: {format_location(finding.location)}: {finding.message}"
        for finding in refusals
    )
    hint = "Change what the Compose file says there"
    top = next((parent for parent in root.parents if (parent / ".git").exists()), None)
    if top is not None and any(" is outside of the project" in finding.message for finding in refusals):
        names = " ".join(f"--compose {shlex.quote(os.path.relpath(file, top))}" for file in files)
        hint = (
            f"Run it at the top of the repository: `cd {shlex.quote(os.path.relpath(top, root))} && lyra init {names}`"
        )
    return ConfigurationError("None of the services can run here", hint=hint, details=details)


def _is_draftable(finding: Finding, project: ComposeProject) -> bool:
    """Return whether `init` can write a value that settles a refusal."""
    value: object = project.document
    for part in finding.override:
        value = value.get(part) if isinstance(value, dict) else None
    return bool(finding.override) and value is not None


def _list_tree(root: Path) -> tuple[set[str], set[str]]:
    files: set[str] = set()
    directories: set[str] = {"."}
    for path, subdirectories, names in os.walk(root):
        directory = Path(path).relative_to(root)
        subdirectories[:] = [
            name
            for name in subdirectories
            if name not in _IGNORED_DIRECTORIES and (name == ".docker" or name[0] != ".") and _is_utf8(name)
        ]
        directories |= {(directory / name).as_posix() for name in subdirectories}
        files |= {(directory / name).as_posix() for name in names if _is_utf8(name)}
        if len(files) > _MAX_FILES:
            raise PreconditionError(
                f"{root} contains more than {_MAX_FILES} files", hint="Run `init` in the directory of one project"
            )
    return files, directories


def _is_utf8(name: str) -> bool:
    """Return whether a file name is valid UTF-8, as in a configuration."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _is_dockerfile(path: str) -> bool:
    name = path.rpartition("/")[2]
    return _DOCKERFILE_NAME.fullmatch(name) is not None and not name.endswith((".dockerignore", ".md", ".j2", ".tmpl"))


def _read_text(file: Path) -> str | None:
    try:
        is_small_file = file.is_file() and file.stat().st_size <= _MAX_TEXT_BYTES
        return file.read_text(encoding="utf-8-sig") if is_small_file else None
    except (OSError, UnicodeDecodeError):
        return None
