"""Which file is read, and its text: found upwards from the working directory, never more than a plain small file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lyra_tasks.errors import ConfigurationError

FILE_NAME = ".lyra.toml"
MAX_BYTES = 1024**2


def find(start: Path | None = None) -> Path:
    """The configuration file: the one `LYRA_CONFIG` names, or the nearest `.lyra.toml` from `start` (default: cwd) up.

    ConfigurationError if there is none.
    """
    folder = _working_directory() if start is None else start.absolute()
    named = os.environ.get("LYRA_CONFIG")
    if named:
        file = folder / named if start is None else _working_directory() / named
        if not os.path.lexists(file):
            raise ConfigurationError(
                f"LYRA_CONFIG names {shown(file)}, which does not exist", hint="correct LYRA_CONFIG, or unset it"
            )
        return file
    for candidate in (folder, *folder.parents):
        if os.path.lexists(candidate / FILE_NAME):
            return candidate / FILE_NAME
    raise ConfigurationError(
        f"no {FILE_NAME} in {folder} or a folder above it",
        hint=f"`init` writes a {FILE_NAME} from what is here; `config.schema` describes every key",
    )


def read_text(file: Path) -> str:
    """The text of `file`; ConfigurationError if it is not a regular, small, readable UTF-8 file without a BOM."""
    data = _read_bytes(file)
    name = shown(file)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigurationError(f"{name} is not UTF-8: it is UTF-16", hint="save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        raise ConfigurationError(f"{name} begins with a byte order mark", hint="save it as UTF-8 without a BOM")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{name} is not UTF-8, see line {line}", hint="save it as UTF-8") from error


def shown(file: Path) -> str:
    """`file` as a message names it: relative to the working directory where that is shorter."""
    try:
        relative = os.path.relpath(file)
    except FileNotFoundError:
        return str(file)
    return min(relative, str(file), key=len)


def _read_bytes(file: Path) -> bytes:
    name = shown(file)
    try:
        # O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ConfigurationError(f"{name} is not a regular file", hint="it must be a plain TOML file")
            with os.fdopen(handle, "rb", closefd=False) as stream:
                data = stream.read(MAX_BYTES + 1)
        finally:
            os.close(handle)
    except OSError as error:
        raise ConfigurationError(f"{name} cannot be read: {error.strerror}", hint="check its permissions") from error
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{name} is too large", hint="a configuration has at most 1 MiB")
    return data


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise ConfigurationError("the working directory no longer exists", hint="change to the project") from error
