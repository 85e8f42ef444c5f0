"""Translate a service of `docker compose config` into a table of `[services]`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lyra_tasks.compose.model import Location
from lyra_tasks.compose.stand_ins import replace_secret_arguments
from lyra_tasks.compose.translation.draft import ServiceDraft
from lyra_tasks.compose.translation.names import is_host_name, name_ports, unique_name
from lyra_tasks.ports import ContainerPort, join_host_port, parse_port
from lyra_tasks.units import format_size, parse_duration

_PORT = re.compile(r"[0-9]{1,5}")
_MAX_EXPOSED_PORTS = 64
_DURATIONS = ("interval", "timeout", "start_period")
_PLAIN_KEYS = ("user", "working_dir", "stop_signal", "platform", "hostname", "init", "read_only")
_SYSTEM_MEMORY = 256 * 1024**2
_MIN_MEMORY = 6 * 1024**2


def add_plain_keys(service: ServiceDraft) -> None:
    """Add the keys that both have with the same meaning."""
    for key in _PLAIN_KEYS:
        if service.raw.get(key) not in (None, ""):
            service.put(key, service.raw[key])
    if period := _duration(service.raw.get("stop_grace_period")):
        service.put("stop_grace_period", period)
    for key in ("entrypoint", "command"):
        if isinstance(service.raw.get(key), list):
            arguments, has_secret = replace_secret_arguments(
                [str(argument) for argument in service.raw[key]], service.draft.is_public
            )
            service.put(key, arguments)
            if has_secret:
                service.note("a secret in a command is visible to everyone, and replaced: write $$NAME in `sh -c`", key)
    for key in ("cap_add", "group_add"):
        if service.raw_list(key):
            service.put(key, [str(item).removeprefix("CAP_") for item in service.raw[key]])
    for key in ("ulimits", "sysctls"):
        if service.raw_table(key):
            service.put(key, dict(service.raw[key]))


def add_ports(service: ServiceDraft) -> None:
    """Add `ports` and `expose` under the names that Compose or their use gives them, and where they are published."""
    named: dict[str, ContainerPort] = {}
    unnamed: list[ContainerPort] = []
    origins: dict[ContainerPort, Location] = {}
    addresses: dict[ContainerPort, tuple[int | str, int]] = {}
    for index, entry in enumerate(service.raw_list("ports")):
        protocol = str(entry.get("protocol") or "tcp")
        if protocol not in {"tcp", "udp"}:
            service.note(f"port {entry.get('target')}/{protocol}: only TCP and UDP ports are published", "ports")
            continue
        port = parse_port(f"{entry.get('target')}/{protocol}")
        origins.setdefault(port, ("ports", index))
        _add_address(service, entry, index, port, addresses)
        if entry.get("name"):
            named[unique_name(str(entry["name"]), named)] = port
        else:
            unnamed.append(port)
    for index, text in enumerate(service.raw_list("expose")):
        for port in _expand_range(str(text)):
            origins.setdefault(port, ("expose", index))
            unnamed.append(port)
    ports = dict(named)
    for name, port in name_ports([port for port in unnamed if port not in named.values()]).items():
        ports[name if name not in named else f"port-{port}".replace("/", "-")] = port
    for name, port in ports.items():
        service.put_entry("ports", name, port, *origins[port])
        if port in addresses:
            address, index = addresses[port]
            service.put_entry("publish", name, address, "ports", index)


def _add_address(
    service: ServiceDraft,
    entry: Mapping[str, Any],
    index: int,
    port: ContainerPort,
    addresses: dict[ContainerPort, tuple[int | str, int]],
) -> None:
    """Add where a port is published: its host port, on the interface that Compose is told, or else on loopback."""
    host = str(entry.get("host_ip") or "").strip("[]")
    number = str(entry.get("published") or "").partition("-")[0]  # of a range, Compose takes one
    if not number.isdecimal() or not int(number):
        return
    if port in addresses:
        service.note("a port is published once; Proxima may publish it elsewhere", "ports", index)
        return
    if not host:
        service.note("published on 127.0.0.1 unless it names an interface, as in 0.0.0.0:8080:80", "ports", index)
    addresses[port] = (join_host_port(host, int(number)) if host not in {"", "127.0.0.1"} else int(number), index)


def _expand_range(text: str) -> list[ContainerPort]:
    numbers, _, protocol = text.partition("/")
    first, _, last = numbers.partition("-")
    if protocol not in {"", "tcp", "udp"} or not _PORT.fullmatch(first) or not _PORT.fullmatch(last or first):
        return []
    return [parse_port(f"{number}/{protocol}") for number in range(int(first), int(last or first) + 1)][
        :_MAX_EXPOSED_PORTS
    ]


def add_limits(service: ServiceDraft) -> None:
    """Add the limits that Compose enforces, too; `0` and `-1` mean none there, which is not possible here."""
    deploy = service.raw_table("deploy").get("resources") or {}
    limits = deploy.get("limits") or {}
    sources: Mapping[str, Sequence[tuple[object, Location]]] = {
        "cpus": (
            (service.raw.get("cpus"), ("cpus",)),
            (limits.get("cpus"), ("deploy", "resources", "limits", "cpus")),
            (_quota(service.raw), ("cpu_quota",)),
            (service.raw.get("cpu_count"), ("cpu_count",)),
        ),
        "memory": (
            (service.raw.get("mem_limit"), ("mem_limit",)),
            (limits.get("memory"), ("deploy", "resources", "limits", "memory")),
        ),
        "pids": (
            (service.raw.get("pids_limit"), ("pids_limit",)),
            (limits.get("pids"), ("deploy", "resources", "limits", "pids")),
        ),
    }
    for key, candidates in sources.items():
        value, path = next(((value, path) for value, path in candidates if value is not None), (None, ()))
        if value is None:
            continue
        number = float(str(value))
        if number <= 0:
            service.note("every container has limits: the default takes the place of none", *path)
        elif key == "memory":
            if number < _MIN_MEMORY:
                service.note(f"the least that Docker can enforce is {format_size(_MIN_MEMORY)}", *path)
            service.put_entry("limits", key, format_size(max(int(number), _MIN_MEMORY)), *path)
        else:
            service.put_entry("limits", key, int(number) if key == "pids" else number, *path)
    if size := service.raw.get("shm_size"):
        service.put("shm_size", format_size(int(size)))
        if "memory" not in service.table.get("limits", {}) and int(size) > _SYSTEM_MEMORY:
            service.put_entry("limits", "memory", format_size(int(size) + _SYSTEM_MEMORY), "shm_size")


def _quota(raw: Mapping[str, Any]) -> float | None:
    quota = float(raw.get("cpu_quota") or 0)
    return quota / float(raw.get("cpu_period") or 100_000) if quota > 0 else None


def add_healthcheck(service: ServiceDraft) -> None:
    """Add the health check; one without a test changes the timing of the image's own."""
    raw = service.raw_table("healthcheck")
    if not raw:
        return
    test = raw.get("test") or []
    if raw.get("disable") or test[:1] == ["NONE"] or test == ["CMD-SHELL", "NONE"]:
        service.put("healthcheck", {"disable": True})
        return
    check: dict[str, Any] = {}
    if test[:1] == ["CMD"] and len(test) > 1:
        check["exec"], has_secret = replace_secret_arguments(
            [str(argument) for argument in test[1:]], service.draft.is_public
        )
    elif test[:1] == ["CMD-SHELL"] and len(test) > 1:
        words, has_secret = replace_secret_arguments(str(test[1]).strip().split(" "), service.draft.is_public)
        check["exec"] = " ".join(words)
    else:
        has_secret = False
    if has_secret:
        service.note("a secret in a health check is visible to everyone: write $$NAME, for a variable", "healthcheck")
    for key in _DURATIONS:
        if seconds := _duration(raw.get(key)):
            check[key] = seconds
    if (raw.get("retries") or 0) > 0:
        check["retries"] = raw["retries"]
    if check:
        service.put("healthcheck", check)
        for key in check:
            service.add_origin(("healthcheck", key), ("healthcheck", "test" if key == "exec" else key))


