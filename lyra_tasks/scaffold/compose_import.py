"""Draft images and services from a compose file."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from lyra_tasks.config.values import require_single_line
from lyra_tasks.documents import shorten
from lyra_tasks.ports import ContainerPort, parse_port
from lyra_tasks.scaffold.compose_file import ComposeFile, get_list, get_table, interpolate
from lyra_tasks.scaffold.compose_settings import (
    add_environment,
    add_files,
    add_volumes,
    convert_limits,
    format_scalar,
    split_assignment,
)
from lyra_tasks.scaffold.drafts import (  # fmt: skip
    SHARED_TEST_VALUE,
    DraftImage,
    DraftService,
    make_name,
    replace_passwords,
    unique_name,
)
from lyra_tasks.scaffold.project_files import ProjectFiles, parse_env_file
from lyra_tasks.scaffold.service_defaults import name_ports
from lyra_tasks.units import parse_duration

_DEVELOPMENT_TARGETS = {"dev", "develop", "development", "local"}
_UNSUPPORTED_KEYS = {
    "privileged": "privileged",
    "network_mode": "the host's network",
    "pid": "the host's processes",
    "ipc": "the host's IPC",
    "devices": "the host's devices",
    "volumes_from": "the volumes of another container",
    "extends": "the service that it extends",
    "gpus": "GPUs",
}
_SECRET_OPTION = re.compile(r"--?[A-Za-z-]*(?:pass|passwd|password|token|secret|api-?key)", re.IGNORECASE)
_PORT = re.compile(r"[0-9]{1,9}")
_HEALTHCHECK_DURATIONS = ("interval", "timeout", "start_period")


def read_dotenv(project: ProjectFiles) -> dict[str, str]:
    """Return the variables of `.env`, from which Compose interpolates values outside of `environment`."""
    return {name: value for name, value, _ in parse_env_file(project.texts.get(".env", ""))}


def draft_from_compose(
    compose: ComposeFile, project: ProjectFiles
) -> tuple[list[DraftImage], list[DraftService], list[str]]:
    """Return images, services and notes for a compose file, without services that only a profile starts."""
    values = read_dotenv(project)
    notes: list[str] = []
    started = _started_services(compose)
    for name in sorted(set(compose.services) - started):
        notes.append(f"{compose.path}: skipped {name}, which only a profile starts")
    images: list[DraftImage] = []
    names = _assign_names(compose)
    services = [
        _draft_service(name, raw, compose, project, values, images, names)
        for name, raw in compose.services.items()
        if name in started
    ]
    oneshot_names = {
        names.get(other)
        for name in started
        for other, condition in _dependencies(compose.services[name])
        if condition == "service_completed_successfully"
    }
    for service in services:
        if service.name in oneshot_names:
            service.values["oneshot"] = True
    _note_shared_volumes(services)
    if compose.has_includes:
        notes.append(f"{compose.path}: included files were not read")
    return images, services, notes


def _assign_names(compose: ComposeFile) -> dict[str, str]:
    """Return the new name of each service, which is the old one where that is valid."""
    names: dict[str, str] = {name: name for name in compose.services if make_name(name) == name}
    for name in compose.services:
        names.setdefault(name, unique_name(name, set(names.values())))
    return names


def _note_shared_volumes(services: list[DraftService]) -> None:
    """Add a TODO for volumes that several services share, since here each service has its own."""
    for service in services:
        for name in service.volumes:
            others = [other.name for other in services if name in other.volumes and other is not service]
            if others:
                service.todos.append(
                    f"the volume {name} is shared with {', '.join(others)}, but here each service has its own"
                )


def _started_services(compose: ComposeFile) -> set[str]:
    """Return the services that `docker compose up` starts: those without a profile, and their dependencies."""
    pending = [name for name, raw in compose.services.items() if not raw.get("profiles")]
    names: set[str] = set()
    while pending:
        name = pending.pop()
        if name in compose.services and name not in names:
            names.add(name)
            pending += [other for other, _ in _dependencies(compose.services[name])]
    return names


def _dependencies(raw: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the dependencies of a service, in short or long form, with their conditions."""
    value = raw.get("depends_on") or []
    if isinstance(value, dict):
        return [(str(name), str(get_table(value, name).get("condition", ""))) for name in value]
    names = [*get_list(raw, "depends_on"), *(str(link).partition(":")[0] for link in get_list(raw, "links"))]
    return [(str(name), "") for name in names]


