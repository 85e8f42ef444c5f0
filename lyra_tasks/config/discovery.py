"""Which file is read, and its text: found upwards from the working directory, never more than a plain small file."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from lyra_tasks.errors import ConfigurationError

CONFIG_FILE_NAME = ".lyra.toml"
MAX_CONFIG_BYTES = 1024**2


def find_config(start: Path | None = None) -> Path:
    """The configuration file: the one `LYRA_CONFIG` names, or the nearest `.lyra.toml` from `start` (default: cwd) up.

    ConfigurationError if there is none.
    """
    directory = _working_directory() if start is None else start.absolute()
    override = os.environ.get("LYRA_CONFIG")
    if override:
        file = directory / override if start is None else _working_directory() / override
        if not os.path.lexists(file):
            raise ConfigurationError(
                f"LYRA_CONFIG names {display_path(file)}, which does not exist", hint="correct LYRA_CONFIG, or unset it"
            )
        return file
    for candidate in (directory, *directory.parents):
        if os.path.lexists(candidate / CONFIG_FILE_NAME):
            return candidate / CONFIG_FILE_NAME
    raise ConfigurationError(
        f"no {CONFIG_FILE_NAME} in {directory} or a folder above it",
        hint=f"`init` writes a {CONFIG_FILE_NAME} from what is here; `config.schema` describes every key",
    )


def read_config(file: Path) -> str:
    """The text of `file`; ConfigurationError if it is not a regular, small, readable UTF-8 file without a BOM."""
    data = _read_bytes(file)
    name = display_path(file)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigurationError(f"{name} is not UTF-8: it is UTF-16", hint="save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        raise ConfigurationError(f"{name} begins with a byte order mark", hint="save it as UTF-8 without a BOM")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{name} is not UTF-8, see line {line}", hint="save it as UTF-8") from error


def display_path(file: Path) -> str:
    """`file` as a message names it: relative to the working directory where that is shorter."""
    try:
        relative = os.path.relpath(file)
    except FileNotFoundError:
        return str(file)
    return min(relative, str(file), key=len)


def _read_bytes(file: Path) -> bytes:
    name = display_path(file)
    try:
        # O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigurationError(f"{name} is not a regular file", hint="it must be a plain TOML file")
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                data = stream.read(MAX_CONFIG_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigurationError(f"{name} cannot be read: {error.strerror}", hint="check its permissions") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigurationError(f"{name} is too large", hint="a configuration has at most 1 MiB")
    return data


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise ConfigurationError("the working directory no longer exists", hint="change to the project") from error


_TODO = re.compile(r"\s*#\s*TODO:\s*(.+)")


class Todo(NamedTuple):
    """One `# TODO: …` line."""

    line: int
    text: str


def list_todos(text: str) -> tuple[Todo, ...]:
    """Every line of `text` that is a comment and says TODO."""
    matches = ((number, _TODO.fullmatch(line.rstrip())) for number, line in enumerate(text.splitlines(), 1))
    return tuple(Todo(number, match[1]) for number, match in matches if match)
