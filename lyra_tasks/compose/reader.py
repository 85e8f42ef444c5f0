"""Ask Compose about one project with several sets of values, to see what depends on which of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyra_tasks.compose.model import DEFAULT_FILES, OVERRIDE_FILES, ComposeSettings, Finding, Location
from lyra_tasks.compose.plugin import ComposePlugin, ComposeRefusalError, ConfigQuestion, ask_config
from lyra_tasks.compose.sources import SourceFiles
from lyra_tasks.compose.stand_ins import SHARED_TEST_VALUE
from lyra_tasks.compose.translation.draft import Draft
from lyra_tasks.compose.translation.environment import VariableSources
from lyra_tasks.compose.translation.project import translate_project
from lyra_tasks.compose.variables import (
    EnvFileVariable,
    find_example,
    list_example_candidates,
    list_required,
    read_env_file,
    write_env_file,
)
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.files import display_path
from lyra_tasks.locks import private_directory
from lyra_tasks.redaction import is_secret_name

_GENERATED_VALUES = ("1", "2")


@dataclass(frozen=True)
class ProjectInputs:
    """Where a project's files are, and the values of its variables without and with `.env`."""

    root: Path
    files: tuple[Path, ...]
    directory: Path
    profiles: tuple[str, ...]
    project_name: str
    examples: Mapping[str, EnvFileVariable]
    values: Mapping[str, str]
    example_values: Mapping[str, str]
    dotenv_files: tuple[Path, ...]


