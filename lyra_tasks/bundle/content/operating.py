"""The part of `PROMOTION.md` that an operator follows: from trust to removal, in the order of work."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from lyra_tasks.bundle.content.environment import PromotedService, list_variables
from lyra_tasks.bundle.diff import BundleDiff
from lyra_tasks.bundle.format.layout import CHECKSUMS_FILE, RECEIVE_SCRIPT, SIGNATURE_FILE
from lyra_tasks.bundle.format.manifest import Manifest
from lyra_tasks.bundle.format.signature import SIGNATURE_NAMESPACE
from lyra_tasks.config.deployment import (
    compose_project,
    is_settable_name,
    publish_variable,
    secret_variable,
    volume_name,
)
from lyra_tasks.console import escape
from lyra_tasks.console.markup import escape_markdown, format_code, format_table
from lyra_tasks.ports import port_number, port_protocol

_SETTINGS = frozenset({"environment", "secrets", "ports"})
"""Sections of a comparison whose changes concern `.env`."""
SET_VARIABLE_FUNCTIONS = (
    """put() { printf '%s\\n' "$2" | sed 's/["$\\\\]/\\\\&/g; s/.*/'"$1"'="&"/' >> .env; }    # put NAME VALUE""",
    """ask() { printf '%s: ' "$1"; IFS= read -r VALUE && put "$1" "$VALUE"; }    # no history has the value""",
)
"""Shell functions that set a variable in `.env`, quoted as Compose reads it."""


def render_operating_steps(
    manifest: Manifest, services: Sequence[PromotedService], signer: str, diff: BundleDiff | None
) -> str:
    """Return the numbered steps; `signer` is empty if the bundle is not signed."""
    return "\n".join(
        (
            _trust(signer),
            _load(signer, manifest),
            _configure(manifest.project, services),
            _start(),
            _is_it_up(services),
            _upgrade(manifest, services, diff),
            _roll_back(manifest, services),
            _make_room(manifest),
            _identify(),
        )
    )


def _commands(*lines: str) -> str:
    return "\n".join(("```", *lines, "```", ""))


def _trust(signer: str) -> str:
    head = "## 1. Trust\n\n"
    if not signer:
        text = f"{head}Not signed: the checksums detect corruption, not tampering.\n\n"
        return text + _commands(f"sha256sum -c {CHECKSUMS_FILE}")
    name = shlex.quote(escape(signer))
    return (
        f"{head}Signed by {format_code(signer)}. SIGNERS is a file of allowed signers, in the format of "
        "`ssh-keygen`, that comes from elsewhere, never with the bundle. Check the first signature by hand: "
        f"`{RECEIVE_SCRIPT}` can be trusted only after that.\n\n"
        + _commands(
            "SIGNERS=/path/to/allowed_signers",
            f'ssh-keygen -Y verify -f "$SIGNERS" -I {name} -n {SIGNATURE_NAMESPACE} -s {SIGNATURE_FILE} '
            f"< {CHECKSUMS_FILE}",
            f"sha256sum -c {CHECKSUMS_FILE}",
        )
    )


def _load(signer: str, manifest: Manifest) -> str:
    options = f' --allowed-signers "$SIGNERS" --signer {shlex.quote(escape(signer))}' if signer else ""
    is_multi_platform = len(manifest.images_by_build) > len({image.name for image in manifest.images})
    platform_note = " for the engine's platform" if is_multi_platform else ""
    return (
        "## 2. Load\n\n"
        + _commands(f"sh {RECEIVE_SCRIPT}{options}")
        + f"\nIt checks every file{', the signature' if signer else ''}, the engine and the free space, loads the "
        f"images{platform_note}, compares them with the digests below and says what to do next. It starts nothing, "
        "writes no file and can be run again at any time. It refuses to load an older version without `--allow-older`. "
        "Exit code 0 means that everything is loaded. The codes 3 (`engine`), 30 (`no-space`) and 31 (`incomplete`: "
        "the node lacks layers that a pack omits) are about this node, 6 (`corrupt`) and 60 (`refused`) about the "
        "copied files, 2 about the command line. See `--help`.\n"
    )


