"""Plan the files that `init` writes, and the lines that it adds to ignore files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lyra_tasks.compose.translation.names import make_image_name
from lyra_tasks.config.load import CONFIG_FILE_NAME, list_todos
from lyra_tasks.config.validation.paths import excludes_directory
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.references import suggest_archive_name
from lyra_tasks.results.configuration import InitFile, InitResult
from lyra_tasks.scaffold.compose_import import draft_from_compose
from lyra_tasks.scaffold.dockerfile_import import declare_image, draft_from_dockerfiles
from lyra_tasks.scaffold.drafts import Draft
from lyra_tasks.scaffold.project_files import TASKS_FILE, ProjectFiles
from lyra_tasks.scaffold.service_defaults import complete_service, describe_shortage

# They change without the source: an image whose context includes one is stale after each run or commit
_GENERATED_DIRECTORIES = (".git", ".lyra", "promotion")


def plan_init(project: ProjectFiles) -> InitResult:
    """Plan the files for a project; raise PreconditionError if it has no Dockerfile and no Compose file."""
    if project.compose is None and not project.dockerfiles and not project.dockerfile_errors:
        hint = "Run `init` in the directory of the project, or write a Dockerfile first"
        if project.other_compose_files:
            hint = f"Name the Compose file: `init --compose {project.other_compose_files[0]}`"
        raise PreconditionError("No Dockerfile and no Compose file in this directory or below", hint=hint)
    draft = _draft_project(project)
    name = draft.project_name or make_image_name(project.root.name)
    text = _render_template("lyra.toml.jinja", name=name, draft=draft, origin=_describe_origin(project))
    texts = {CONFIG_FILE_NAME: text, TASKS_FILE: _render_template("tasks.py.jinja")}
    new_files = [InitFile(path, content) for path, content in texts.items() if path not in project.files]
    return InitResult(
        files=(*new_files, *_extend_ignore_files(project, draft)),
        existing=tuple(path for path in texts if path in project.files),
        todos=list_todos(text),
        notes=tuple(draft.notes),
    )


def _render_template(file: str, **values: object) -> str:
    """Return the text of a file, from the template beside this module."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(  # noqa: S701 - no HTML
        loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"toml": _toml_value, "toml_key": _toml_key, "archive_name": suggest_archive_name}
    return environment.get_template(file).render(values)


def _toml_value(value: Any) -> str:
    """Return a TOML value on one line: apart from tables and DEL, as in JSON."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml_key(str(key))} = {_toml_value(item)}" for key, item in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_key(key: str) -> str:
    """Return a key of a TOML table, in quotes if it needs them."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_value(key)


def _draft_project(project: ProjectFiles) -> Draft:
    draft = draft_from_dockerfiles(project) if project.compose is None else draft_from_compose(project.compose, project)
    draft.notes += [f"{path} was not read" for path in project.other_compose_files]
    draft.notes += [
        f"{path}: its `# syntax` line needs a registry for each build; delete it if none is available"
        for path, dockerfile in project.dockerfiles.items()
        if re.match(r"#\s*syntax\s*=", "".join(dockerfile.lines[:1]))
    ]
    draft.todos += [f"{error}: skipped" for error in project.dockerfile_errors]
    for image in draft.images.values():
        declare_image(image)
    for name in draft.services:
        complete_service(draft, name, project)
    draft.foreign_images = _list_foreign_images(draft)
    shortage = describe_shortage(draft.services.values())
    draft.todos += filter(None, [shortage, _describe_missing_comments(draft, project)])
    return draft


def _list_foreign_images(draft: Draft) -> dict[str, list[str]]:
    """Return the references of base images and third-party images, with the images and services that use them."""
    uses = [(reference, name) for name, image in draft.images.items() for reference in image.bases]
    references = {name: str(service.get("image")) for name, service in draft.services.items()}
    uses += [(reference, name) for name, reference in references.items() if reference not in draft.images]
    users: dict[str, list[str]] = {}
    for reference, name in dict.fromkeys(uses):
        users.setdefault(reference, []).append(name)
    return users


def _describe_missing_comments(draft: Draft, project: ProjectFiles) -> str:
    """Return how many variables of the Compose project nothing describes, and where to do it."""
    counts = {
        name: sum(not entry.get("description") for entry in (service.given.get("environment") or {}).values())
        for name, service in draft.services.items()
    }
    text = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    if project.compose is None or not text:
        return ""
    return f"a comment above each variable in {project.compose.files[0]} is its description in the bundle ({text})"


def _describe_origin(project: ProjectFiles) -> str:
    count = len(project.dockerfiles)
    dockerfiles = f"{count} Dockerfile{'s' if count > 1 else ''}" if count else ""
    compose = ", ".join(project.compose.files) if project.compose else ""
    return " and ".join(filter(None, (compose, dockerfiles)))


def _extend_ignore_files(project: ProjectFiles, draft: Draft) -> Iterator[InitFile]:
    """Yield the lines that exclude generated files from contexts, and bundles from git."""
    lines_by_file: dict[str, list[str]] = {}
    for image in draft.images.values():
        if image.get("context") == ".":
            specific_file = f"{image.dockerfile_path}.dockerignore"
            file = specific_file if specific_file in project.files else ".dockerignore"
            copied = {path.strip("/").partition("/")[0] for path in image.copied_paths}
            try:
                lines_by_file[file] = [
                    directory
                    for directory in _GENERATED_DIRECTORIES
                    if directory not in copied and not excludes_directory(project.read_text(file), directory)
                ]
            except ValueError as error:
                raise ConfigurationError(f"Cannot read {file}: {error}", hint="Fix or remove the line") from error
    if project.is_in_git and "promotion/" not in project.read_text(".gitignore").splitlines():
        lines_by_file[".gitignore"] = ["promotion/"]
    for path, lines in lines_by_file.items():
        if lines:
            yield InitFile(path, "".join(f"{line}\n" for line in lines), tuple(lines))
