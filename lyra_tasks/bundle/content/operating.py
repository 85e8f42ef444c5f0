"""Render the steps of `PROMOTION.md` that an operator follows, in the order of work: from trust to whether it is up."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from lyra_tasks.bundle.content.environment import PromotedService, list_variables
from lyra_tasks.bundle.content.upgrading import render_upgrading_steps
from lyra_tasks.bundle.diff import BundleDiff
from lyra_tasks.bundle.format.layout import CHECKSUMS_FILE, RECEIVE_SCRIPT, SIGNATURE_FILE
from lyra_tasks.bundle.format.manifest import Manifest
from lyra_tasks.bundle.format.signature import SIGNATURE_NAMESPACE
from lyra_tasks.config.deployment import is_settable_name, publish_variable, secret_variable
from lyra_tasks.console import escape
from lyra_tasks.console.markup import format_code, format_commands
from lyra_tasks.ports import port_number, port_protocol

SET_VARIABLE_FUNCTIONS = (
    """put() { printf '%s\\n' "$2" | sed 's/["$\\\\]/\\\\&/g; s/.*/'"$1"'="&"/' >> .env; }    # put NAME VALUE""",
    """ask() { printf '%s: ' "$1"; IFS= read -r VALUE && put "$1" "$VALUE"; }    # no history has the value""",
)
"""Shell functions that set a variable in `.env`, quoted as Compose reads it."""
_PORT_FUNCTIONS = (
    (
        frozenset({"get", "answers", "connects"}),
        """address() { docker compose port "$@" | sed 's/^\\([^[]*:.*\\):/[\\1]:/'; }    # address SERVICE PORT""",
    ),
    (
        frozenset({"get"}),
        """get() { if command -v curl > /dev/null; then curl --fail --silent --show-error $3 $4 "http://$1$2"; """
        """else wget -q -O - "http://$1$2"; fi; }    # get ADDRESS PATH""",
    ),
    (
        frozenset({"answers", "connects"}),
        """connects() { HOST=$(echo "${1%:*}" | tr -d '[]') PORT=${1##*:}; if command -v bash > /dev/null; then """
        """bash -c ": < /dev/tcp/$HOST/$PORT"; else nc -w 5 "$HOST" "$PORT" < /dev/null; fi; }    # connects ADDRESS""",
    ),
    (
        frozenset({"answers"}),
        """answers() { if command -v curl > /dev/null; then curl --insecure --silent --show-error --head "$1://$2/"; """
        """else connects "$2"; fi; }    # answers PROTOCOL ADDRESS""",
    ),
)
"""Shell functions that try a port with what is on the node, each with the functions that need it."""


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
            render_upgrading_steps(manifest, services, diff),
        )
    )


def _trust(signer: str) -> str:
    head = "## 1. Trust\n\n"
    if not signer:
        text = f"{head}Not signed: the checksums detect corruption, not tampering.\n\n"
        return text + format_commands(f"sha256sum -c {CHECKSUMS_FILE}")
    name = shlex.quote(escape(signer))
    return (
        f"{head}Signed by {format_code(signer)}. SIGNERS is a file of allowed signers, in the format of "
        "`ssh-keygen`, that comes from elsewhere, never with the bundle. Check the first signature by hand: "
        f"`{RECEIVE_SCRIPT}` can be trusted only after that.\n\n"
        + format_commands(
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
        + format_commands(f"sh {RECEIVE_SCRIPT}{options}")
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
        + format_commands(
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
            + format_commands(f"SECRETS={shlex.quote(f'/etc/{project}')}", 'mkdir -p -m 711 "$SECRETS"', *files)
        )
    if questions:
        text += "\nOne line at a time, since each waits for its value:\n\n" + format_commands(*questions)
    return (
        text
        + "\nThis prints nothing if every required value is set:\n\n"
        + format_commands("docker compose config --quiet")
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
    return "## 4. Start\n\nIn `deploy/`:\n\n" + format_commands("docker compose up --detach --wait")


def _is_it_up(services: Sequence[PromotedService]) -> str:
    oneshot_names = [service.name for service in services if service.config.oneshot]
    oneshot_note = f" {' and '.join(oneshot_names)} must have exited with 0." if oneshot_names else ""
    checks = [line for service in services for line in _port_checks(service)]
    used_words = {line.partition(" ")[0] for line in checks}
    functions = [line for words, line in _PORT_FUNCTIONS if words & used_words]
    return (
        f"## 5. Is it up\n\nIn `deploy/`: all services must be running, and healthy if they have a health check."
        f"{oneshot_note} Each line must end without an error, if not at once, then when the service is ready.\n\n"
        + format_commands(
            "docker compose ps --all",
            *functions,
            *checks,
            "docker compose logs --tail 50    # what they say, if something is wrong",
        )
    )


def _port_checks(service: PromotedService) -> Iterator[str]:
    """Yield a line for each port, which asks Compose for the published address."""
    check, ports = service.config.healthcheck, service.config.ports
    for key, port in ports.items():
        number = port_number(port)
        address = f'"$(address {service.name} {number})"'
        if port_protocol(port) == "udp":
            yield f"docker compose port --protocol udp {service.name} {number}    # {key}: where it is published"
        elif check is not None and check.http is not None and (key == "http" or len(ports) == 1):
            method, _, path = check.http.rpartition(" ")
            option = {"": "", "GET": "", "HEAD": " --head"}.get(method, f" --request {shlex.quote(escape(method))}")
            yield f"get {address} {shlex.quote(escape(path))}{option}"
        elif key in {"http", "https"}:
            yield f"answers {key} {address}    # any answer will do"
        else:
            yield f"connects {address}    # {key}"
