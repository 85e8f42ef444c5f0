"""Ask `docker compose config`, through python-on-whales and without an engine."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.documents import parse_foreign_json, shorten, translate_failures
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.paths import xdg_directory

if TYPE_CHECKING:
    from python_on_whales import DockerClient

_PLUGIN = "docker-compose"
# https://github.com/docker/cli/blob/master/cli-plugins/manager/manager_unix.go
_PLUGIN_ROOTS = ("/usr/local/lib/docker", "/usr/local/libexec/docker", "/usr/lib/docker", "/usr/libexec/docker")
# https://github.com/docker/cli/blob/master/cli-plugins/metadata/metadata.go
_STARTED_BY = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"
_INSTALL_HINT = (
    "Install it (package docker-compose-plugin, docker-compose-v2 or docker-compose), run `engine.up` once, which "
    "brings it, or write `files = []` in [compose] and every service in .lyra.toml"
)


class ComposeRefusalError(Exception):
    """Compose refuses a project, with its own message."""


@dataclass(frozen=True)
class ComposePlugin:
    """Compose as a plugin of the `docker` command, and the settings of that command, if not the user's usual ones."""

    program: Path
    settings: Path | None


@dataclass(frozen=True)
class ConfigQuestion:
    """What `docker compose config` is asked about: the files, strongest last, and where their paths begin."""

    files: tuple[Path, ...]
    directory: Path
    project_name: str = ""
    profiles: tuple[str, ...] = ()
    env_files: tuple[Path, ...] = ()


def find_plugin() -> ComposePlugin:
    """Return the Compose plugin of this machine, else that of an unpacked private engine.

    Raises:
        PreconditionError: There is none.
    """
    home = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    for root in (home, *map(Path, _PLUGIN_ROOTS)):
        if _has_plugin(root):
            return ComposePlugin(_plugin_path(root), home if root == home else None)
    for engine in _list_unpacked_engines():
        if _has_plugin(engine):
            return ComposePlugin(_plugin_path(engine), engine)
    raise PreconditionError("Docker Compose not found, which reads the Compose file", hint=_INSTALL_HINT)


def ask_config(plugin: ComposePlugin, question: ConfigQuestion, *, is_interpolated: bool = True) -> dict[str, Any]:
    """Return what `docker compose config` says of a project, with or without values for its variables.

    Raises:
        ComposeRefusalError: Compose refuses the project; the message is its own.
    """
    from python_on_whales.exceptions import DockerException
    from python_on_whales.utils import run

    client = _create_client(plugin, question)
    options = [] if is_interpolated else ["--no-interpolate"]
    try:
        if is_interpolated:
            document = client.compose.config(return_json=True)
        else:
            document = json.loads(
                str(run([*client.compose.docker_compose_cmd, "config", *options, "--format", "json"]))
            )
    except DockerException as error:
        raise ComposeRefusalError(_describe_refusal(error)) from error
    with translate_failures(lambda problem: ConfigurationError(f"Cannot read what Compose says: {problem}")):
        value = parse_foreign_json(json.dumps(document))
        if not isinstance(value, dict):
            raise TypeError
    return _unescape(value) if is_interpolated else value


def ask_version(plugin: ComposePlugin) -> str:
    """Return the version of Compose, such as `2.40.3`, or an empty string if it does not say."""
    from python_on_whales.exceptions import DockerException

    try:
        text = str(_create_client(plugin, ConfigQuestion((), Path("/"))).compose.version())
    except DockerException:
        return ""
    version = re.search(r"\d+(?:\.\d+)+", text)
    return version[0] if version is not None else ""


def _create_client(plugin: ComposePlugin, question: ConfigQuestion) -> DockerClient:
    from python_on_whales import DockerClient

    return DockerClient(
        # the plugin itself, as `docker` starts it: `docker` would also start it a second time, to ask what it is
        client_call=["env", "-i", *_environment(plugin), f"{_STARTED_BY}=docker", str(plugin.program)],
        compose_files=list(question.files),
        compose_profiles=list(question.profiles),
        compose_env_files=list(question.env_files),
        compose_project_name=question.project_name or None,
        compose_project_directory=question.directory,
    )


def _environment(plugin: ComposePlugin) -> Sequence[str]:
    """Return the variables of the command: none that a Compose file could use, except where this user's home is."""
    values: Mapping[str, str] = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(Path.home())}
    if plugin.settings is not None:
        values = {**values, "DOCKER_CONFIG": str(plugin.settings)}
    return [f"{name}={value}" for name, value in values.items()]


def _describe_refusal(error: Any) -> str:
    lines = [line for line in str(error.stderr or "").splitlines() if line.strip() and "level=warning" not in line]
    return shorten(" ".join(lines)) or "without a reason"


def _plugin_path(settings: Path) -> Path:
    return settings / "cli-plugins" / _PLUGIN


def _has_plugin(settings: Path) -> bool:
    return os.access(_plugin_path(settings), os.X_OK)


def _list_unpacked_engines() -> list[Path]:
    """Return the private engines that are unpacked here, newest first, if only this user and root can change them."""
    try:
        parent = xdg_directory("XDG_CACHE_HOME", ".cache") / "lyra" / "engines"
        engines = [path for path in parent.iterdir() if (path / "contents.json").is_file()]
    except (OSError, PreconditionError):
        return []
    trusted = [path for path in engines if all(_is_protected(part) for part in (parent, path, path / "cli-plugins"))]
    return sorted(trusted, key=lambda path: path.stat().st_mtime, reverse=True)


def _is_protected(path: Path) -> bool:
    try:
        info = path.stat()
    except OSError:
        return False
    return info.st_uid in {0, os.getuid()} and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _unescape(value: Any) -> Any:
    """Return the values without the `$$` by which Compose writes a `$`."""
    if isinstance(value, dict):
        return {key: _unescape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unescape(item) for item in value]
    return value.replace("$$", "$") if isinstance(value, str) else value
