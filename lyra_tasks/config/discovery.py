"""Find `.lyra.toml`, read its text, and list its TODO comments."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from lyra_tasks.errors import ConfigurationError
from lyra_tasks.files import display_path

CONFIG_FILE_NAME = ".lyra.toml"
MAX_CONFIG_BYTES = 1024**2
_TODO = re.compile(r"\s*#\s*TODO:\s*(.+)")


class Todo(NamedTuple):
    """A line `# TODO: …`, numbered from 1."""

    line: int
    text: str


def find_config(start: Path | None = None) -> Path:
    """Return the file that `LYRA_CONFIG` names, or the nearest `.lyra.toml` upwards from `start` (default: cwd)."""
    if override := os.environ.get("LYRA_CONFIG"):
        file = _working_directory() / override
        if not os.path.lexists(file):
            raise ConfigurationError(
                f"LYRA_CONFIG names {display_path(file)}, which does not exist", hint="Correct or unset LYRA_CONFIG"
            )
        return file
    directory = _working_directory() if start is None else start.absolute()
    for candidate in (directory, *directory.parents):
        if os.path.lexists(candidate / CONFIG_FILE_NAME):
            return candidate / CONFIG_FILE_NAME
    raise ConfigurationError(
        f"No {CONFIG_FILE_NAME} in {directory} or a directory above it",
        hint=f"`init` writes a {CONFIG_FILE_NAME} from what is here; `config.schema` describes every key",
    )


def read_config(file: Path) -> str:
    """Return the text of a configuration file: a regular UTF-8 file without a BOM, of at most `MAX_CONFIG_BYTES`."""
    data = _read_bytes(file)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _unreadable(file, "UTF-16, not UTF-8", "Save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        raise _unreadable(file, "begins with a byte order mark", "Save it as UTF-8 without a BOM")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _unreadable(file, f"not valid UTF-8 (line {line})", "Save it as UTF-8") from error


def _read_bytes(file: Path) -> bytes:
    try:
        # Opening a FIFO without a writer would block without O_NONBLOCK
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _unreadable(file, "not a regular file", "Replace it by a TOML file")
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                data = stream.read(MAX_CONFIG_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unreadable(file, str(error.strerror), "Check its permissions") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise _unreadable(file, "larger than 1 MiB", "Remove what is not configuration")
    return data


def _unreadable(file: Path, reason: str, hint: str) -> ConfigurationError:
    return ConfigurationError(f"Cannot read {display_path(file)}: {reason}", hint=hint)


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise ConfigurationError(
            "The working directory no longer exists", hint="Change to the project's directory"
        ) from error


def list_todos(text: str) -> tuple[Todo, ...]:
    """Return the TODO comments of a configuration file's text."""
    matches = ((number, _TODO.fullmatch(line.rstrip())) for number, line in enumerate(text.splitlines(), 1))
    return tuple(Todo(number, match[1]) for number, match in matches if match)
