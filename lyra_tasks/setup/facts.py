"""What a repository has already: Dockerfiles, a compose file, and the files that these name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lyra_tasks.config.dockerfile import Dockerfile, read
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.setup.compose_file import ComposeFile, read_compose

CONFIGURATION, TASKS = ".lyra.toml", "tasks.py"
_COMPOSE = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_DOCKERFILE = re.compile(r"(?:Dockerfile|Containerfile)(?:[._-][A-Za-z0-9._-]+)?|[A-Za-z0-9_-]+\.[Dd]ockerfile")
_NOT_OURS = {
    "node_modules", "venv", "__pycache__", "site-packages", "vendor", "promotion", "target", "dist", "build",
}  # fmt: skip
_MOST = 50_000
_LARGEST_TEXT = 256 * 1024


@dataclass(frozen=True)
class Facts:
    """A repository as `plan` sees it; all paths are relative to the folder that `init` was called in.

    `unreadable` are Dockerfiles that the parser refuses, with its words; `passed_over` are compose files besides
    `compose`; `texts` holds the small files that something names: env files and ignore files.
    """

    folder: str
    in_git: bool
    files: frozenset[str]
    folders: frozenset[str]
    dockerfiles: Mapping[str, Dockerfile]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    compose: ComposeFile | None = None
    passed_over: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)


def gather(root: Path) -> Facts:
    """Look at the repository at `root`; PreconditionError for a folder that is too large to be a project.

    ConfigurationError for a compose file that is not YAML.
    """
    files, folders = _tree(root)
    dockerfiles: dict[str, Dockerfile] = {}
    unreadable: dict[str, str] = {}
    for name in sorted(each for each in files if _is_dockerfile(each)):
        try:
            dockerfiles[name] = read(root / name)
        except ConfigurationError as error:
            unreadable[name] = error.message.replace(f"{root}/", "")
    found = [name for name in sorted(files) if re.fullmatch(r"(?:.*/)?(?:docker-)?compose[^/]*\.ya?ml", name)]
    chosen = next((name for name in _COMPOSE if name in files), "")
    return Facts(
        folder=root.resolve().name,
        in_git=any((folder / ".git").exists() for folder in (root, *root.parents)),
        files=frozenset(files),
        folders=frozenset(folders),
        dockerfiles=dockerfiles,
        unreadable=unreadable,
        compose=read_compose(root / chosen, chosen) if chosen else None,
        passed_over=tuple(name for name in found if name != chosen),
        texts={name: text for name in sorted(files) if _is_text(name) and (text := _text(root / name)) is not None},
    )


def _tree(root: Path) -> tuple[set[str], set[str]]:
    files: set[str] = set()
    folders: set[str] = {"."}
    for path, below, names in os.walk(root):
        here = Path(path).relative_to(root)
        below[:] = [
            name
            for name in below
            if name not in _NOT_OURS and (name == ".docker" or name[0] != ".") and _writable(name)
        ]
        folders |= {(here / name).as_posix() for name in below}
        files |= {(here / name).as_posix() for name in names if _writable(name)}
        if len(files) > _MOST:
            raise PreconditionError(
                f"{root} holds more than {_MOST} files", hint="call `init` in the folder of one project"
            )
    return files, folders


def _writable(name: str) -> bool:
    """Whether a configuration, which is UTF-8, can hold a name."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _is_dockerfile(path: str) -> bool:
    name = path.rpartition("/")[2]
    return _DOCKERFILE.fullmatch(name) is not None and not name.endswith((".dockerignore", ".md", ".j2", ".tmpl"))


def _is_text(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name in {".dockerignore", ".gitignore"} or name.endswith((".dockerignore", ".env")) or ".env" in name


def _text(file: Path) -> str | None:
    try:
        # some keep `.env` as a pipe that a program feeds: nobody feeds it now
        plain = file.is_file() and file.stat().st_size <= _LARGEST_TEXT
        return file.read_text(encoding="utf-8-sig") if plain else None
    except (OSError, UnicodeDecodeError):
        return None


def assignments(text: str) -> Iterator[tuple[str, str, str]]:
    """The variables of an env file, as (name, value, comment above); what is no assignment is passed over."""
    from lyra_tasks.config.stages import comment_above

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
        yield match[1], value, comment_above(lines, number)