def _draft_service(
    name: str,
    raw: Mapping[str, Any],
    compose: ComposeFile,
    project: ProjectFiles,
    values: Mapping[str, str],
    images: list[DraftImage],
    names: Mapping[str, str],
) -> DraftService:
    draft = DraftService(names[name])
    if draft.name != name:
        draft.todos.append(f"named {name} in {compose.path}: other services must use its new name {draft.name}")
    _add_image(draft, raw, project, values, images)
    draft.depends_on = [names[other] for other, _ in _dependencies(raw) if other in names]
    _add_process(draft, raw, values)
    draft.ports = name_ports(list(_parse_ports(draft, raw, values)))
    draft.limits = convert_limits(draft, raw, values)
    add_environment(draft, name, raw, compose, project)
    _add_healthcheck(draft, raw, values)
    add_volumes(draft, raw, project, values)
    add_files(draft, raw, compose, project, values)
    for key, description in _UNSUPPORTED_KEYS.items():
        if raw.get(key):
            draft.todos.append(f"{compose.path} gives it {description} ({key}), which is not supported")
    if raw.get("cap_add"):
        capabilities = ", ".join(map(str, get_list(raw, "cap_add")))
        draft.todos.append(
            f"{compose.path} adds the capabilities {capabilities}: add cap_add and a [[deviations]] entry"
        )
    return draft


def _add_image(
    draft: DraftService,
    raw: Mapping[str, Any],
    project: ProjectFiles,
    values: Mapping[str, str],
    images: list[DraftImage],
) -> None:
    build = raw.get("build")
    if build is None:
        reference = _interpolate_key(draft, raw, "image", values)
        draft.external = reference if re.fullmatch(r"[^\s-]\S*", reference) else ""
        return
    options = build if isinstance(build, dict) else {"context": build}
    raw_context = interpolate(str(options.get("context") or "."), values).text
    context = raw_context if "://" in raw_context else posixpath.normpath(raw_context)
    dockerfile = interpolate(str(options.get("dockerfile") or "Dockerfile"), values).text
    image = DraftImage(draft.name, context, dockerfile, str(options.get("target") or ""))
    if options.get("dockerfile_inline") or image.dockerfile_path not in project.files:
        draft.todos.append(f"its image is built from {context} and {dockerfile}, which is not below this directory")
        return
    pairs = [
        *get_table(options, "args").items(),
        *(split_assignment(str(entry)) for entry in get_list(options, "args")),
    ]
    for key, value in pairs:
        image.args[key] = interpolate(format_scalar(value), values).text
    if options.get("secrets") or options.get("ssh"):
        image.todos.append("its build uses secrets or ssh: list files in `secrets` of this image")
    if image.target.lower() in _DEVELOPMENT_TARGETS:
        image.target, image.dev_target = "", image.target
    existing = next((candidate for candidate in images if candidate.build_key == image.build_key), None)
    if existing is None:
        images.append(image)
    draft.image = (existing or image).name


def _add_process(draft: DraftService, raw: Mapping[str, Any], values: Mapping[str, str]) -> None:
    for key in ("entrypoint", "command"):
        arguments = _parse_command(raw.get(key), values)
        if arguments and _are_single_lines(draft, key, arguments):
            draft.values[key] = _replace_secrets(draft, key, arguments)
    for key in ("user", "working_dir", "stop_signal"):
        if value := _interpolate_key(draft, raw, key, values):
            draft.values[key] = value


def _interpolate_key(draft: DraftService, raw: Mapping[str, Any], key: str, values: Mapping[str, str]) -> str:
    """Return the interpolated value of a key, or an empty text and a TODO if a variable has no value."""
    text = format_scalar(raw.get(key))
    interpolation = interpolate(text, values)
    if interpolation.unresolved:
        variables = ", ".join(interpolation.unresolved)
        draft.todos.append(f"its {key} is {text}, but {variables} has no value here: set {key}")
        return ""
    return interpolation.text


