"""Compare `compose.yaml` and `.env.example` with what the other documents say of the services.

Not every setting stands elsewhere, but whatever reaches beyond the container does: images, mounts, networks, ports,
limits and the hardening. What no promotion writes, such as `privileged`, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lyra_tasks.bundle.content.compose import NETWORKS, format_required_variable, list_service_keys
from lyra_tasks.bundle.content.environment import quote_env_value
from lyra_tasks.config.containers import LOG_DRIVER, LOG_OPTIONS, UNREACHABLE_DNS
from lyra_tasks.config.deployment import compose_object_name, compose_project, volume_name
from lyra_tasks.config.models import Volume
from lyra_tasks.console import escape
from lyra_tasks.rules.catalogue import CAPABILITIES, EGRESS, READ_ONLY

_TOP_LEVEL_KEYS = frozenset({"name", "services", "networks", "volumes", "configs", "secrets"})
_ENV_LINE = re.compile(r"(?m)^(#?)([A-Za-z_][A-Za-z0-9_]*)=(.*)$")
_SETTABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VARIABLE = re.compile(r"(?<!\$)(?:\$\$)*\$\{([A-Za-z_][A-Za-z0-9_]*)")
_TMPFS = re.compile(r"(?P<path>/[^:]*):rw,noexec,nosuid,nodev,size=(?P<size>[0-9]+)(?:,uid=[0-9]+,gid=[0-9]+)?")
_RELAXING_RULES = {"read_only": READ_ONLY, "cap_add": CAPABILITIES}


@dataclass(frozen=True)
class DescribedDeployment:
    """What the other documents say: `services` as in `environment.json`, and the deviations as rule and scope."""

    project: str
    services: Mapping[str, Mapping[str, Any]]
    deviations: Collection[tuple[str, str]]


def compare_compose_file(compose: Mapping[str, Any], described: DescribedDeployment) -> Iterator[str]:
    """Yield where a Compose file disagrees with the description of its services."""
    for key in sorted(compose.keys() - _TOP_LEVEL_KEYS):
        yield f"{escape(key)} is nothing that a promotion writes"
    if compose["name"] not in {compose_project(described.project), described.project.replace(".", "-")}:  # as it was
        yield "of another project"
    if compose["services"].keys() != described.services.keys():
        yield "has other services"
        return
    for kind, expected in _expected_objects(described).items():
        if compose.get(kind, {}) != expected:
            yield f"{kind} differ from what is described"
    for name, service in described.services.items():
        for problem in _compare_service(name, compose["services"][name], service, described):
            yield f"services.{name}.{problem}"


def _expected_objects(described: DescribedDeployment) -> dict[str, dict[str, Any]]:
    """Return the networks, volumes, configs and secrets of all services."""
    services = described.services.items()
    networks = {network for _, service in services for network in _network_names(service)}
    return {
        "networks": {name: NETWORKS[name] for name in ("inner", *sorted(networks - {"inner"}))},
        "volumes": {
            _volume_mount(name, item).partition(":")[0]: {} for name, service in services for item in service["volumes"]
        },
        "configs": {
            compose_object_name(name, item["name"]): {"file": _escape(f"./{item['file']}")}
            for name, service in services
            for item in service["configs"]
        },
        "secrets": {
            compose_object_name(name, item["name"]): {
                "file": format_required_variable(item["variable"], f"path of the file with {item['name']}")
            }
            for name, service in services
            for item in service["secrets"]
        },
    }


def _compare_service(
    name: str, actual: Mapping[str, Any], service: Mapping[str, Any], described: DescribedDeployment
) -> Iterator[str]:
    for key in sorted(actual.keys() - list_service_keys()):
        yield f"{escape(key)} is nothing that a promotion writes"
    limits = service["limits"]
    expected = {
        "image": service["image"],
        "pull_policy": "never",
        "volumes": [_volume_mount(name, item) for item in service["volumes"]],
        "configs": _mounts(name, service["configs"]),
        "secrets": _mounts(name, service["secrets"]),
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "ipc": "private",
        "dns": [] if service["egress"] else [UNREACHABLE_DNS],
        "logging": {"driver": LOG_DRIVER, "options": dict(LOG_OPTIONS)},
        "cpus": limits["cpus"],
        "mem_limit": limits["memory"],
        "memswap_limit": limits["memory"],
        "pids_limit": limits["pids"],
    }
    for key, value in expected.items():
        if actual.get(key, []) != value:
            yield f"{key} differs from what is described"
    for key, allowed in (("read_only", True), ("cap_add", [])):
        if actual.get(key, allowed if key == "cap_add" else False) != allowed and not _deviates(
            described, _RELAXING_RULES[key], name
        ):
            yield f"{key} needs a deviation from {_RELAXING_RULES[key]}"
    if service["egress"] and not _deviates(described, EGRESS, name):
        yield f"networks needs a deviation from {EGRESS}"
    if actual.get("user", service["user"]) != service["user"]:
        yield "user differs from what is described"
    if set(actual.get("networks", ())) != _network_names(service):
        yield "networks differ from what is described"
    if set(actual.get("depends_on", ())) != set(service["depends_on"]) & described.services.keys():
        yield "depends_on differs from what is described"
    if not _are_ports(actual.get("ports", []), service["ports"]):
        yield "ports differ from what is described"
    tmpfs = [_TMPFS.fullmatch(text.replace("$$", "$")) for text in actual.get("tmpfs", ())]
    if None in tmpfs or {match["path"]: int(match["size"]) for match in tmpfs if match} != limits["tmpfs"]:
        yield "tmpfs differs from what is described"
    yield from _compare_environment(actual.get("environment", {}), service["environment"])


def _compare_environment(actual: Mapping[str, str], variables: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    configured = {item["name"]: item for item in variables if item["from"] == "configuration"}
    if actual.keys() != configured.keys():
        yield "environment has other variables than described"
        return
    for name, item in configured.items():
        if not _is_value(actual[name], item):
            yield f"environment.{name} differs from what is described"


def _is_value(text: str, variable: Mapping[str, Any]) -> bool:
    """Return whether a text is what a promotion writes for a variable."""
    name, default = variable["name"], _escape(variable["default"] or "")
    if not _SETTABLE_NAME.fullmatch(name):
        return text == default
    if variable["required"]:
        return text.startswith(f"${{{name}:?")
    return text == f"${{{name}-{default}}}" or text.startswith(f"${{{name}?")


def compare_env_example(example: str, compose_text: str, described: DescribedDeployment) -> Iterator[str]:
    """Yield where `.env.example` disagrees with the variables of the Compose file and their description."""
    lines = {match[2]: (match[1], match[3]) for match in _ENV_LINE.finditer(example)}
    used = set(_VARIABLE.findall(compose_text))
    for name in sorted(lines.keys() ^ used):
        yield f"{name} is {'missing' if name in used else 'not in the Compose file'}"
    for service in described.services.values():
        for item in service["environment"]:
            if item["name"] in lines and item["from"] == "configuration":
                mark, value = lines[item["name"]]
                if item["required"] and (mark or value):
                    yield f"{item['name']} has a value, but is required"
    values = {
        quote_env_value(item["default"] or "")
        for service in described.services.values()
        for item in service["environment"]
    }
    addresses = {
        item["variable"]: _default_address(item) for service in described.services.values() for item in service["ports"]
    }
    for name, (_, value) in lines.items():
        if value and value not in values and value != addresses.get(name):
            yield f"{name} has another default than described"


def _network_names(service: Mapping[str, Any]) -> set[str]:
    return {"inner", *(["out"] if service["egress"] else ["edge"] if service["ports"] else [])}


def _mounts(service: str, files: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    return [{"source": compose_object_name(service, item["name"]), "target": _escape(item["path"])} for item in files]


def _are_ports(actual: Sequence[str], ports: Sequence[Mapping[str, Any]]) -> bool:
    patterns = [
        rf"\$\{{{re.escape(item['variable'])}(:-{re.escape(_default_address(item))}|:\?[^{{}}]*)\}}:{item['port']}"
        + ("" if item.get("protocol", "tcp") == "tcp" else f"/{item['protocol']}")
        for item in ports
    ]
    return len(actual) == len(patterns) and all(map(re.fullmatch, patterns, map(str, actual)))


def _volume_mount(service: str, item: Mapping[str, Any]) -> str:
    volume = Volume.model_construct(
        path=item["path"], shared=item.get("shared"), read_only=item.get("read_only", False)
    )
    options = ",".join(volume.mount_options)
    return f"{volume_name(service, item['name'], volume)}:{_escape(item['path'])}" + (f":{options}" if options else "")


def _default_address(port: Mapping[str, Any]) -> str:
    return str(port.get("address") or f"127.0.0.1:{port['port']}")


def _deviates(described: DescribedDeployment, rule: str, service: str) -> bool:
    return (rule, f"services.{service}") in described.deviations


def _escape(text: str) -> str:
    """Escape `$` as in the Compose file."""
    return text.replace("$", "$$")
