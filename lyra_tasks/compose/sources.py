"""Find the files that Compose reads, and where each value stands in them."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lyra_tasks.compose.model import Location, Place
from lyra_tasks.compose.variables import interpolate
from lyra_tasks.documents import DocumentError, find_comment_above, parse_yaml, read_document, translate_failures
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.files import display_path

MAX_COMPOSE_BYTES = 1024**2
_TAGS = ("!reset", "!override")  # of Compose
_MAX_FILES = 100
_REMOTE_PREFIXES = ("git@", "github.com/", "oci://", "http://", "https://", "git://", "ssh://")


@dataclass(frozen=True)
class YamlFile:
    """A Compose file: its values, its tree of nodes and its lines."""

    path: Path
    value: Mapping[str, Any]
    tree: Any
    lines: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the name of the file in messages."""
        return display_path(self.path)

    @cached_property
    def nodes(self) -> Mapping[Location, Any]:
        """The node of each key, by its location; those of `NAME=value` in a list by the name, too."""
        return dict(_walk_nodes((), self.tree))

    def table(self, key: str) -> Mapping[str, Any]:
        """Return a table of the file."""
        table = self.value.get(key)
        return {str(name): item for name, item in table.items()} if isinstance(table, dict) else {}


@dataclass(frozen=True)
class Layer:
    """A definition of a service; stronger ones follow weaker ones."""

    file: YamlFile
    service: str


class SourceFiles:
    """The files of a Compose project, weakest first, with all that they include and extend."""

    def __init__(self, files: Sequence[Path], directory: Path, values: Mapping[str, str]) -> None:
        self.directory = directory
        self._values = values
        self._directories: dict[Path, Path] = {}
        self.read: dict[Path, YamlFile] = {}
        self.env_files: dict[Path, None] = {}
        self.layers: dict[str, list[Layer]] = {}
        self.order: list[YamlFile] = []
        for file in files:
            self._add_file(file, directory)

    def _add_file(self, path: Path, directory: Path) -> None:
        file = self._read(path)
        if file in self.order:
            return
        self._directories[file.path] = directory
        self._add_includes(file, directory)
        self.order.append(file)
        for name in file.table("services"):
            self.layers.setdefault(name, []).extend(self._extended_layers(file, name, set()))

    def _add_includes(self, file: YamlFile, directory: Path) -> None:
        includes = file.value.get("include")
        for index, entry in enumerate(includes if isinstance(includes, list) else []):
            options = entry if isinstance(entry, dict) else {"path": entry}
            paths = [self._expand(path) for path in _as_list(options.get("path"))]
            for path in paths:
                _require_local(path, file, ("include", index))
            files = [directory / path for path in paths if path]
            if not files:
                continue
            project = options.get("project_directory")
            included_directory = directory / self._expand(project) if isinstance(project, str) else files[0].parent
            env_files = [self._expand(name) for name in _as_list(options.get("env_file"))]
            for name in env_files:
                self.env_files[_normalize(directory / name)] = None
            if not env_files:
                self.env_files[_normalize(included_directory / ".env")] = None
            for included in files:
                self._add_file(included, included_directory)

    def _extended_layers(self, file: YamlFile, service: str, visited: set[tuple[Path, str]]) -> Iterator[Layer]:
        if (file.path, service) in visited:
            return
        visited.add((file.path, service))
        definition = file.table("services").get(service)
        extends = definition.get("extends") if isinstance(definition, dict) else None
        if extends:
            options = extends if isinstance(extends, dict) else {"service": extends}
            base = file
            if isinstance(options.get("file"), str):
                name = self._expand(options["file"])
                _require_local(name, file, ("services", service, "extends", "file"))
                base = self._read(file.path.parent / name)
            yield from self._extended_layers(base, str(options.get("service")), visited)
        yield Layer(file, service)

    def _read(self, path: Path) -> YamlFile:
        path = _normalize(path)
        if path not in self.read:
            if len(self.read) >= _MAX_FILES:
                raise ConfigurationError(
                    f"{display_path(path)}: more than {_MAX_FILES} Compose files", hint="Include fewer files"
                )
            self.read[path] = read_yaml_file(path)
        return self.read[path]

    def _expand(self, value: object) -> str:
        return interpolate(str(value), self._values).text

    def service_env_files(self) -> dict[str, list[tuple[Path, str]]]:
        """Return the env files of each service, weakest first, with their format: `raw` has no quotes and variables."""
        files: dict[str, list[tuple[Path, str]]] = {}
        for name, layers in self.layers.items():
            for layer in layers:
                definition = layer.file.table("services").get(layer.service)
                value = definition.get("env_file") if isinstance(definition, dict) else None
                for entry in _as_list(value):
                    options = entry if isinstance(entry, dict) else {"path": entry}
                    if isinstance(options.get("path"), str):
                        path = _normalize(self._directory_of(layer.file) / self._expand(options["path"]))
                        files.setdefault(name, []).append((path, str(options.get("format") or "")))
        return files

    def label_files(self) -> Iterator[Path]:
        """Yield the files from which services take labels."""
        for layers in self.layers.values():
            for layer in layers:
                definition = layer.file.table("services").get(layer.service)
                for name in _as_list(definition.get("label_file") if isinstance(definition, dict) else None):
                    yield _normalize(self._directory_of(layer.file) / self._expand(name))

    def _directory_of(self, file: YamlFile) -> Path:
        return self._directories.get(file.path, file.path.parent)

    def find_place(self, location: Location) -> Place:
        """Return where the strongest value of a location stands, or the table that it would be in."""
        file, node = self._find_node(location)
        return Place(file.name, node.start_mark.line + 1 if node is not None else 1)

    def find_comment(self, location: Location) -> str:
        """Return the comment behind or above the strongest value of a location."""
        for end in range(len(location), 0, -1):
            for file, path in self._candidates(location[:end]):
                if (pair := file.nodes.get(path)) is not None:
                    return _read_comment(file.lines, *pair) if end == len(location) else ""
        return ""

    def find_texts(self, location: Location) -> list[str]:
        """Return the texts in the strongest value of a location, or of the table that it would be in."""
        for end in range(len(location), 0, -1):
            for file, path in self._candidates(location[:end]):
                if (pair := file.nodes.get(path)) is not None:
                    return [str(node.value) for node in _walk_tree(pair[1]) if node.id == "scalar"]
        return []

    def _find_node(self, location: Location) -> tuple[YamlFile, Any]:
        for end in range(len(location), 0, -1):
            for file, path in self._candidates(location[:end]):
                if (pair := file.nodes.get(path)) is not None:
                    return file, pair[0]
        return self.order[-1], None

    def _candidates(self, location: Location) -> Iterator[tuple[YamlFile, Location]]:
        if location[0] == "services" and len(location) > 1:
            for layer in reversed(self.layers.get(str(location[1]), [])):
                yield layer.file, ("services", layer.service, *location[2:])
            return
        for file in reversed(self.order):
            yield file, location

    def scalars(self) -> Iterator[str]:
        """Yield the text of every value in the files."""
        for file in self.read.values():
            yield from _walk_scalars(file.value)


