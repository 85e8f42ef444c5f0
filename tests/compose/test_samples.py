"""Compare the model of each sample project, key by key, with what `docker compose config` says of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.compose.stand_ins import SHARED_TEST_VALUE
from lyra_tasks.compose.translation import keys
from lyra_tasks.compose.translation.names import make_name
from lyra_tasks.config.load import LoadedConfig, load_config
from lyra_tasks.config.models import Service
from lyra_tasks.scaffold.plan import plan_init
from lyra_tasks.scaffold.project_files import inspect_project
from lyra_tasks.scaffold.run import write_init_files
from lyra_tasks.units import parse_duration
from tests.compose.samples import COMPOSE_FILES, NAMES, NEWEST, ask_compose, walk_keys, write_sample
from tests.compose.test_schema import to_pattern
from tests.thorough import THOROUGH

pytestmark = pytest.mark.slow

NAMED_ON_INIT = {name: COMPOSE_FILES[name] for name in ("compose-elsewhere", "directory-below")}
LEFT_OUT = {
    "build-impossible": {"inline", "remote", "extra", "above"},
    "go-services": {"orders", "payments"},
    "inline-config": {"theirs"},
    "inline-monitoring": {"tailnet"},
    "other-containers": {"sidecar", "linked", "windows", "registry", "config", "hyper"},
    "swarm": {"gone"},
    "mounts": set(),
    NEWEST: {"ai", "hooks", "image", "provided"},
}


@pytest.fixture(params=[*NAMES, pytest.param(NEWEST, marks=THOROUGH)])
def sample(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """Return a sample after `init`."""
    name = str(request.param)
    for variable in ("COMPOSE_FILE", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME", "LYRA_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    if name == NEWEST:
        monkeypatch.setenv("DOCKER_CONFIG", str(request.getfixturevalue("newest_compose")))
    root = write_sample(name, tmp_path)
    monkeypatch.chdir(root)
    write_init_files(plan_init(inspect_project(root, NAMED_ON_INIT.get(name, ()))), root)
    return name, root


def test_model_is_what_compose_says(sample: tuple[str, Path]) -> None:
    name, root = sample
    loaded = load_config()  # no draft is refused
    assert loaded.compose is not None
    profiles = tuple(loaded.config.compose.profiles or ("web" if name == "several-files" else "").split() or ())
    document = ask_compose(name, root, profiles)
    left_out = LEFT_OUT.get(name, set())
    assert set(loaded.config.compose.ignore) | ({"gone"} & left_out) == left_out
    services = {key: value for key, value in document["services"].items() if key not in left_out}
    assert len(loaded.config.services) == len(services)
    noted = {finding.location for finding in loaded.compose.findings}
    lost = []
    for service_name, raw in services.items():
        service = loaded.config.services[make_name(service_name)]
        for path, value in walk_keys(raw):
            if value not in (None, "", [], {}, False) and not _is_told(service_name, path, value, noted, service):
                compare = COMPARISONS.get(_top_pattern(path)) or _BY_TABLE.get(path[:-1])
                if compare is None or not compare(value, service, Context(loaded, document, service_name, path, root)):
                    lost.append((service_name, path, value))
    assert lost == []


class Context:
    def __init__(
        self, loaded: LoadedConfig, document: Mapping[str, Any], name: str, path: tuple[str | int, ...], root: Path
    ) -> None:
        self.loaded, self.document, self.name, self.path, self.root = loaded, document, name, path, root


def _top_pattern(path: tuple[str | int, ...]) -> str:
    return to_pattern(("services", "x", *path)).removeprefix("services.*.")


def _is_told(
    name: str, path: tuple[str | int, ...], value: Any, noted: set[tuple[str | int, ...]], service: Service
) -> bool:
    """Return whether a key is in a table of its own, has a note, or is asked of the host."""
    location = ("services", name, *path)
    if any(location[: len(place)] == place and len(place) > 2 for place in noted):
        return True
    pattern = to_pattern(location)
    treatment = keys.treatment_of(pattern) or keys.treatment_of(pattern.removesuffix(".[]"))
    if treatment == "host access":
        return bool(service.host_access) or value in ("none", "private") or str(value).startswith("no-new-privileges")
    return treatment == "resolved" or (treatment == "noted" and _is_written_by_compose(pattern, value))


def _is_written_by_compose(pattern: str, value: Any) -> bool:
    """Return whether Compose writes a value that nobody has given, or one without a meaning."""
    return (pattern, value) in {
        ("services.*.ports.[].mode", "ingress"), ("services.*.volumes.[].bind.create_host_path", True),
        ("services.*.deploy.replicas", 1), ("services.*.deploy.mode", "replicated"),
    } or pattern == "services.*.depends_on.*.restart"  # fmt: skip


def _targets(service: Service) -> set[str]:
    tables: tuple[Mapping[str, Any], ...] = (service.volumes, service.configs, service.secrets)
    paths = {entry.path for table in tables for entry in table.values()} | set(service.tmpfs)
    return paths | ({service.dev.source} if service.dev and service.dev.source else set())


def _has_mount(value: Any, service: Service, context: Context) -> bool:
    target = str(context.document["services"][context.name]["volumes"][context.path[1]]["target"])
    is_asked = any(f" at {target}:" in request for request in service.host_access)
    below = any(path.startswith(f"{target}/") for path in _targets(service))
    return target in _targets(service) or is_asked or below


def _has_variable(value: Any, service: Service, context: Context) -> bool:
    variable = service.environment[str(context.path[1])]
    known = variable.test_value if variable.test_value is not None else variable.default
    return known == str(value) or (variable.secret and SHARED_TEST_VALUE in str(known))


def _has_build(value: Any, service: Service, context: Context) -> bool:
    image = context.loaded.config.images[service.image]
    build = context.document["services"][context.name]["build"]
    key = context.path[1] if len(context.path) > 1 else ""
    if key == "context":
        return (context.root / image.context).resolve() == Path(build["context"]).resolve()
    if key == "target":
        return str(value) in (image.target, image.dev_target)
    if key == "args" and len(context.path) == 3:
        return bool(image.args[str(context.path[2])] == value)
    if key == "dockerfile":
        return bool(image.dockerfile == value)
    return True


def _has_image(value: Any, service: Service, context: Context) -> bool:
    return service.image == value or service.image in context.loaded.config.images


def _equals(key: str) -> Callable[[Any, Service, Context], bool]:
    return lambda value, service, _: bool(getattr(service, key) == value)


def _is_alias(value: Any, service: Service, context: Context) -> bool:
    return value in (*service.aliases, make_name(context.name)) or isinstance(value, dict | list)


def _is_limit(key: str) -> Callable[[Any, Service, Context], bool]:
    return lambda value, service, _: float(getattr(service.limits, key)) == float(value)


def _is_true(*_: Any) -> bool:
    return True


def _is_timing(key: str) -> Callable[[Any, Service, Context], bool]:
    def compare(value: Any, service: Service, context: Context) -> bool:
        expected = value if key == "retries" else parse_duration(value)
        return service.healthcheck is not None and getattr(service.healthcheck, key) == expected

    return compare


def _has_test(value: Any, service: Service, context: Context) -> bool:
    test = context.document["services"][context.name]["healthcheck"]["test"]
    check = service.healthcheck
    assert check is not None
    if "NONE" in test:
        return check.disable
    command = check.exec if isinstance(check.exec, list) else [check.exec]
    return [str(part).strip() for part in command] == [part.strip() for part in test[1:]]


def _has_watch(value: Any, service: Service, context: Context) -> bool:
    watched = context.document["services"][context.name]["develop"]["watch"]
    assert service.dev is not None
    return isinstance(service.dev.on_change, list) and len(service.dev.on_change) == len(watched)


def _has_port(value: Any, service: Service, context: Context) -> bool:
    port = context.document["services"][context.name]["ports"][context.path[1]]
    number = int(port["target"])
    return (f"{number}/udp" if port["protocol"] == "udp" else number) in service.ports.values()


def _is_published(value: Any, service: Service, context: Context) -> bool:
    port = context.document["services"][context.name]["ports"][context.path[1]]
    number = f"{port['target']}/udp" if port["protocol"] == "udp" else int(port["target"])
    name = next(name for name, known in service.ports.items() if known == number)
    host, _, published = service.default_publish_address(name).rpartition(":")
    expected = str(port.get("published") or port["target"]).partition("-")[0]
    return (published, host.strip("[]")) == (expected, port.get("host_ip") or "127.0.0.1")


def _has_exposed(value: Any, service: Service, context: Context) -> bool:
    first, _, last = str(value).partition("/")[0].partition("-")
    known = {int(str(port).partition("/")[0]) for port in service.ports.values()}
    return set(range(int(first), int(last or first) + 1)) <= known


def _is_missing(context: Context) -> bool:
    """Return whether a service is left out, or of no active profile."""
    return make_name(str(context.path[1])) not in context.loaded.config.services


def _has_link(value: Any, service: Service, context: Context) -> bool:
    target, _, alias = str(value).partition(":")
    other = context.loaded.config.services[make_name(target)]
    return make_name(target) in service.depends_on and (not alias or alias in other.aliases)


COMPARISONS: dict[str, Callable[[Any, Service, Context], bool]] = {
    **{key: _equals(key) for key in ("working_dir", "hostname", "init", "read_only", "stop_signal", "user")},
    **{f"{key}.[]": lambda v, s, c: v in getattr(s, str(c.path[0])) for key in ("command", "entrypoint", "group_add")},
    **dict.fromkeys(
        ("command", "entrypoint", "group_add", "cap_add", "environment", "ports", "expose", "volumes", "secrets",
         "configs", "networks", "depends_on", "healthcheck", "deploy", "deploy.resources", "deploy.resources.limits",
         "ulimits", "sysctls", "extra_hosts", "links", "tmpfs", "develop", "healthcheck.test", "volumes.[].volume",
         "security_opt", "deploy.placement", "deploy.resources.reservations"), _is_true),
    "cap_add.[]": lambda v, s, _: str(v).removeprefix("CAP_") in s.cap_add,
    "platform": lambda v, s, c: v == s.platform or v in c.loaded.config.images[s.image].platforms,
    "image": _has_image,
    "stop_grace_period": lambda v, s, _: s.stop_grace_period == parse_duration(v),
    "shm_size": lambda v, s, _: s.shm_size == int(v),
    "container_name": _is_alias,
    "networks.*": _is_alias, "networks.*.aliases": _is_alias, "networks.*.aliases.[]": _is_alias,
    "domainname": lambda v, s, _: f"{s.hostname}.{v}" in s.aliases,
    "links.[]": _has_link,
    "extra_hosts.[]": lambda v, s, _: "host-gateway" in str(v)
    or re.split("[=:]", str(v), maxsplit=1)[1].strip("[]") in s.extra_hosts.values(),
    "sysctls.net.core.somaxconn": lambda v, s, _: str(s.sysctls["net.core.somaxconn"]) == str(v),
    "ulimits.*": lambda v, s, c: isinstance(v, dict) or s.ulimits[str(c.path[1])] == v,
    "ulimits.*.soft": lambda v, s, c: s.ulimits[str(c.path[1])].soft == v,  # type: ignore[union-attr]
    "ulimits.*.hard": lambda v, s, c: s.ulimits[str(c.path[1])].hard == v,  # type: ignore[union-attr]
    "depends_on.*": lambda v, s, c: make_name(str(c.path[1])) in s.depends_on or _is_missing(c),
    "depends_on.*.condition": lambda v, s, c: _is_missing(c)
    or c.loaded.config.services[make_name(str(c.path[1]))].oneshot is (v == "service_completed_successfully"),
    "depends_on.*.required": _is_true,
    "cpus": _is_limit("cpus"), "deploy.resources.limits.cpus": _is_limit("cpus"), "cpu_count": _is_limit("cpus"),
    "cpu_quota": lambda v, s, c: s.limits.cpus == v / c.document["services"][c.name].get("cpu_period", 100_000),
    "cpu_period": _is_true,
    "mem_limit": _is_limit("memory"), "deploy.resources.limits.memory": _is_limit("memory"),
    "pids_limit": _is_limit("pids"), "deploy.resources.limits.pids": _is_limit("pids"),
    **{f"healthcheck.{key}": _is_timing(key) for key in ("interval", "timeout", "start_period", "retries")},
    "healthcheck.test.[]": _has_test,
    "healthcheck.disable": lambda v, s, _: s.healthcheck is not None and s.healthcheck.disable,
    **dict.fromkeys(("ports.[]", "ports.[].target", "ports.[].protocol", "ports.[].name"), _has_port),
    **dict.fromkeys(("ports.[].published", "ports.[].host_ip"), _is_published),
    "expose.[]": _has_exposed,
    **dict.fromkeys(
        ("volumes.[]", "volumes.[].type", "volumes.[].source", "volumes.[].target", "volumes.[].bind",
         "volumes.[].tmpfs", "volumes.[].tmpfs.size", "volumes.[].read_only"), _has_mount),
    "tmpfs.[]": lambda v, s, _: str(v).partition(":")[0] in s.tmpfs or v == "/tmp",
    **dict.fromkeys(("secrets.[]", "configs.[]", "volumes_from"), _is_true),
    "volumes_from.[]": lambda v, s, c: _targets(c.loaded.config.services[str(v).partition(":")[0]]) <= _targets(s),
    **dict.fromkeys(("secrets.[].source", "configs.[].source"), _is_true),
    "secrets.[].target": lambda v, s, _: any(str(v) in entry.path for entry in s.secrets.values()),
    "configs.[].target": lambda v, s, _: any(str(v) in entry.path for entry in s.configs.values()),
    **dict.fromkeys(
        ("build", "build.context", "build.dockerfile", "build.target", "build.args", "build.platforms",
         "build.platforms.[]", "build.secrets", "build.secrets.[]", "build.secrets.[].source",
         "build.secrets.[].target"), _has_build),
    **dict.fromkeys((f"develop.watch{key}" for key in ("", ".[]", ".[].path", ".[].action", ".[].target", ".[].ignore",
                                                       ".[].ignore.[]", ".[].exec")), _has_watch),
}  # fmt: skip


_BY_TABLE: dict[tuple[str | int, ...], Callable[[Any, Service, Context], bool]] = {
    ("environment",): _has_variable,
    ("build", "args"): _has_build,
}


def test_every_sample_is_listed_once() -> None:
    assert len(NAMES) >= 40
    assert {*COMPOSE_FILES, *LEFT_OUT} <= {*NAMES, NEWEST}
