"""Test that every command sees the Compose project as it is, under what `.lyra.toml` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.config.load import LoadedConfig, load_config, load_partial_config
from lyra_tasks.config.show import list_settings
from lyra_tasks.errors import ConfigurationError, PreconditionError
from tests.compose.conftest import WriteProject

HEAD = 'schema = 1\n[project]\nname = "shop"\n'
FILES = {
    ".lyra.toml": HEAD,
    "Dockerfile": "FROM scratch\nUSER 1:1\n",
    ".dockerignore": ".lyra\npromotion\n",
}
WEB = """\
services:
  web:
    build: .
    ports: ["8000:8000"]
    environment:
      # who is greeted
      NAME: ${NAME:-world}
    depends_on: [cache]
  cache:
    image: redis:7
"""


def origins(loaded: LoadedConfig) -> dict[str, tuple[Any, str]]:
    return {setting.key: (setting.value, setting.origin) for setting in list_settings(loaded)}


def test_compose_file_is_the_configuration(write_project: WriteProject) -> None:
    write_project(WEB, FILES)
    loaded = load_config()
    web, cache = loaded.config.services["web"], loaded.config.services["cache"]
    assert (web.image, web.ports, web.depends_on, cache.image) == ("web", {"http": 8000}, ["cache"], "redis:7")
    assert loaded.config.images["web"].context == "."
    name = web.environment["NAME"]
    assert (name.default, name.description, name.required) == ("world", "who is greeted", False)


def test_lyra_toml_wins_key_by_key(write_project: WriteProject) -> None:
    override = """
        [services.web]
        ports = { metrics = 9090 }
        limits = { memory = "64m" }
        [services.web.environment.NAME]
        default = "you"
    """
    write_project(WEB, FILES | {".lyra.toml": HEAD + override})
    loaded = load_config()
    web = loaded.config.services["web"]
    assert web.ports == {"http": 8000, "metrics": 9090}
    assert (web.environment["NAME"].default, web.environment["NAME"].description) == ("you", "who is greeted")
    values = origins(loaded)
    assert values["services.web.ports.http"] == (8000, "compose.yaml:4")
    assert values["services.web.ports.metrics"] == (9090, ".lyra.toml:6")
    assert values["services.web.limits.memory"] == ("64m", ".lyra.toml:7")
    assert values["services.web.limits.pids"] == (128, "default")
    assert values["services.web.user"] == ("", "image")


def test_name_and_watched_paths_have_their_origin(write_project: WriteProject, monkeypatch: pytest.MonkeyPatch) -> None:
    text = WEB + "    develop: {watch: [{path: ., action: restart, ignore: [a]}]}\n"
    root = write_project(f"name: inn\n{text}", FILES | {".lyra.toml": "schema = 1\n"})
    values = origins(load_config())
    assert values["project.name"] == ("inn", "compose.yaml:1")
    assert values["services.cache.dev.on_change[0].action"] == ("restart", "compose.yaml:12")
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "tavern")
    assert origins(load_config())["project.name"] == ("tavern", "env COMPOSE_PROJECT_NAME")
    (root / ".lyra.toml").write_text('schema = 1\n[project]\nname = "bar"\n')
    assert origins(load_config())["project.name"] == ("bar", ".lyra.toml:3")


def test_changed_compose_file_changes_the_next_command(
    write_project: WriteProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_project(WEB, FILES)
    load_config()
    monkeypatch.setattr("lyra_tasks.compose.project.read_project", None)  # an unchanged project is not read again
    assert load_config().config.services["cache"].image == "redis:7"
    monkeypatch.undo()
    monkeypatch.chdir(root)
    (root / "compose.yaml").write_text(WEB.replace("redis:7", "valkey/valkey:8"))
    assert load_config().config.services["cache"].image == "valkey/valkey:8"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("compose.override.yaml", "services: {cache: {image: 'redis:8'}}\n"),
        (".env", "COMPOSE_FILE=other.yaml\n"),
        ("docker/redis.conf", "save 60 1\n"),
    ],
)
def test_new_file_is_noticed(write_project: WriteProject, name: str, text: str) -> None:
    root = write_project(
        WEB + "    volumes: ['./docker:/etc/redis:ro']\n",
        FILES | {"other.yaml": WEB.replace("redis:7", "redis:8"), "docker/a.conf": ""},
    )
    before = load_config()
    (root / name).write_text(text)
    after = load_config()
    assert before.config.services != after.config.services
    assert before.digest != after.digest


def test_problem_has_the_place_in_the_compose_file(write_project: WriteProject) -> None:
    write_project(WEB.replace("image: redis:7", "image: redis:7\n    hostname: bad_!"), FILES)
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    (detail,) = caught.value.details
    assert detail.startswith('compose.yaml:11: services.cache.hostname: "bad_!" is not a host name')


def test_broken_compose_file_leaves_what_stops_things(write_project: WriteProject) -> None:
    write_project("services:\n  web: [\n", FILES)
    loaded = load_partial_config()
    assert loaded.config.project.name == "shop"
    assert loaded.error is not None
    assert loaded.error.message.startswith("compose.yaml:")


def test_refusal_of_compose_is_shown_with_its_reason(write_project: WriteProject) -> None:
    write_project("services:\n  web:\n    imgae: redis\n", FILES)
    with pytest.raises(ConfigurationError, match=r"Docker Compose [0-9.]+ refuses the project: .*imgae"):
        load_config()


def test_missing_plugin_is_a_precondition(
    write_project: WriteProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_project(WEB, FILES)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(PreconditionError, match="Docker Compose not found") as caught:
        load_config()
    assert "engine.up" in caught.value.hint


def test_no_files_means_no_compose_project(write_project: WriteProject) -> None:
    write_project(WEB, FILES | {".lyra.toml": HEAD + "[compose]\nfiles = []\n"})
    assert load_config().config.services == {}
