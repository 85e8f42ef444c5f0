"""Test a configuration with every key, its effective values, the keys that variables override, and all patterns."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import Any

import pytest

from lyra_tasks.config.load import load_config, load_partial_config
from lyra_tasks.config.models import TEST_KINDS, Configuration
from lyra_tasks.config.show import HIDDEN_VALUE, list_settings
from lyra_tasks.config.validation.positions import Location
from lyra_tasks.config.validation.pydantic_errors import PATTERN_DESCRIPTIONS, known_keys
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.results import to_document
from lyra_tasks.units import DURATION_PATTERN, SIZE_PATTERN
from tests.config.conftest import MINIMAL, Project

EVERY_KEY = """\
schema = 1

[project]
name = "guestbook"
description = "A guestbook"
source = "https://example.org/guestbook"
licenses = "Apache-2.0"

[proxima]
platforms = ["linux/amd64"]
min_engine = "20.10"
cpus = 4
memory = "8g"
max_image_size = "400m"

[compose]
files = []
profiles = ["web"]
ignore = ["mailpit"]

[engine]
context = "default"
sandbox = "auto"
suite = "trixie"

[bases.python]
image = "python:3.12-slim-bookworm"
archive = "web/python.tar"
rootfs = { suite = "bookworm", packages = ["python3", "netbase"], variant = "minbase" }

[images.web]
context = "web"
dockerfile = "Dockerfile"
target = "runtime"
dev_target = "dev"
args = { MODE = "fast" }
secrets = { npm = "web/npmrc" }
bases = { "python:3.12" = "python" }
platforms = ["linux/amd64"]

[services.web]
image = "web"
command = ["serve", "--port", "8000"]
entrypoint = "/bin/serve"
user = "10001:10001"
working_dir = "/srv"
ports = { http = 8000, admin = 8001 }
publish = { http = "0.0.0.0:80" }
depends_on = ["counter"]
oneshot = false
promote = true
limits = { cpus = 0.5, memory = "128m", pids = 64, disk = "64m" }
read_only = true
tmpfs = { "/run" = "1m" }
egress = false
cap_add = ["NET_BIND_SERVICE"]
stop_signal = "SIGINT"
stop_grace_period = "30s"
start_timeout = "2m"
init = false
hostname = "front"
aliases = ["www"]
extra_hosts = { "db.example" = "10.0.0.5", v6 = "fd00::5" }
ulimits = { nofile = 4096, nproc = { soft = 64, hard = -1 } }
shm_size = "16m"
sysctls = { "net.core.somaxconn" = 1024, "kernel.sem" = "250 32000 100 128" }
group_add = ["video", "44"]
host_access = ["/dev/video0"]
healthcheck = { http = "GET /health", interval = "500ms", timeout = 2, retries = 3, start_period = "1m30s" }
dev = { command = "serve --reload", egress = false, read_only = true, source = "/srv", limits = { cpus = 1 } }

[services.web.environment]
GREETING = { default = "hello", test_value = "hi", description = "first line", required = true, pattern = "[a-z]+" }
ADMIN_TOKEN = { secret = true, test_value = "hunter2", description = "token for /admin" }

[services.web.secrets.session_key]
path = "/run/secrets/session_key"
description = "signs the session cookie"
test_value = '''
hunter2
'''

[services.web.volumes.data]
path = "/data"
description = "the SQLite file"
size = "64m"
owner = "10001:10001"

[services.web.volumes.deep]
path = "/data/deep"

[services.web.configs.site]
path = "/data/site.toml"
source = "web/site.toml"
description = "title and theme"

[services.counter]
image = "redis:7"
platform = "linux/amd64"
ports = { redis = 6379 }
healthcheck = { tcp = "redis" }

[[tests]]
name = "front page greets"
service = "web"
timeout = "3s"
http = "POST /greet?x=1"
status = 201
body = "hello"
json = { a = [1, { b = 2 }] }
headers = { Authorization = "Bearer hunter2" }
send = "name=ada"