class ProjectReader:
    """Asks Compose about one project, with several sets of values."""

    def __init__(
        self, inputs: ProjectInputs, sources: SourceFiles, settings: ComposeSettings, plugin: ComposePlugin
    ) -> None:
        self._inputs = inputs
        self._sources = sources
        self._settings = settings
        self._plugin = plugin
        self._env_files = sources.service_env_files()
        _require_regular((*sources.env_files, *sources.label_files(), *self._all_env_files()))
        self._raw = ask_config(plugin, self._question(), is_interpolated=False)
        included = {
            name: variable.value for path in sources.env_files for name, variable in read_env_file(path).items()
        }
        self._known_values = {**included, **inputs.values}
        self._unresolved, self._required = list_required(sources.scalars(), self._known_values)
        names = [str(file.value["name"]) for file in sources.order if file.value.get("name")]
        self.project_name = str(self._raw.get("name") or "") if names or inputs.project_name else ""

    def _question(self, *env_files: Path, overrides: tuple[Path, ...] = ()) -> ConfigQuestion:
        return ConfigQuestion(
            files=(*self._inputs.files, *overrides),
            directory=self._inputs.directory,
            project_name=self._inputs.project_name,
            profiles=self._inputs.profiles,
            env_files=env_files or (Path(os.devnull),),
        )

    def translate(
        self, values: Mapping[str, str], *, use_examples: bool, generated: str = _GENERATED_VALUES[0]
    ) -> Draft:
        """Return the project with these values of its variables; required ones without a value get `generated`.

        Secrets without a value get the stand-in, which all services have alike.
        `use_examples`: read the example of an env file even where the file itself exists.
        """
        missing = self._required if generated == _GENERATED_VALUES[0] else self._unresolved
        stand_ins = dict.fromkeys(missing, generated)
        stand_ins |= {name: SHARED_TEST_VALUE for name in self._unresolved if is_secret_name(name)}
        all_values = {**values, **stand_ins}
        with private_directory("compose") as directory:
            env_file = directory / "env"
            write_env_file(env_file, all_values)
            override = self._write_env_file_override(directory / "override.yaml", use_examples=use_examples)
            document = ask_config(self._plugin, self._question(env_file, overrides=override))
        for config in (document.get("configs") or {}).values():
            if config.get("environment") in all_values:  # older versions of Compose do not say it
                config.setdefault("content", all_values[config["environment"]])
        return translate_project(
            document,
            self._sources,
            self._inputs.root,
            self._variable_sources(document),
            ignored=self._settings.ignore,
            plain_names=self._settings.plain_names,
        )

    def _write_env_file_override(self, path: Path, *, use_examples: bool) -> tuple[Path, ...]:
        """Write a Compose file that puts examples in the place of env files; missing ones are left out."""
        services: dict[str, str] = {}
        for name, entries in self._env_files.items():
            if name not in (self._raw.get("services") or {}):
                continue
            chosen = [(self._choose_env_file(file, use_examples=use_examples), form) for file, form in entries]
            if chosen != entries:
                paths = [
                    {"path": str(file)} | ({"format": form} if form else {})
                    for file, form in chosen
                    if file is not None
                ]
                services[name] = f"{{env_file: !override {json.dumps(paths)}}}"
        if not services:
            return ()
        lines = [f"  {json.dumps(name)}: {text}" for name, text in services.items()]
        path.write_text("\n".join(["services:", *lines, ""]), encoding="utf-8")
        return (path,)

    @staticmethod
    def _choose_env_file(file: Path, *, use_examples: bool) -> Path | None:
        example = find_example(file)
        if file.is_file() and not (use_examples and example):
            return file
        return example

    def _variable_sources(self, document: Mapping[str, Any]) -> dict[str, VariableSources]:
        comments = {name: variable.comment for name, variable in self._inputs.examples.items()}
        return {
            name: self._sources_of(name, service.get("environment") or {}, comments)
            for name, service in (document.get("services") or {}).items()
        }

    def _sources_of(self, name: str, values: Mapping[str, Any], comments: Mapping[str, str]) -> VariableSources:
        raw = ((self._raw.get("services") or {}).get(name) or {}).get("environment") or {}
        if isinstance(raw, list):
            raw = {item.partition("=")[0]: item.partition("=")[2] if "=" in item else None for item in map(str, raw)}
        texts = {
            key: None
            if text is None
            else str(text)
            if "$" in str(text)
            else str(values.get(key) or "").replace("$", "$$")
            for key, text in raw.items()
        }
        file_values: dict[str, str] = {}
        file_comments: dict[str, str] = {}
        for file, form in self._env_files.get(name, []):
            example = find_example(file)
            for path in filter(None, (file, example)):
                for key, variable in read_env_file(path, self._inputs.values, is_raw=form == "raw").items():
                    if path == example:
                        file_values[key] = variable.value
                    file_comments[key] = variable.comment or file_comments.get(key, "")
        return VariableSources(texts, file_values, file_comments, comments)

    def check_profiles(self, draft: Draft) -> Iterator[Finding]:
        """Yield what only a profile starts; refuse a project of which nothing is left."""
        active = {str(origin[1]) for origin in draft.origins.values() if len(origin) > 1}
        left_out = [name for name in self._sources.layers if name not in active and name not in self._settings.ignore]
        profiles: dict[str, None] = {}
        for name in left_out:
            definitions = [layer.file.table("services").get(layer.service) for layer in self._sources.layers[name]]
            names = [str(profile) for table in definitions for profile in (table or {}).get("profiles") or []]
            profiles |= dict.fromkeys(names)
            if names:
                yield Finding(("services", name), f"only the profile {' or '.join(names)} starts it")
        if left_out and not draft.services:
            text = ", ".join(f'"{name}"' for name in profiles)
            message = f"no service is started without a profile; add `profiles = [{text}]` to [compose]"
            yield Finding(("services",), message, ("compose", "profiles"), is_refused=True)
        for name in self._settings.ignore:
            if name not in self._sources.layers:
                yield Finding(
                    ("services",), f"[compose] ignore names {name!r}, which is no service", (), is_refused=True
                )

    def check_open_variables(self, draft: Draft) -> Iterator[Finding]:
        """Yield the values that depend on a variable without a value, apart from those of the environment."""
        if not self._unresolved:
            return
        try:
            other = self.translate(self._inputs.values, use_examples=False, generated=_GENERATED_VALUES[1])
        except ComposeRefusalError:
            return
        for location in compare_documents(draft.document, other.document):
            origin = _find_origin(location, {**other.origins, **draft.origins})
            names, _ = list_required(self._sources.find_texts(origin), self._known_values)
            names = names or self._unresolved
            is_address = location[2:3] == ("publish",)
            if is_address:  # the number of the port itself takes its place
                draft.services[str(location[1])].pop("publish", None)
            message = f"depends on a variable without a value ({', '.join(names)}); set it in .env or .env.example"
            is_refused = any(name in self._required for name in names) and not is_address
            yield Finding(origin, message, location, is_refused, str(origin[1]) if len(origin) > 1 else "")

    def private_files(self, draft: Draft) -> Iterator[Path]:
        """Yield the env files that images and bundle are made from: examples, and `.env` where it decides."""
        for path in self._inputs.dotenv_files:
            example = find_example(path)
            if example is not None:
                yield example
        with_private = [path for path in self._inputs.dotenv_files if path.is_file()]
        replaced = []
        for entries in self._env_files.values():
            for file, _ in entries:
                example = find_example(file)
                if example is not None:
                    yield example
                    replaced.append(file)
                elif file.is_file():
                    yield file
        if with_private or any(file.is_file() for file in replaced):
            try:
                public = self.translate(self._inputs.example_values, use_examples=True)
                _take_addresses(draft, public)
                differs = any(compare_documents(draft.document, public.document))
            except ComposeRefusalError:
                differs = True
            if differs:
                yield from with_private
                yield from (file for file in replaced if file.is_file())

    def list_read(self) -> Iterator[Path]:
        """Yield every file that was read or looked for."""
        yield from self._sources.read
        yield from (self._inputs.root / name for name in (*DEFAULT_FILES, *OVERRIDE_FILES))
        for path in (*self._inputs.dotenv_files, *self._sources.env_files, *self._all_env_files()):
            yield path
            yield from list_example_candidates(path)

    def _all_env_files(self) -> Iterable[Path]:
        return (file for entries in self._env_files.values() for file, _ in entries)


def _take_addresses(draft: Draft, public: Draft) -> None:
    """Publish ports where they are without `.env`, which says where this machine has them."""
    for name, table in draft.services.items():
        addresses = public.services.get(name, {}).get("publish", {})
        if "publish" in table:
            table["publish"] = {key: addresses[key] for key in table["publish"] if key in addresses}


def _require_regular(files: Iterable[Path]) -> None:
    """Refuse a pipe, at which Compose would wait for ever."""
    for file in files:
        if file.exists() and not file.is_file():
            raise ConfigurationError(f"{display_path(file)} is not a regular file", hint="Replace it by a file")


def compare_documents(first: Any, second: Any, location: Location = ()) -> Iterator[Location]:
    """Yield the locations at which two documents differ, apart from values for tests and variables for Proxima."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in dict.fromkeys((*first, *second)):
            if location[2:3] == ("environment",) and key == "test_value":
                continue
            if key not in first or key not in second:
                yield (*location, key)
            else:
                yield from compare_documents(first[key], second[key], (*location, key))
    elif first != second:
        yield location


def _find_origin(location: Location, origins: Mapping[Location, Location]) -> Location:
    return next(
        (origins[location[:end]] for end in range(len(location), 0, -1) if location[:end] in origins), ("services",)
    )