def _duration(value: object) -> str | float | None:
    """Return a duration as in Compose, or None for none: `0s` means the default there."""
    if value in (None, ""):
        return None
    try:
        parse_duration(value)
    except ValueError:
        return None if re.fullmatch(r"(?:0+[a-zµ]+)+", str(value)) else str(value)
    return str(value)


def add_names(service: ServiceDraft, extra_aliases: Sequence[tuple[str, Location]], taken: set[str]) -> None:
    """Add every name by which Compose lets other services reach this one, and what it finds in `/etc/hosts`."""
    raw = service.raw
    aliases: dict[str, Location] = {}
    if service.compose_name != service.name:
        aliases[service.compose_name] = ()
    if raw.get("container_name"):
        aliases[str(raw["container_name"])] = ("container_name",)
    for network, options in service.raw_table("networks").items():
        for alias in (options or {}).get("aliases") or []:
            aliases[str(alias)] = ("networks", network, "aliases")
    if raw.get("domainname"):
        aliases[f"{raw.get('hostname') or service.compose_name}.{raw['domainname']}"] = ("domainname",)
    for alias, location in aliases.items():
        if alias == service.name or alias in taken:
            continue
        if not is_host_name(alias):
            service.note(f"{alias} is not a host name", *location)
            continue
        service.table.setdefault("aliases", []).append(alias)
        service.add_origin(("aliases",), location)
    for alias, origin in extra_aliases:
        if alias != service.name and alias not in taken and alias not in service.table.get("aliases", []):
            service.table.setdefault("aliases", []).append(alias)
            service.draft.origins.setdefault(("services", service.name, "aliases"), origin)
    for index, entry in enumerate(service.raw_list("extra_hosts")):
        host, _, address = re.sub(r"^([^:=]+)[:=]", r"\1=", str(entry)).partition("=")
        if address == "host-gateway":
            service.ask_host(f"{host}, which is the host itself (extra_hosts)", "extra_hosts")
        else:
            service.put_entry("extra_hosts", host, address.strip("[]"), "extra_hosts", index)