[[tests]]
name = "a command"
service = "web"
exec = ["true"]
exit_code = 0
output = "ok"

[[tests]]
name = "a port"
service = "counter"
tcp = 6379

[[tests]]
name = "a line"
service = "web"
log = "listening on \\\\d+"

[[tests]]
name = "our own suite"
run = "make check"
retry = 2

[[tests]]
name = "api"
pytest = "web"

[[tests]]
name = "js"
junit = { run = "make js", file = "js.xml" }

[promotion]
directory = "promotion"
keep_snapshots = 3
compression = "gzip"
sbom = "syft"
sign = { key = "release.key", identity = "ada" }

[release]
tag = "web/v{version}"
branches = ["main"]
require_tests = true
fresh_tests = true

[[tests]]
name = "unit"
image = "web"
stage = "test"
group = "image"

[[tests]]
name = "structure"
image = "web"
structure = "web/site.toml"

[builder]
name = "shared"
cache_from = ["type=registry,ref=registry.example/cache:{image}"]
cache_to = ["type=local,dest=.lyra/cache/{image}"]

[scan]
tool = "grype"
database = "grype-db"
fail_on = "critical"
max_age_days = 3

[resources]
host_share = 0.5
keep_runs = 10
keep_tests = 40
evidence = "2g"
keep_images = 2
journal = "16m"
keep_cached = 7
cache = "5g"

