"""A compose file's services as drafts of Lyra's."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from lyra_tasks.config.ports import AnyPort
from lyra_tasks.config.ports import read as read_port
from lyra_tasks.config.text import single_line
from lyra_tasks.config.units import parse_duration
from lyra_tasks.setup.compose_environment import add_environment, as_text, pair
from lyra_tasks.setup.compose_file import ComposeFile, entries, fill, table
from lyra_tasks.setup.compose_limits import limits
from lyra_tasks.setup.compose_mounts import add_files, add_volumes
from lyra_tasks.setup.draft import (
    SHARED_TEST_VALUE,
    DraftImage,
    DraftService,
    free_name,
    name_of,
    without_credentials,
)  # fmt: skip
from lyra_tasks.setup.facts import Facts, assignments
from lyra_tasks.setup.known import port_names

DEVELOPMENT = {"dev", "develop", "development", "local"}
_NOT_CARRIED = {
    "privileged": "privileged",
    "network_mode": "a network of the host",
    "pid": "processes of the host",
    "ipc": "the host's IPC",
    "devices": "devices of the host",
    "volumes_from": "the volumes of another container",
    "extends": "what it extends",
    "gpus": "GPUs",
}
_SECRET_OPTION = re.compile(r"--?[A-Za-z-]*(?:pass|passwd|password|token|secret|api-?key)", re.IGNORECASE)
_HEALTH_KEYS = ("interval", "timeout", "start_period")


def structural(facts: Facts) -> dict[str, str]:
    """The values for `${…}` in what is no environment: those of `.env`, as Compose takes them."""
    return {name: value for name, value, _ in assignments(facts.texts.get(".env", ""))}


def drafts(compose: ComposeFile, facts: Facts) -> tuple[list[DraftImage], list[DraftService], list[str]]:
    """Images, services and notes of a compose file; what is started by a profile alone is only noted."""
    values = structural(facts)
    notes: list[str] = []
    wanted = _wanted(compose)
    for name in sorted(set(compose.services) - wanted):
        notes.append(f"{compose.path}: {name} is started by a profile alone and was left out")
    images: list[DraftImage] = []
    names = _names(compose)
    services = [
        _service(name, raw, compose, facts, values, images, names)
        for name, raw in compose.services.items()
        if name in wanted
    ]
    finished = {
        names.get(other)
        for name in wanted
        for other, condition in _dependencies(compose.services[name])
        if condition == "service_completed_successfully"
    }
    for service in services:
        if service.name in finished:
            service.values["oneshot"] = True
    _shared_volumes(services)
    if compose.included:
        notes.append(f"{compose.path}: what it includes was not read")
    return images, services, notes


def _names(compose: ComposeFile) -> dict[str, str]:
    """What each service of the file is called here; one that can keep its name keeps it."""
    found: dict[str, str] = {name: name for name in compose.services if name_of(name) == name}
    for name in compose.services:
        found.setdefault(name, free_name(name, set(found.values())))
    return found


def _shared_volumes(services: list[DraftService]) -> None:
    """On Lyra every service has volumes of its own: what several share must be said."""
    for service in services:
        for name in service.volumes:
            others = [each.name for each in services if name in each.volumes and each is not service]
            if others:
                service.todos.append(f"the volume {name} is shared with {', '.join(others)}; here, each has its own")


def _wanted(compose: ComposeFile) -> set[str]:
    """The services that `docker compose up` starts: those without a profile, and all that they depend on."""
    pending = [name for name, raw in compose.services.items() if not raw.get("profiles")]
    found: set[str] = set()
    while pending:
        name = pending.pop()
        if name in compose.services and name not in found:
            found.add(name)
            pending += [other for other, _ in _dependencies(compose.services[name])]
    return found


def _dependencies(raw: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The services that one depends on, short or long form, each with its condition."""
    written = raw.get("depends_on") or []
    if isinstance(written, dict):
        return [(str(name), str(table(written, name).get("condition", ""))) for name in written]
    short = [*entries(raw, "depends_on"), *(str(each).partition(":")[0] for each in entries(raw, "links"))]
    return [(str(name), "") for name in short]


def _service(
    name: str,
    raw: Mapping[str, Any],
    compose: ComposeFile,
    facts: Facts,
    values: Mapping[str, str],
    images: list[DraftImage],
    names: Mapping[str, str],
) -> DraftService:
    draft = DraftService(names[name])
    if draft.name != name:
        draft.todos.append(f"was {name} in {compose.path}: neighbours that ask for that name must ask for {draft.name}")
    _image(draft, raw, facts, values, images)
    draft.depends_on = [names[other] for other, _ in _dependencies(raw) if other in names]
    _process(draft, raw, values)
    draft.ports = port_names(list(_ports(draft, raw, values)))
    draft.limits = limits(draft, raw, values)
    add_environment(draft, name, raw, compose, facts)
    _healthcheck(draft, raw, values)
    add_volumes(draft, raw, facts, values)
    add_files(draft, raw, compose, facts, values)
    for key, what in _NOT_CARRIED.items():
        if raw.get(key):
            draft.todos.append(f"{compose.path} gives it {what} ({key}), which a container on Lyra does not get")
    if raw.get("cap_add"):
        listed = ", ".join(map(str, entries(raw, "cap_add")))
        draft.todos.append(f"{compose.path} adds the capabilities {listed}: cap_add, with a [[deviations]] entry")
    return draft