def _configure(project: str, services: Sequence[PromotedService]) -> str:
    files = [line for service in services for line in _secret_file_lines(service)]
    questions = [*_variable_lines(services), *(line for service in services for line in _port_lines(service))]
    nothing = "" if files or questions else "No value has to be set.\n\n"
    text = (
        f"## 3. Configure\n\n{nothing}In `.env`, the last line of a variable counts. Only `.env` may be added to the "
        "bundle; no backups and no secrets.\n\n"
        + _commands(
            "cd deploy",
            "[ -e .env ] || cp .env.example .env    # for the first version; for a later one, see 6",
            "chmod 600 .env",
            *(SET_VARIABLE_FUNCTIONS if files or questions else ()),
        )
    )
    if files:
        text += (
            "\nFILE is a file that contains the secret; run as root, `install` gives a copy to the user of the "
            "container, who is not root of the node. Compose counts relative paths of secret files from `deploy/`. No "
            f"secret may lie in the bundle: `{RECEIVE_SCRIPT}` refuses files that are not in `{CHECKSUMS_FILE}`.\n\n"
            + _commands(f"SECRETS={shlex.quote(f'/etc/{project}')}", 'mkdir -p -m 711 "$SECRETS"', *files)
        )
    if questions:
        text += "\nOne line at a time, since each waits for its value:\n\n" + _commands(*questions)
    return (
        text + "\nThis prints nothing if every required value is set:\n\n" + _commands("docker compose config --quiet")
    )


def _variable_lines(services: Sequence[PromotedService]) -> Iterator[str]:
    """Yield commands that set the required variables, each once."""
    required: dict[str, dict[str, Any]] = {}
    for variable in (variable for service in services for variable in list_variables(service)):
        if variable["required"] and is_settable_name(variable["name"]):
            required.setdefault(variable["name"], variable)
    templates = {
        name: str(variable["template"])
        for name, variable in required.items()
        if "template" in variable and required.keys() >= set(re.findall(r"\$\{(\w+)\}", variable["template"]))
    }
    for name, variable in sorted(required.items(), key=lambda item: item[0] in templates):
        pattern = f", like {variable['pattern']}" if variable["pattern"] else ""
        about = f"{escape(variable['description'] or name)}{escape(pattern)}"
        if name in templates:  # Compose puts in what stands above it
            assignment = shlex.quote(f"{name}={escape(templates[name])}")
            yield f"echo {assignment} >> .env    # {about}, made of the values above"
        else:
            yield f"ask {name}    # {about}"


def _secret_file_lines(service: PromotedService) -> Iterator[str]:
    ids = service.effective.user_ids if service.effective.user else (0, 0)
    command = f"docker run --rm --network none --entrypoint id {shlex.quote(service.reference)} -u"
    owner = f"-o {ids[0]} -g {ids[1]}" if ids else f'-o "$({command})"'
    for key, secret in service.config.secrets.items():
        yield f"FILE=/path/to/{service.name}-{key}    # {escape(secret.description or key)}"
        yield f'install -m 400 {owner} "$FILE" "$SECRETS"/{service.name}-{key}'
        yield f'put {secret_variable(service.name, key)} "$SECRETS"/{service.name}-{key}'


def _port_lines(service: PromotedService) -> Iterator[str]:
    for key, port in service.config.ports.items():
        if not service.publish_addresses[key]:
            variable = publish_variable(service.name, key)
            yield f"ask {variable}    # where {service.name} publishes its port {port}, such as 127.0.0.1:8081"


def _start() -> str:
    return "## 4. Start\n\nIn `deploy/`:\n\n" + _commands("docker compose up --detach --wait")


def _is_it_up(services: Sequence[PromotedService]) -> str:
    oneshot_names = [service.name for service in services if service.config.oneshot]
    oneshot_note = f" {' and '.join(oneshot_names)} must have exited with 0." if oneshot_names else ""
    return (
        f"## 5. Is it up\n\nIn `deploy/`: all services must be running, and healthy if they have a health check."
        f"{oneshot_note} Each line must end without an error, if not at once, then when the service is ready.\n\n"
        + _commands(
            "docker compose ps --all",
            *(line for service in services for line in _port_checks(service)),
            "docker compose logs --tail 50    # what they say, if something is wrong",
        )
    )


def _port_checks(service: PromotedService) -> Iterator[str]:
    """Yield a line for each port, which asks Compose for the published address."""
    check, ports = service.config.healthcheck, service.config.ports
    for key, port in ports.items():
        number = port_number(port)
        address = f"$(docker compose port {service.name} {number})"
        if port_protocol(port) == "udp":
            yield f"docker compose port --protocol udp {service.name} {number}    # {key}: where it is published"
        elif check is not None and check.http is not None and (key == "http" or len(ports) == 1):
            method, _, path = check.http.rpartition(" ")
            request = f" --request {shlex.quote(escape(method))}" if method not in {"", "GET"} else ""
            yield f'curl --fail --silent --show-error{request} "http://{address}"{shlex.quote(escape(path))}'
        elif key in {"http", "https"}:
            yield f'curl --insecure --silent --show-error --head "{key}://{address}/"    # any answer will do'
        else:
            yield f'bash -c ": < /dev/tcp/$(docker compose port {service.name} {number} | tr : /)"    # {key}: connects'


