"""Read a Compose project: its tables, where each value stands, and what it does not carry."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lyra_tasks.compose.draft import Finding
from lyra_tasks.compose.plugin import ComposeRefusalError, find_plugin
from lyra_tasks.compose.probes import ProjectProbes
from lyra_tasks.compose.reader import DEFAULT_FILES, OVERRIDE_FILES, ComposeSettings, ProjectInputs, ProjectReader
from lyra_tasks.compose.sources import Location, Place, SourceFiles
from lyra_tasks.compose.variables import EnvFileVariable, find_example, read_env_file, replace_secrets
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.files import display_path

COMPOSE_VARIABLES = ("COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME")


@dataclass(frozen=True)
class ComposeProject:
    """A Compose project as tables of `.lyra.toml`.

    `name` is empty unless it is given: Compose would take that of the directory. `places` has where each value and each
    finding stands, `inputs` the files that images and bundle are made from, `read` all that were read or looked for.
    """

    name: str
    document: Mapping[str, Any]
    places: Mapping[Location, Place]
    findings: tuple[Finding, ...]
    inputs: tuple[Path, ...]
    read: tuple[Path, ...]
    probes: ProjectProbes = field(default_factory=ProjectProbes)

    @property
    def notes(self) -> tuple[Finding, ...]:
        """Return what is not carried."""
        return tuple(finding for finding in self.findings if not finding.is_refused)


def find_compose_files(root: Path, settings: ComposeSettings) -> tuple[Path, ...]:
    """Return the Compose files of a project: those named, those of COMPOSE_FILE, or what Compose finds in `root`.

    Raises:
        ConfigurationError: A file that is named does not exist, or is outside of the repository.
    """
    if settings.files is not None:
        return tuple(_require_file(root, name, "[compose] files") for name in settings.files)
    dotenv = read_env_file(root / ".env")
    names = _lookup("COMPOSE_FILE", dotenv)
    if names:
        separator = _lookup("COMPOSE_PATH_SEPARATOR", dotenv) or os.pathsep
        return tuple(_require_file(root, name, "COMPOSE_FILE") for name in names.split(separator) if name)
    found = next((root / name for name in DEFAULT_FILES if (root / name).is_file()), None)
    if found is None:
        return ()
    override = next((root / name for name in OVERRIDE_FILES if (root / name).is_file()), None)
    return (found, override) if override is not None else (found,)


def _require_file(root: Path, name: str, origin: str) -> Path:
    path = Path(os.path.normpath(root / name))
    if not path.is_file():
        raise ConfigurationError(
            f"{origin} names {display_path(path)}, which is not a file", hint="Correct the name, or create the file"
        )
    return path


def _lookup(name: str, dotenv: Mapping[str, EnvFileVariable]) -> str:
    """Return a variable of Compose itself: of the environment, else of `.env`."""
    return os.environ.get(name) or (dotenv[name].value if name in dotenv else "")


def read_project(root: Path, files: tuple[Path, ...], settings: ComposeSettings) -> ComposeProject:
    """Read the Compose project of these files.

    Raises:
        PreconditionError: Docker Compose is not here.
        ConfigurationError: A file cannot be read, or Compose refuses the project.
    """
    inputs = _collect_inputs(root, files, settings)
    sources = SourceFiles(files, inputs.directory, inputs.values)
    _require_inside(root, sources)
    plugin = find_plugin()
    try:
        reader = ProjectReader(inputs, sources, settings, plugin)
        draft = reader.translate(inputs.values, use_examples=False)
    except ComposeRefusalError as refusal:
        raise _locate_refusal(str(refusal), sources) from refusal
    findings = list(draft.findings)
    findings += reader.check_profiles(draft)
    findings += reader.check_open_variables(draft)
    files_used = set(sources.read) | set(reader.private_files(draft))
    places = {location: sources.find_place(origin) for location, origin in draft.origins.items()}
    places |= {finding.location: sources.find_place(finding.location) for finding in findings}
    return ComposeProject(
        name=reader.project_name,
        document=draft.document,
        places=places,
        findings=tuple(dict.fromkeys(findings)),
        inputs=tuple(sorted(files_used)),
        read=tuple(dict.fromkeys(reader.list_read())),
        probes=draft.probes,
    )


def _locate_refusal(message: str, sources: SourceFiles) -> ConfigurationError:
    """Return the error for a refusal of Compose, with the place of what it names."""
    dotted = re.search(r"\b(?:services|networks|volumes|secrets|configs)(?:\.[\w-]+)+", message)
    service = re.search(r"""service "?([\w.-]+)"?""", message)
    location: Location = ()
    if dotted is not None:
        location = tuple(int(part) if part.isdecimal() else part for part in dotted[0].split("."))
    elif service is not None:
        location = ("services", service[1])
    place = f"{sources.find_place(location)}: " if location else ""
    return ConfigurationError(f"{place}Docker Compose refuses the project: {message}", hint="Correct the Compose file")


def _collect_inputs(root: Path, files: tuple[Path, ...], settings: ComposeSettings) -> ProjectInputs:
    directory = files[0].parent
    dotenv_files = tuple(dict.fromkeys((directory / ".env", root / ".env")))
    dotenv: dict[str, EnvFileVariable] = {}
    examples: dict[str, EnvFileVariable] = {}
    for path in dotenv_files:
        dotenv |= read_env_file(path)
        example = find_example(path)
        examples |= read_env_file(example) if example is not None else {}
    profiles = settings.profiles
    if profiles is None:
        profiles = tuple(name for name in _lookup("COMPOSE_PROFILES", dotenv).split(",") if name)
    home = {"HOME": str(Path.home()), "PWD": str(directory)}
    example_values = {name: variable.value for name, variable in examples.items() if variable.value}
    values = {**home, **example_values, **{name: variable.value for name, variable in dotenv.items()}}
    return ProjectInputs(
        root=root,
        files=files,
        directory=directory,
        profiles=profiles,
        project_name=_lookup("COMPOSE_PROJECT_NAME", dotenv),
        examples=examples,
        values=replace_secrets(values, settings.plain_names),
        example_values=replace_secrets({**home, **example_values}, settings.plain_names),
        dotenv_files=dotenv_files,
    )


def _require_inside(root: Path, sources: SourceFiles) -> None:
    """Refuse a file outside of the repository, which nobody could check out with it."""
    top = next((parent for parent in (root, *root.parents) if (parent / ".git").exists()), root)
    for path in sources.read:
        if not path.resolve().is_relative_to(top.resolve()):
            raise ConfigurationError(
                f"{display_path(path)} is outside of the repository {display_path(top)}", hint="Copy it into it"
            )
