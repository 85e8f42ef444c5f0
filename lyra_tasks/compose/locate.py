"""Find the files of a Compose project."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from lyra_tasks.compose.model import DEFAULT_FILES, OVERRIDE_FILES, ComposeSettings
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.files import display_path


def find_compose_files(root: Path, settings: ComposeSettings, origin: str = "[compose] files") -> tuple[Path, ...]:
    """Return the Compose files of a project: those named, those of COMPOSE_FILE, or what Compose finds in `root`.

    `origin` is what the settings come from, for messages.

    Raises:
        ConfigurationError: A file that is named does not exist, or is outside of the repository.
    """
    if settings.files is not None:
        return tuple(_require_file(root, name, origin) for name in settings.files)
    dotenv = read_dotenv(root / ".env")
    names = look_up_variable("COMPOSE_FILE", dotenv)
    if names:
        separator = look_up_variable("COMPOSE_PATH_SEPARATOR", dotenv) or os.pathsep
        return tuple(_require_file(root, name, "COMPOSE_FILE") for name in names.split(separator) if name)
    found = next((root / name for name in DEFAULT_FILES if (root / name).is_file()), None)
    if found is None:
        return ()
    override = next((root / name for name in OVERRIDE_FILES if (root / name).is_file()), None)
    return (found, override) if override is not None else (found,)


def find_wrong_files(root: Path, settings: ComposeSettings) -> Iterator[tuple[int, str, str]]:
    """Yield number (from 0), name and problem of each file of `[compose] files` that cannot be one."""
    top = (find_repository(root) or root).resolve()
    for number, name in enumerate(settings.files or ()):
        path = Path(os.path.normpath(root / name))
        if not path.is_file():
            yield number, name, "is not a file"
        elif not path.resolve().is_relative_to(top):
            yield number, name, f"is outside of the repository {display_path(top)}; copy it into it"


def find_repository(root: Path) -> Path | None:
    """Return the nearest directory upwards that is a git repository."""
    return next((directory for directory in (root, *root.parents) if (directory / ".git").exists()), None)


def _require_file(root: Path, name: str, origin: str) -> Path:
    path = Path(os.path.normpath(root / name))
    if not path.is_file():
        raise ConfigurationError(
            f"{origin} names {display_path(path)}, which is not a file", hint="Correct the name, or create the file"
        )
    return path


def read_dotenv(path: Path) -> dict[str, str]:
    """Return the variables of `.env`, if there is one."""
    if not path.is_file():
        return {}
    from lyra_tasks.compose.variables import read_env_file

    return {name: variable.value for name, variable in read_env_file(path).items()}


def look_up_variable(name: str, dotenv: Mapping[str, str]) -> str:
    """Return a variable of Compose itself: of the environment, else of `.env`."""
    return os.environ.get(name) or dotenv.get(name, "")