def _upgrade(manifest: Manifest, services: Sequence[PromotedService], diff: BundleDiff | None) -> str:
    before = f" from {escape_markdown(diff.before)}" if diff else ""
    backups = [
        f"! docker volume inspect {volume} > /dev/null 2>&1 || "
        f"docker compose cp {shlex.quote(f'{service}:{escape(path)}/.')} - > {file}"
        for service, path, volume, file in _volumes(manifest.project, services)
    ]
    changes = [change for change in diff.changes if change.section in _SETTINGS] if diff else []
    table = format_table(
        ("section", "name", "before", "after"), [tuple(map(escape_markdown, change.row)) for change in changes]
    )
    note = (
        f"\nNew and changed values since {escape_markdown(diff.before)}:\n\n{table}"
        if diff and changes
        else f"\nNo values have changed since {escape_markdown(diff.before)}.\n"
        if diff
        else ""
    )
    return (
        f"## 6. Upgrade{before}\n\nDo 1 and 2 with this version while the other one runs. OLD and NEW are the "
        "directories `deploy` of the two, BACKUP one outside of both, all of them absolute paths.\n\n"
        + _commands(
            _directories(manifest),
            'mkdir -p -m 700 "$BACKUP" && cp -p "$OLD"/.env "$BACKUP"/env',
            'cd "$OLD" && docker compose stop',
            *backups,
            '[ -e "$NEW"/.env ] || cp -p "$OLD"/.env "$NEW"/.env',
            f'cd "$NEW" && sh ../{RECEIVE_SCRIPT}    # names what is still open, new and changed',
        )
        + "\nSet what is open with the lines of 3 for it, then start, and do 5.\n\n"
        + _commands('cd "$NEW" && docker compose up --detach --wait --remove-orphans')
        + note
    )


def _directories(manifest: Manifest) -> str:
    backup = shlex.quote(f"/var/backups/{manifest.project}-before-{manifest.version}")
    return f"OLD=/path/to/old/deploy NEW=/path/to/new/deploy BACKUP={backup}"


def _volumes(project: str, services: Sequence[PromotedService]) -> Iterator[tuple[str, str, str, str]]:
    """Yield each volume once: a service that writes to it, its path there, its name in the engine, and its backup."""
    names: set[str] = set()
    for service in services:
        for key, volume in service.config.volumes.items():
            name = volume_name(service.name, key, volume)
            if name not in names and not volume.read_only:
                names.add(name)
                path = volume.path.rstrip("/")
                yield service.name, path, f"{compose_project(project)}_{name}", f'"$BACKUP"/{name}.tar'


def _roll_back(manifest: Manifest, services: Sequence[PromotedService]) -> str:
    volumes = list(_volumes(manifest.project, services))
    restores = [
        f"[ ! -e {file} ] || docker compose cp - {shlex.quote(f'{service}:{escape(path)}')} < {file}"
        for service, path, _, file in volumes
    ]
    data_note = (
        " What was written since the backup is lost. If the older version can read the data as it is, leave out the "
        "lines with `volume rm` and `cp`."
        if restores
        else ""
    )
    return f"## 7. Roll back\n\nOLD, NEW and BACKUP are as in 6.{data_note}\n\n" + _commands(
        _directories(manifest),
        'cd "$NEW" && docker compose down',
        *(f"docker volume rm {volume}" for _, _, volume, _ in volumes),
        f'cd "$OLD" && sh ../{RECEIVE_SCRIPT} --allow-older    # loads its images if they are gone',
        *(["docker compose up --no-start", *restores] if restores else []),
        "docker compose up --detach --wait --remove-orphans",
    )


def _make_room(manifest: Manifest) -> str:
    return (
        "## 8. Make room\n\nVersions that neither run nor are the one to roll back to may go, with their bundles. "
        "Never remove images of those two: a pack since a version needs the images of that version, too. Without "
        "`--force`, Docker refuses to remove what containers use; `docker image prune --all` would also remove the "
        "version to roll back to. OLDER is the tag of a version in the list.\n\n"
        + _commands(
            f"docker image ls '{manifest.project}/*'",
            "OLDER=VERSION",
            "docker image rm $(docker image ls --format '{{.Repository}}:{{.Tag}}' "
            f'"{manifest.project}/*:$OLDER")',
        )
    )


def _identify() -> str:
    return (
        "## 9. Is it the right one\n\nAn answer on a port does not say which version answers. In `deploy/`, this "
        "prints the image that each container runs, by digest:\n\n"
        + _commands(
            "docker inspect --format '{{.Name}} {{.Config.Image}} {{.Image}}' $(docker compose ps --all --quiet)"
        )
        + "\nIt must be the config digest below on a classic image store, and the manifest digest on a containerd "
        f"image store. `sh {RECEIVE_SCRIPT}` compares the loaded images and every file again.\n"
    )