[[deviations]]
rule = "container.read-only-root"
scope = "services.web"
reason = "the start script writes"
owner = "ada"
expires = 2027-03-31
"""


def line_with(text: str) -> int:
    """Return the line of the full configuration that begins with a text."""
    return next(number for number, line in enumerate(EVERY_KEY.split("\n"), 1) if line.startswith(text))


def test_configuration_with_all_keys_is_valid(project: Project) -> None:
    root = project(EVERY_KEY)
    loaded = load_config()
    config = loaded.config
    assert (loaded.root, loaded.file) == (root, root / ".lyra.toml")
    assert config.proxima.memory == 8 * 1024**3
    assert config.services["web"].http_port == 8000
    assert config.services["counter"].http_port == 6379
    assert config.services["web"].healthcheck is not None
    assert config.services["web"].healthcheck.interval == 0.5
    assert config.services["web"].healthcheck.start_period == 90
    kinds = ["http", "exec", "tcp", "log", "run", "pytest", "junit", "stage", "structure"]
    assert [test.kind for test in config.tests] == kinds
    assert config.tests[0].json_ == {"a": [1, {"b": 2}]}
    assert config.deviations[0].expires == datetime.date(2027, 3, 31)
    assert loaded.key_lines["services", "web", "environment", "ADMIN_TOKEN"] == line_with("ADMIN_TOKEN")


def test_full_configuration_has_every_key(project: Project) -> None:
    project(EVERY_KEY)
    written = {_pattern(location) for location in load_config().key_lines}
    known = {_pattern((*table, key)) for table in _tables() for key in known_keys(table)}
    assert known - written == set()


def _tables() -> list[Location]:
    """Return the location of one table of each kind."""
    named_tables = [(name, "any") for name in ("bases", "images", "services")]
    return (
        [(name,) for name in known_keys(()) if known_keys((name,))] + named_tables + [("tests", 0), ("deviations", 0)]
    )


def _pattern(location: Location) -> str:
    """Return a location with `*` for names and indexes that users choose."""
    opened = location[0] in {"bases", "images", "services", "tests", "deviations"}
    return ".".join("*" if opened and index == 1 else str(part) for index, part in enumerate(location))


def test_every_pattern_has_a_description() -> None:
    def patterns(schema: Any) -> Iterator[str]:
        if isinstance(schema, dict):
            yield from (value for key, value in schema.items() if key == "pattern" and isinstance(value, str))
            for key, value in schema.items():
                yield from patterns(value)
                yield from schema[key] if key == "patternProperties" else ()
        elif isinstance(schema, list):
            for value in schema:
                yield from patterns(value)

    parsed = {SIZE_PATTERN, DURATION_PATTERN}  # the parsers have their own messages
    assert set(patterns(Configuration.model_json_schema())) - parsed == set(PATTERN_DESCRIPTIONS)


@pytest.mark.parametrize("kind", TEST_KINDS)
def test_every_check_kind_is_a_key(kind: str) -> None:
    assert kind in known_keys(("tests", 0))


def test_effective_values_have_origin(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project(EVERY_KEY)
    monkeypatch.setenv("LYRA_HOST_SHARE", "0.25")
    settings = {setting.key: (setting.value, setting.origin) for setting in list_settings(load_config())}
    assert settings["project.name"] == ("guestbook", f".lyra.toml:{line_with('name = ')}")
    assert settings["proxima.memory"] == ("8g", f".lyra.toml:{line_with('memory')}")
    assert settings["engine.context"] == ("default", f".lyra.toml:{line_with('context = ')}")
    assert settings['services.web.tmpfs."/run"'] == ("1m", f".lyra.toml:{line_with('tmpfs')}")
    assert settings["services.counter.limits.memory"] == ("256m", "default")
    assert settings["services.web.limits.disk"] == ("64m", f".lyra.toml:{line_with('limits')}")
    assert settings["resources.host_share"] == (0.25, "env LYRA_HOST_SHARE")
    assert settings["tests[0].json"] == ({"a": [1, {"b": 2}]}, f".lyra.toml:{line_with('json')}")
    assert settings["deviations[0].expires"] == ("2027-03-31", f".lyra.toml:{line_with('expires')}")
    assert "services.web.platform" not in settings


def test_effective_values_hide_secrets(project: Project) -> None:
    project(EVERY_KEY)
    settings = list_settings(load_config())
    text = json.dumps(to_document(settings))
    assert "hunter2" not in text
    hidden = [setting.key for setting in settings if setting.value == HIDDEN_VALUE]
    assert hidden == [
        "services.web.environment.GREETING.test_value",
        "services.web.environment.ADMIN_TOKEN.test_value",
        "services.web.secrets.session_key.test_value",
        "tests[0].headers.Authorization",
    ]


def test_valid_part_is_loaded_without_invalid_keys(project: Project) -> None:
    project(EVERY_KEY.replace("min_engine", "max_engine"))
    loaded = load_partial_config()
    assert loaded.error is not None
    assert [line.split(": ")[1] for line in loaded.error.details] == ["proxima.max_engine"]
    assert loaded.config.project.name == "guestbook"
    assert loaded.config.proxima.cpus == 4


@pytest.mark.parametrize("key", ["name", "sandbox"])
def test_invalid_project_or_engine_is_always_refused(project: Project, key: str) -> None:
    project(EVERY_KEY.replace(f"{key} = ", f"{key}x = ", 1))
    with pytest.raises(ConfigurationError):
        load_partial_config()


def test_environment_overrides_file(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project(MINIMAL + "[resources]\nhost_share = 0.5\n")
    monkeypatch.setenv("LYRA_HOST_SHARE", "0.25")
    loaded = load_config()
    assert loaded.config.resources.host_share == 0.25
    assert loaded.overrides == {("resources", "host_share"): "LYRA_HOST_SHARE"}


def test_empty_variable_overrides_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project(MINIMAL)
    monkeypatch.setenv("LYRA_HOST_SHARE", "")
    assert load_config().config.resources.host_share == 0.75


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2", "must be at most 1, found 2.0"),
        ("half", "must be a number, found a string"),
        ("nan", "must be a finite number"),
    ],
)
def test_invalid_override_names_variable(
    project: Project, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    project(MINIMAL)
    monkeypatch.setenv("LYRA_HOST_SHARE", value)
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert caught.value.details == (f"LYRA_HOST_SHARE: {message}",)


def test_builder_is_overridden_by_environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project(MINIMAL)
    monkeypatch.setenv("LYRA_BUILDER", "other")
    loaded = load_config()
    assert loaded.config.builder.name == "other"
    assert loaded.overrides == {("builder", "name"): "LYRA_BUILDER"}
