"""Collect the files of a project: Dockerfiles, a compose file, env files and ignore files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lyra_tasks.dockerfile.parse import Dockerfile, read_dockerfile
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.scaffold.compose_file import ComposeFile, read_compose_file

TASKS_FILE = "tasks.py"
_COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_DOCKERFILE_NAME = re.compile(r"(?:Dockerfile|Containerfile)(?:[._-][A-Za-z0-9._-]+)?|[A-Za-z0-9_-]+\.[Dd]ockerfile")
_IGNORED_DIRECTORIES = {
    "node_modules", "venv", "__pycache__", "site-packages", "vendor", "promotion", "target", "dist", "build",
}  # fmt: skip
_MAX_FILES = 50_000
_MAX_TEXT_BYTES = 256 * 1024


@dataclass(frozen=True)
class ProjectFiles:
    """The files of a project, with paths relative to the working directory.

    `dockerfile_errors` has the messages of Dockerfiles that cannot be parsed, `texts` the text of env files and
    ignore files.
    """

    directory_name: str
    is_in_git: bool
    files: frozenset[str]
    directories: frozenset[str]
    dockerfiles: Mapping[str, Dockerfile]
    dockerfile_errors: Mapping[str, str] = field(default_factory=dict)
    compose: ComposeFile | None = None
    other_compose_files: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)


def inspect_project(root: Path) -> ProjectFiles:
    """Collect the files of the project at `root`."""
    files, directories = _list_tree(root)
    dockerfiles: dict[str, Dockerfile] = {}
    errors: dict[str, str] = {}
    for name in sorted(file for file in files if _is_dockerfile(file)):
        try:
            dockerfiles[name] = read_dockerfile(root / name)
        except ConfigurationError as error:
            errors[name] = error.message.replace(f"{root}/", "")
    compose_files = [name for name in sorted(files) if re.fullmatch(r"(?:.*/)?(?:docker-)?compose[^/]*\.ya?ml", name)]
    compose_file = next((name for name in _COMPOSE_FILES if name in files), "")
    return ProjectFiles(
        directory_name=root.resolve().name,
        is_in_git=any((directory / ".git").exists() for directory in (root, *root.parents)),
        files=frozenset(files),
        directories=frozenset(directories),
        dockerfiles=dockerfiles,
        dockerfile_errors=errors,
        compose=read_compose_file(root / compose_file, compose_file) if compose_file else None,
        other_compose_files=tuple(name for name in compose_files if name != compose_file),
        texts={
            name: text
            for name in sorted(files)
            if _is_text_file(name) and (text := _read_text(root / name)) is not None
        },
    )


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


def _is_text_file(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name == ".gitignore" or name.endswith(".dockerignore") or ".env" in name


def _read_text(file: Path) -> str | None:
    try:
        # `.env` may be a named pipe, which would block
        is_small_file = file.is_file() and file.stat().st_size <= _MAX_TEXT_BYTES
        return file.read_text(encoding="utf-8-sig") if is_small_file else None
    except (OSError, UnicodeDecodeError):
        return None


def parse_env_file(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and comment above of each assignment in an env file."""
    from lyra_tasks.dockerfile.stages import find_comment_above

    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        match = re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*", line)
        if match is None:
            continue
        value = match[2]
        if len(value) >= 2 and value[0] in "\"'" and value.find(value[0], 1) > 0:
            value = value[1 : value.find(value[0], 1)]
        else:
            value = re.split(r"\s+#", value)[0]
        yield match[1], value, find_comment_above(lines, number)
