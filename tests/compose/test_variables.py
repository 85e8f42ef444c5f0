"""Test where the values of variables come from, and what is kept of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lyra_tasks.compose.stand_ins import SHARED_TEST_VALUE
from lyra_tasks.compose.variables import interpolate, read_env_file, write_env_file
from lyra_tasks.config.load import load_config
from lyra_tasks.errors import ConfigurationError
from tests.compose.conftest import WriteProject
from tests.compose.test_reading import FILES, HEAD

VALUES = {"SET": "x", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$SET ${SET} $$SET", "x x $SET"),
        ("${NONE:-a}${NONE-b}${EMPTY:-c}${EMPTY-d}", "abc"),
        ("${SET:+yes}${SET+yes}${EMPTY:+no}${NONE+no}", "yesyes"),
        ("${NONE:-${SET}:8}", "x:8"),
        ("${NONE}${NONE:?why}", ""),
        ("cost: 5$", "cost: 5$"),
    ],
)
def test_text_is_interpolated_as_in_compose(text: str, expected: str) -> None:
    assert interpolate(text, VALUES).text == expected


def test_env_file_is_read_with_comments_quotes_and_references(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# what it is called\nA=one # remark\nexport B='$A'\nC=\"two\\nlines ${A}\"\nD=${A}/x\nE: yaml\n#F=no\nG=\n"
        'PEM="-----BEGIN\nabc==\n-----END"\ndiscovery.type=single-node\n'
    )
    variables = read_env_file(tmp_path / ".env")
    assert {name: variable.value for name, variable in variables.items()} == {
        "A": "one", "B": "$A", "C": "two\nlines one", "D": "one/x", "E": "yaml", "G": "",
        "PEM": "-----BEGIN\nabc==\n-----END", "discovery.type": "single-node",
    }  # fmt: skip
    assert variables["A"].comment == "what it is called"
    write_env_file(tmp_path / "copy", {name: variable.value for name, variable in variables.items()})
    assert {name: entry.value for name, entry in read_env_file(tmp_path / "copy").items()}["PEM"].endswith("END")
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600


def test_env_file_decides_only_where_more_than_a_test_depends_on_it(write_project: WriteProject) -> None:
    compose = "services: {web: {image: 'redis:${TAG:-7}', environment: {NAME: '${NAME:-a}'}}}\n"
    root = write_project(compose, FILES | {".env": "NAME=b\nDB_PASSWORD=hunter2hunter2\n"})
    loaded = load_config()
    name = loaded.config.services["web"].environment["NAME"]
    assert (name.default, name.test_value) == ("a", "b")
    assert root / ".env" not in loaded.input_files
    (root / ".env").write_text("TAG=8\n")
    loaded = load_config()
    assert loaded.config.services["web"].image == "redis:8"
    assert root / ".env" in loaded.input_files
    assert root / "compose.yaml" in loaded.input_files


def test_required_secret_without_a_value_gets_the_stand_in(write_project: WriteProject) -> None:
    write_project("services: {web: {image: 'redis:7', environment: {SECRET_KEY: '${SECRET_KEY:?}'}}}\n", FILES)
    key = load_config().config.services["web"].environment["SECRET_KEY"]
    assert (key.secret, key.required, key.test_value) == (True, True, SHARED_TEST_VALUE)


def test_variables_of_the_shell_do_not_count(write_project: WriteProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAG", "of-the-shell")
    write_project("services: {web: {image: 'redis:${TAG:-7}'}}\n", FILES)
    assert load_config().config.services["web"].image == "redis:7"


def test_secrets_are_kept_nowhere_and_a_written_false_is_believed(write_project: WriteProject) -> None:
    compose = """
        services:
          web:
            image: redis:7
            environment:
              API_TOKEN: hunter2hunter2
              KEY_OF_MAP: ${KEY_OF_MAP:-legend}
    """
    override = HEAD + "[services.web.environment]\nKEY_OF_MAP = { secret = false }\n"
    root = write_project(compose, FILES | {".lyra.toml": override})
    environment = load_config().config.services["web"].environment
    assert (environment["KEY_OF_MAP"].default, environment["KEY_OF_MAP"].secret) == ("legend", False)
    assert (environment["API_TOKEN"].test_value, environment["API_TOKEN"].secret) == (SHARED_TEST_VALUE, True)
    assert "hunter2" not in (root / ".lyra" / "compose.json").read_text()


@pytest.mark.parametrize("value", ["'yes'", "'true'", "'No'", "1", "'0'", "true", "'on'"])
def test_switch_is_no_secret_whatever_its_name(write_project: WriteProject, value: str) -> None:
    image = "services: {db: {image: 'mariadb:11', environment: "
    write_project(f"{image}{{MARIADB_RANDOM_ROOT_PASSWORD: {value}}}}}}}\n", FILES)
    variable = load_config().config.services["db"].environment["MARIADB_RANDOM_ROOT_PASSWORD"]
    assert (variable.default, variable.secret, variable.required) == (value.strip("'"), False, False)


def test_switch_that_proxima_may_replace_is_a_secret(write_project: WriteProject) -> None:
    write_project("services: {db: {image: 'mariadb:11', environment: {PASSWORD: '${PASSWORD:-yes}'}}}\n", FILES)
    assert load_config().config.services["db"].environment["PASSWORD"].secret


def test_name_that_no_env_file_can_set_keeps_its_default(write_project: WriteProject) -> None:
    write_project(
        "services: {es: {image: 'elasticsearch:8.15.0', environment: {discovery.type: single-node}}}\n", FILES
    )
    assert load_config().config.services["es"].environment["discovery.type"].default == "single-node"


@pytest.mark.parametrize(
    "text",
    [
        "services: {web: {image: 'redis:7', env_file: pipe}}\n",
        "services: {web: {image: 'redis:7', label_file: [pipe]}}\n",
        "include: [{path: other.yaml, env_file: pipe}]\nservices: {web: {image: 'redis:7'}}\n",
    ],
)
def test_pipe_is_refused(write_project: WriteProject, text: str) -> None:
    root = write_project(text, FILES | {"other.yaml": "services: {}\n"})
    os.mkfifo(root / "pipe")
    with pytest.raises(ConfigurationError, match="pipe is not a regular file"):
        load_config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "include: ['oci://example.test/x']\nservices: {web: {image: a}}\n",
            "compose.yaml:1: a Compose file elsewhere",
        ),
        ("include: [../../outside.yaml]\nservices: {web: {image: a}}\n", "outside.yaml"),
        (
            "services: {web: {extends: {file: 'https://example.test/x', service: a}}}\n",
            "compose.yaml:1: a Compose file",
        ),
    ],
)
def test_files_elsewhere_are_not_read(write_project: WriteProject, text: str, message: str) -> None:
    root = write_project(text, FILES)
    (root.parent.parent / "outside.yaml").write_text("services: {}\n")
    with pytest.raises(ConfigurationError, match=message):
        load_config()


def test_contexts_above_are_built_from_the_top_of_the_repository(
    write_project: WriteProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lyra_tasks.scaffold.project_files import inspect_project

    root = write_project("", {"docker/compose.yaml": "services: {web: {build: ..}}\n", "Dockerfile": "FROM scratch\n"})
    monkeypatch.chdir(root / "docker")
    with pytest.raises(ConfigurationError) as caught:
        inspect_project(root / "docker")
    assert caught.value.hint == (
        "Run it at the top of the repository: `cd .. && lyra init --compose docker/compose.yaml`"
    )
    project = inspect_project(root, ("docker/compose.yaml",))
    assert project.compose is not None
    assert project.compose.project.document["images"]["web"]["context"] == "."


def test_both_sides_have_the_same_password_in_tests(write_project: WriteProject) -> None:
    compose = """
        services:
          web:
            image: redis:7
            environment: {DATABASE_URL: "postgres://app:hunter2hunter2@db/app", ADMIN_URL: "http://a:other-one@db/"}
          db:
            image: postgres:16
            environment: {POSTGRES_PASSWORD: root-of-it, APP_PASSWORD: hunter2hunter2}
            volumes: ["./init.sql:/docker-entrypoint-initdb.d/init.sql:ro"]
    """
    files = {"init.sql": "CREATE USER app PASSWORD 'hunter2hunter2';\n"}
    root = write_project(compose, FILES | files)
    loaded = load_config()
    web, db = loaded.config.services["web"].environment, loaded.config.services["db"].environment
    assert web["DATABASE_URL"].test_value == "postgres://app:hunter2hunter2@db/app"
    assert (db["APP_PASSWORD"].test_value, db["APP_PASSWORD"].secret) == ("hunter2hunter2", True)
    assert web["ADMIN_URL"].test_value == f"http://a:{SHARED_TEST_VALUE}@db/"
    assert db["POSTGRES_PASSWORD"].test_value == SHARED_TEST_VALUE
    (root / "init.sql").write_text("CREATE USER app;\n")  # a change of the file is noticed
    web = load_config().config.services["web"].environment
    assert web["DATABASE_URL"].test_value == f"postgres://app:{SHARED_TEST_VALUE}@db/app"


def test_password_that_is_no_secret_stays_in_addresses(write_project: WriteProject) -> None:
    compose = """
        services:
          web: {image: "redis:7", environment: {DATABASE_URL: "postgres://app:local@db/app"}}
          db: {image: "postgres:16", environment: {POSTGRES_PASSWORD: local}}
    """
    override = HEAD + "[services.db.environment]\nPOSTGRES_PASSWORD = { secret = false }\n"
    write_project(compose, FILES | {".lyra.toml": override})
    services = load_config().config.services
    assert services["db"].environment["POSTGRES_PASSWORD"].default == "local"
    assert services["web"].environment["DATABASE_URL"].test_value == "postgres://app:local@db/app"


def test_raw_env_file_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text('A=$2y$10$abc\nB="quoted"\n')
    values = {name: variable.value for name, variable in read_env_file(tmp_path / "raw", is_raw=True).items()}
    assert values == {"A": "$2y$10$abc", "B": '"quoted"'}


@pytest.mark.parametrize(
    ("address", "password", "template"),
    [
        ("postgres://app:s3cretpw@db/app", "s3cretpw", "postgres://app:${POSTGRES_PASSWORD}@db/app"),
        (
            "postgres://${DB_USER:-app}:${DB_PASSWORD}@db/app",
            "${DB_PASSWORD:?set it}",
            "postgres://app:${POSTGRES_PASSWORD}@db/app",
        ),
        ("postgres://app:${DB_PASSWORD:-dev}@db/app", "${DB_PASSWORD}", "postgres://app:${POSTGRES_PASSWORD}@db/app"),
        ("postgres://app:another@db/app", "s3cretpw", ""),
        ("postgres://${DB_USER}:${DB_PASSWORD}@db/app", "${DB_PASSWORD}", ""),
        ("postgres://app:s3cretpw@db/app?password=other", "s3cretpw", ""),
        ("postgres://${API_TOKEN:-literal}:${DB_PASSWORD}@db/app", "${DB_PASSWORD}", ""),
    ],
)
def test_password_is_one_setting_on_proxima(
    write_project: WriteProject, address: str, password: str, template: str
) -> None:
    compose = f"""
        services:
          web: {{image: "redis:7", environment: {{DATABASE_URL: "{address}"}}}}
          db: {{image: "postgres:16", environment: {{POSTGRES_PASSWORD: "{password}"}}}}
    """
    write_project(compose, FILES)
    services = load_config().config.services
    url, own = services["web"].environment["DATABASE_URL"], services["db"].environment["POSTGRES_PASSWORD"]
    assert (url.template, url.secret, own.template) == (template, True, "")
    assert (SHARED_TEST_VALUE in str(url.test_value)) is (own.test_value == SHARED_TEST_VALUE)


def test_same_password_of_two_servers_is_that_of_the_host(write_project: WriteProject) -> None:
    compose = """
        services:
          web:
            image: redis:7
            environment: {BROKER_URL: "amqp://a:changeme1@mq:5672/", OTHER_URL: "http://a:changeme1@elsewhere/"}
          db: {image: "postgres:16", environment: {POSTGRES_PASSWORD: changeme1}}
          mq: {image: "rabbitmq:3.13", environment: {RABBITMQ_DEFAULT_PASS: changeme1}}
    """
    write_project(compose, FILES)
    environment = load_config().config.services["web"].environment
    assert environment["BROKER_URL"].template == "amqp://a:${RABBITMQ_DEFAULT_PASS}@mq:5672/"
    assert environment["OTHER_URL"].template == ""


def test_variables_with_one_password_are_made_of_the_one_that_has_its_name(write_project: WriteProject) -> None:
    compose = """
        services:
          web: {image: "redis:7", environment: {DB_PASSWORD: "${DB_PASSWORD}", URL: "pg://a:${DB_PASSWORD}@db/"}}
          db: {image: "postgres:16", environment: {POSTGRES_PASSWORD: "${DB_PASSWORD:?}"}}
    """
    write_project(compose, FILES)
    services = load_config().config.services
    web, db = services["web"].environment, services["db"].environment
    assert (web["DB_PASSWORD"].template, web["URL"].template) == ("", "pg://a:${DB_PASSWORD}@db/")
    assert db["POSTGRES_PASSWORD"].template == "${DB_PASSWORD}"
