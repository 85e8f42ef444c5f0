"""Read a Compose project: its tables, where each value stands, and what it does not carry."""

from __future__ import annotations

import re
from pathlib import Path

from lyra_tasks.compose.locate import find_repository, look_up_variable
from lyra_tasks.compose.model import ComposeProject, ComposeSettings, Location
from lyra_tasks.compose.plugin import ComposeRefusalError, ask_version, find_plugin
from lyra_tasks.compose.reader import ProjectInputs, ProjectReader
from lyra_tasks.compose.sources import SourceFiles
from lyra_tasks.compose.variables import EnvFileVariable, find_example, read_env_file, replace_secrets
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.files import display_path


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
        raise _locate_refusal(str(refusal), sources, ask_version(plugin)) from refusal
    findings = list(draft.findings)
    findings += reader.check_profiles(draft)
    findings += reader.check_open_variables(draft)
    files_used = set(sources.read) | set(reader.private_files(draft))
    places = {location: sources.find_place(origin) for location, origin in draft.origins.items()}
    places |= {finding.location: sources.find_place(finding.location) for finding in findings}
    if reader.project_name and not inputs.project_name:
        places["project", "name"] = sources.find_place(("name",))
    return ComposeProject(
        name=reader.project_name,
        document=draft.document,
        places=places,
        findings=tuple(dict.fromkeys(findings)),
        inputs=tuple(sorted(files_used)),
        read=tuple(dict.fromkeys((*reader.list_read(), *draft.read_files))),
        probes=draft.probes,
    )


def _locate_refusal(message: str, sources: SourceFiles, version: str) -> ConfigurationError:
    """Return the error for a refusal by this version of Compose, with the place of what it names."""
    dotted = re.search(r"\b(?:services|networks|volumes|secrets|configs)(?:\.[\w-]+)+", message)
    service = re.search(r"""service "?([\w.-]+)"?""", message)
    location: Location = ()
    if dotted is not None:
        location = tuple(int(part) if part.isdecimal() else part for part in dotted[0].split("."))
    elif service is not None:
        location = ("services", service[1])
    place = f"{sources.find_place(location)}: " if location else ""
    compose = f"Docker Compose {version}".rstrip()
    return ConfigurationError(
        f"{place}{compose} refuses the project: {message}",
        hint="Correct the Compose file, or install a newer Docker Compose if the file is written for one",
    )


def _collect_inputs(root: Path, files: tuple[Path, ...], settings: ComposeSettings) -> ProjectInputs:
    directory = files[0].parent
    dotenv_files = tuple(dict.fromkeys((directory / ".env", root / ".env")))
    dotenv: dict[str, EnvFileVariable] = {}
    examples: dict[str, EnvFileVariable] = {}
    for path in dotenv_files:
        dotenv |= read_env_file(path)
        example = find_example(path)
        examples |= read_env_file(example) if example is not None else {}
    values_of_dotenv = {name: variable.value for name, variable in dotenv.items()}
    profiles = settings.profiles
    if profiles is None:
        profiles = tuple(name for name in look_up_variable("COMPOSE_PROFILES", values_of_dotenv).split(",") if name)
    home = {"HOME": str(Path.home()), "PWD": str(directory)}
    example_values = {name: variable.value for name, variable in examples.items() if variable.value}
    values = {**home, **example_values, **values_of_dotenv}
    return ProjectInputs(
        root=root,
        files=files,
        directory=directory,
        profiles=profiles,
        project_name=look_up_variable("COMPOSE_PROJECT_NAME", values_of_dotenv),
        examples=examples,
        values=replace_secrets(values, settings.plain_names),
        example_values=replace_secrets({**home, **example_values}, settings.plain_names),
        dotenv_files=dotenv_files,
    )


def _require_inside(root: Path, sources: SourceFiles) -> None:
    """Refuse a file outside of the repository, which nobody could check out with it."""
    top = find_repository(root) or root
    for path in sources.read:
        if not path.resolve().is_relative_to(top.resolve()):
            raise ConfigurationError(
                f"{display_path(path)} is outside of the repository {display_path(top)}", hint="Copy it into it"
            )