def add_watch(service: ServiceDraft, project_paths: Mapping[str, str]) -> None:
    """Add `develop.watch` as what the development environment does when files change."""
    rules = []
    for entry in service.raw_table("develop").get("watch") or []:
        path = project_paths.get(str(entry.get("path")))
        if path is None:
            service.note(f"{entry.get('path')} is outside of the project, and not watched", "develop", "watch")
            continue
        action = str(entry.get("action"))
        command = [str(word) for word in (entry.get("exec") or {}).get("command") or []]
        rule: dict[str, Any] = {"paths": [path]}
        rule["action"] = {"rebuild": "rebuild", "restart": "restart", "sync+restart": "restart"}.get(action, "sync")
        if action == "sync+exec" and command:
            rule["action"] = command
        if entry.get("ignore"):
            rule["ignore"] = [f"{path}/{name}" if path != "." else str(name) for name in entry["ignore"]]
        if entry.get("include"):
            service.note("every file below the path counts", "develop", "watch")
        if entry.get("target") and action.startswith("sync"):
            rule["target"] = str(entry["target"]).rstrip("/")
        rules.append(rule)
    if not rules:
        return
    dev = service.table.setdefault("dev", {})
    if source := dev.get("source"):
        for rule in rules:
            if str(rule.get("target", "")).startswith(source):
                del rule["target"]
    else:
        dev["sync"] = False
    dev["on_change"] = rules
    service.add_origin(("dev", "on_change"), ("develop", "watch"))