def read_yaml_file(path: Path) -> YamlFile:
    """Read one Compose file; raise ConfigurationError with file and line if it is not valid YAML."""
    name = display_path(path)
    with translate_failures(
        lambda problem: ConfigurationError(f"Cannot read {name}: {problem}", hint="Save it as UTF-8 text")
    ):
        text = read_document(path, MAX_COMPOSE_BYTES).decode("utf-8-sig")
    try:
        value, tree = parse_yaml(text, ignored_tags=_TAGS)
    except DocumentError as error:
        location = f"{name}:{error.line}" if error.line else name
        raise ConfigurationError(f"{location}: {error}", hint="Correct the Compose file") from error
    return YamlFile(path, value if isinstance(value, dict) else {}, tree, tuple(text.splitlines()))


def _require_local(path: str, file: YamlFile, location: Location) -> None:
    if path.startswith(_REMOTE_PREFIXES) or path.endswith(".git") or "://" in path:
        pair = file.nodes.get(location)
        place = Place(file.name, pair[0].start_mark.line + 1 if pair else 1)
        raise ConfigurationError(
            f"{place}: a Compose file elsewhere is not read", hint="Copy it into the repository, and name the copy"
        )


def _walk_nodes(location: Location, node: Any) -> Iterator[tuple[Location, tuple[Any, Any]]]:
    kind = getattr(node, "id", "")
    if kind == "mapping":
        for key, value in _pairs(node):
            path = (*location, str(key.value))
            yield path, (key, value)
            yield from _walk_nodes(path, value)
    elif kind == "sequence":
        for index, item in enumerate(node.value):
            yield (*location, index), (item, item)
            yield from _walk_nodes((*location, index), item)
            if item.id == "scalar":
                yield (*location, str(item.value).partition("=")[0]), (item, item)


def _pairs(node: Any) -> Iterable[tuple[Any, Any]]:
    """Yield the nodes of keys and values of a mapping, those that `<<` merges first."""
    for key, value in node.value:
        if key.value == "<<":
            for merged in value.value if value.id == "sequence" else [value]:
                yield from _pairs(merged) if merged.id == "mapping" else ()
    for key, value in node.value:
        if key.value != "<<":
            yield key, value


def _walk_tree(node: Any) -> Iterator[Any]:
    yield node
    if node.id == "mapping":
        for _, value in node.value:
            yield from _walk_tree(value)
    elif node.id == "sequence":
        for item in node.value:
            yield from _walk_tree(item)


def _walk_scalars(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _walk_scalars(key)
            yield from _walk_scalars(item)
    elif isinstance(value, list):
        for item in value:
            yield from _walk_scalars(item)
    elif isinstance(value, str):
        yield value


def _read_comment(lines: Sequence[str], key: Any, value: Any) -> str:
    # a block of text at the end of the file ends behind its last line
    last_line = lines[value.end_mark.line] if value.end_mark.line < len(lines) else ""
    trailing = last_line[value.end_mark.column :].strip()
    above = find_comment_above(lines, key.start_mark.line + 1)
    return " ".join(trailing.lstrip("# ").split()) if trailing.startswith("#") else above


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _normalize(path: Path) -> Path:
    return Path(os.path.normpath(path))


def relative_name(path: Path | str, root: Path) -> str:
    """Return a path as `.lyra.toml` names it: relative to the project, with `..` if it is outside."""
    return posixpath.normpath(os.path.relpath(path, root).replace(os.sep, "/"))