def _image(
    draft: DraftService, raw: Mapping[str, Any], facts: Facts, values: Mapping[str, str], images: list[DraftImage]
) -> None:
    build = raw.get("build")
    if build is None:
        reference = _filled(draft, raw, "image", values)
        draft.external = reference if re.fullmatch(r"[^\s-]\S*", reference) else ""
        return
    described = build if isinstance(build, dict) else {"context": build}
    written = fill(str(described.get("context") or "."), values).text
    context = written if "://" in written else posixpath.normpath(written)
    dockerfile = fill(str(described.get("dockerfile") or "Dockerfile"), values).text
    if described.get("dockerfile_inline") or posixpath.normpath(posixpath.join(context, dockerfile)) not in facts.files:
        draft.todos.append(f"its image is built from {context} and {dockerfile}, which is no Dockerfile of this folder")
        return
    image = DraftImage(draft.name, context, dockerfile, str(described.get("target") or ""))
    pairs = [*table(described, "args").items(), *(pair(str(each)) for each in entries(described, "args"))]
    for key, value in pairs:
        image.args[key] = fill(as_text(value), values).text
    if described.get("secrets") or described.get("ssh"):
        image.todos.append("its build takes secrets or ssh: name files in `secrets` of this image")
    if image.target.lower() in DEVELOPMENT:
        image.target, image.dev_target = "", image.target
    same = next((each for each in images if _same(each, image)), None)
    if same is None:
        images.append(image)
    draft.image = (same or image).name


def _same(one: DraftImage, other: DraftImage) -> bool:
    return (one.context, one.dockerfile, one.target, one.args) == (
        other.context, other.dockerfile, other.target, other.args,
    )  # fmt: skip


def _process(draft: DraftService, raw: Mapping[str, Any], values: Mapping[str, str]) -> None:
    for key in ("entrypoint", "command"):
        words = _words(raw.get(key), values)
        if words and _fits(draft, key, words):
            draft.values[key] = _without_secrets(draft, key, words)
    for key in ("user", "working_dir", "stop_signal"):
        if value := _filled(draft, raw, key, values):
            draft.values[key] = value


def _filled(draft: DraftService, raw: Mapping[str, Any], key: str, values: Mapping[str, str]) -> str:
    """The value of a key, or nothing and an open point where it hangs on a variable that has no value."""
    written = as_text(raw.get(key))
    filled = fill(written, values)
    if filled.open:
        draft.todos.append(f"its {key} is {written}, and nothing here says what {', '.join(filled.open)} is: set {key}")
        return ""
    return filled.text


def _fits(draft: DraftService, key: str, words: Iterable[str]) -> bool:
    """Whether every word is one line, as a configuration has them; an open point if not."""
    try:
        for word in words:
            single_line(word)
    except ValueError:
        draft.todos.append(f"its {key} has several lines: make it a script of the image, and call that")
        return False
    return True


def _without_secrets(draft: DraftService, key: str, words: list[str]) -> list[str]:
    """A command whose secrets have the value for tests: what stands in it is in the bundle and in process lists."""
    plain = [without_credentials(word)[0] for word in words]
    for number, word in enumerate(words):
        option, equals, _ = word.partition("=")
        if _SECRET_OPTION.fullmatch(option) and equals:
            plain[number] = f"{option}={SHARED_TEST_VALUE}"
        elif _SECRET_OPTION.fullmatch(word) and number + 1 < len(words):
            plain[number + 1] = SHARED_TEST_VALUE
    if any(SHARED_TEST_VALUE in word for word in plain):
        draft.todos.append(f"a secret stands in its {key}: have it read from a variable or a file instead")
    return plain


def _words(written: object, values: Mapping[str, str]) -> list[str]:
    """A command as Compose runs it: a string is split as a shell would, and no shell runs it."""
    if isinstance(written, str):
        with suppress(ValueError):  # an open quote: then it is one word
            return shlex.split(fill(written, values).text)
        return [written]
    return [fill(as_text(word), values).text.rstrip("\n") for word in written] if isinstance(written, list) else []


def _ports(draft: DraftService, raw: Mapping[str, Any], values: Mapping[str, str]) -> Iterator[AnyPort]:
    for written in [*entries(raw, "ports"), *entries(raw, "expose")]:
        if isinstance(written, dict):
            text, protocol = str(written.get("target")), str(written.get("protocol", "tcp"))
        else:
            text, _, protocol = fill(str(written), values).text.partition("/")
            text = text.rpartition(":")[2]
        if protocol not in {"", "tcp", "udp"} or not text.isdigit():
            draft.todos.append(f"the port {text or written}/{protocol or 'tcp'} is not carried over: one port each")
        elif 0 < int(text) < 65536:
            yield read_port(f"{text}/{protocol}")


def _healthcheck(draft: DraftService, raw: Mapping[str, Any], values: Mapping[str, str]) -> None:
    written = table(raw, "healthcheck")
    test = written.get("test")
    if written.get("disable") or not test or test == "NONE" or test == ["NONE"]:
        return
    if isinstance(test, str):
        command: str | list[str] = fill(test, values).text.rstrip("\n")
    elif isinstance(test, list) and len(test) > 1:
        words = _words(test, values)
        command = words[1:] if words[0] == "CMD" else " ".join(words[1:])
    else:
        draft.todos.append("its healthcheck has no command")
        return
    if not _fits(draft, "healthcheck", command if isinstance(command, list) else [command]):
        return
    if SHARED_TEST_VALUE in str(command):
        draft.todos.append("a secret stands in its healthcheck: write $$NAME in the compose file, for the container")
    draft.healthcheck = {"exec": command}
    for key in _HEALTH_KEYS:
        if written.get(key):
            try:
                parse_duration(str(written[key]))
                draft.healthcheck[key] = str(written[key])
            except ValueError as error:
                draft.todos.append(f"the {key} of its healthcheck, {written[key]}, {error}")
    if type(written.get("retries")) is int and written["retries"] > 0:
        draft.healthcheck["retries"] = written["retries"]
