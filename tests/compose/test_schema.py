"""Test that each key of the published Compose schema is carried, noted, a rule or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.compose.plugin import find_plugin
from lyra_tasks.compose.sources import read_yaml_file
from lyra_tasks.compose.translation import keys
from tests.compose.samples import COMPOSE_FILES, NAMES, walk_keys, write_sample

TABLES = (keys.CARRIED, keys.RESOLVED, keys.NOTED, keys.HOST_ACCESS, keys.REFUSED)
NOT_IN_OLDER_PLUGINS = {
    # Compose 2.26 refuses them, so that no sample can have them
    "configs.*.external.name", "networks.*.enable_ipv4", "networks.*.external.name", "secrets.*.external.name",
    "services.*.build.provenance", "services.*.build.sbom", "services.*.env_file.[].format",
    "services.*.develop.watch.[].include", "services.*.develop.watch.[].initial_sync",
    "services.*.gpus", "services.*.models", "services.*.networks.*.gw_priority",
    "services.*.networks.*.interface_name", "services.*.post_start", "services.*.pre_stop", "services.*.provider",
    "services.*.pull_refresh_after", "services.*.use_api_socket", "services.*.volumes.[].bind.recursive",
    "services.*.volumes.[].image", "services.*.volumes.[].volume.labels",
    "services.*.label_file", "services.*.develop.watch.[].exec", "models",
    "volumes.*.external.name", *(f"services.*.devices.[].{key}" for key in ("source", "target", "permissions")),
}  # fmt: skip
RARE = {
    # they need a driver, Swarm or Windows
    "secrets.*.driver", "secrets.*.driver_opts", "secrets.*.template_driver", "services.*.scale",
}  # fmt: skip


def read_schema() -> dict[str, Any]:
    """Return the schema that the Compose plugin at hand validates with: it is embedded in the program as it is."""
    data = find_plugin().program.read_bytes()
    start = data.rindex(b"{", 0, data.index(b'"$id": "compose_spec.json"'))
    schema: dict[str, Any] = json.JSONDecoder().raw_decode(data[start : start + 500_000].decode(errors="replace"))[0]
    return schema


def list_schema_keys(schema: dict[str, Any]) -> set[str]:
    definitions = schema.get("definitions") or schema["$defs"]

    def walk(part: dict[str, Any], path: str, seen: tuple[str, ...]) -> Iterator[str]:
        if "$ref" in part:
            name = part["$ref"].rpartition("/")[2]
            if name not in seen:
                yield from walk(definitions[name], path, (*seen, name))
            return
        for branch in (*part.get("oneOf", ()), *part.get("anyOf", ()), *part.get("allOf", ())):
            yield from walk(branch, path, seen)
        for key, value in part.get("properties", {}).items():
            yield f"{path}.{key}".lstrip(".")
            yield from walk(value, f"{path}.{key}", seen)
        for pattern, value in part.get("patternProperties", {}).items():
            yield from walk(value, f"{path}.*", seen) if not pattern.startswith("^x-") else ()
        for keyword, name in (("additionalProperties", "*"), ("items", "[]")):
            if isinstance(part.get(keyword), dict):
                yield from walk(part[keyword], f"{path}.{name}", seen)

    return set(walk(schema, "", ()))


@pytest.fixture(scope="module")
def schema_keys(compose_plugin: None) -> set[str]:
    return list_schema_keys(read_schema())


def test_every_key_has_a_treatment(schema_keys: set[str]) -> None:
    assert len(schema_keys) > 300
    assert sorted(key for key in schema_keys if not keys.treatment_of(key)) == []


@pytest.mark.slow
@pytest.mark.thorough
def test_every_key_of_newest_compose_has_a_treatment(newest_compose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(newest_compose))
    newest_keys = list_schema_keys(read_schema())
    assert newest_keys > {"services.*.env_file.[].format", "services.*.post_start", "models"}
    test_every_key_has_a_treatment(newest_keys)


def test_no_key_has_two_treatments() -> None:
    names = [key for table in TABLES for key in table]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_every_treated_key_is_in_the_schema(schema_keys: set[str]) -> None:
    known = schema_keys | NOT_IN_OLDER_PLUGINS
    treated = {key for table in TABLES for key in table}
    assert sorted(key for key in treated - known if keys.parent_of(key) not in NOT_IN_OLDER_PLUGINS) == []


def test_samples_have_every_key(schema_keys: set[str], tmp_path: Path) -> None:
    written: set[str] = set()
    for name in NAMES:
        root = write_sample(name, tmp_path)
        files = [*root.rglob("*.yaml"), *root.rglob("*.yml")]
        for file in files:
            if "prometheus" not in file.name and "grafana" not in str(file.parent):
                written |= {to_pattern(path) for path, _ in walk_keys(dict(read_yaml_file(file).value))}
    assert COMPOSE_FILES.keys() <= set(NAMES)
    missing = {key for key in schema_keys - written if not _is_below(key, NOT_IN_OLDER_PLUGINS | RARE)}
    assert sorted(missing) == []


def _is_below(key: str, parents: set[str]) -> bool:
    return key in parents or any(key.startswith(f"{parent}.") for parent in parents)


def to_pattern(path: tuple[str | int, ...]) -> str:
    """Return the path in the schema of a key in a Compose file."""
    parts: list[str] = []
    for index, part in enumerate(path):
        is_name = index == 1 and path[0] in {"services", "networks", "volumes", "secrets", "configs"}
        is_name |= index >= 3 and path[index - 1] in {"networks", "depends_on", "ulimits"}
        parts.append("[]" if isinstance(part, int) else "*" if is_name else str(part))
    return ".".join(parts)