def _are_single_lines(draft: DraftService, key: str, arguments: Iterable[str]) -> bool:
    """Return whether all arguments are single lines, as a configuration requires; add a TODO if not."""
    try:
        for argument in arguments:
            require_single_line(argument)
    except ValueError:
        draft.todos.append(f"its {key} has several lines: put it into a script of the image")
        return False
    return True


def _replace_secrets(draft: DraftService, key: str, arguments: list[str]) -> list[str]:
    """Replace secrets in a command by the test value, since commands are visible in the bundle and in process lists."""
    replaced = [replace_passwords(argument)[0] for argument in arguments]
    for index, argument in enumerate(arguments):
        option, equals, _ = argument.partition("=")
        if _SECRET_OPTION.fullmatch(option) and equals:
            replaced[index] = f"{option}={SHARED_TEST_VALUE}"
        elif _SECRET_OPTION.fullmatch(argument) and index + 1 < len(arguments):
            replaced[index + 1] = SHARED_TEST_VALUE
    if any(SHARED_TEST_VALUE in argument for argument in replaced):
        draft.todos.append(f"its {key} contains a secret: read it from a variable or a file instead")
    return replaced


def _parse_command(command: object, values: Mapping[str, str]) -> list[str]:
    """Return a command as Compose runs it: a string is split like in a shell, but without a shell."""
    if isinstance(command, str):
        with suppress(ValueError):  # an unclosed quote
            return shlex.split(interpolate(command, values).text)
        return [command]
    arguments = command if isinstance(command, list) else []
    return [interpolate(format_scalar(argument), values).text.rstrip("\n") for argument in arguments]


def _parse_ports(draft: DraftService, raw: Mapping[str, Any], values: Mapping[str, str]) -> Iterator[ContainerPort]:
    for entry in [*get_list(raw, "ports"), *get_list(raw, "expose")]:
        if isinstance(entry, dict):
            text, protocol = str(entry.get("target")), str(entry.get("protocol", "tcp"))
        else:
            text, _, protocol = interpolate(str(entry), values).text.partition("/")
            text = text.rpartition(":")[2]
        if protocol not in {"", "tcp", "udp"} or not _PORT.fullmatch(text):
            port = f"{shorten(text or str(entry))}/{shorten(protocol) or 'tcp'}"
            draft.todos.append(f"the port {port} is not supported: list single TCP or UDP ports")
        elif 0 < int(text) < 65536:
            yield parse_port(f"{text}/{protocol}")


def _add_healthcheck(draft: DraftService, raw: Mapping[str, Any], values: Mapping[str, str]) -> None:
    healthcheck = get_table(raw, "healthcheck")
    test = healthcheck.get("test")
    if healthcheck.get("disable") or not test or test == "NONE" or test == ["NONE"]:
        return
    if isinstance(test, str):
        command: str | list[str] = interpolate(test, values).text.rstrip("\n")
    elif isinstance(test, list) and len(test) > 1:
        arguments = _parse_command(test, values)
        command = arguments[1:] if arguments[0] == "CMD" else " ".join(arguments[1:])
    else:
        draft.todos.append("its health check has no command")
        return
    if not _are_single_lines(draft, "healthcheck", command if isinstance(command, list) else [command]):
        return
    if SHARED_TEST_VALUE in str(command):
        draft.todos.append(
            "its healthcheck contains a secret: write $$NAME in the compose file, for a variable of the container"
        )
    draft.healthcheck = {"exec": command}
    for key in _HEALTHCHECK_DURATIONS:
        if healthcheck.get(key):
            try:
                parse_duration(str(healthcheck[key]))
                draft.healthcheck[key] = str(healthcheck[key])
            except ValueError as error:
                draft.todos.append(f"the {key} of its health check, {healthcheck[key]}, {error}")
    if type(healthcheck.get("retries")) is int and healthcheck["retries"] > 0:
        draft.healthcheck["retries"] = healthcheck["retries"]
