"""Test `init` on ten sample repositories: its configuration loads, can be planned, and lists what is missing."""

from __future__ import annotations

import datetime
import errno
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.compose.plugin import ComposePlugin, ConfigQuestion, ask_config
from lyra_tasks.compose.stand_ins import SHARED_TEST_VALUE, replace_passwords
from lyra_tasks.compose.translation.names import make_name
from lyra_tasks.config.load import LoadedConfig, list_todos, load_config
from lyra_tasks.dockerfile.input_hashes import dockerfile_path
from lyra_tasks.dockerfile.parse import read_dockerfile
from lyra_tasks.dockerfile.stages import list_base_images, resolve_declared_image
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.lab.facts import LabFacts, ServiceFacts, resolve_test_environment
from lyra_tasks.lab.plan import LabPlan, plan_lab
from lyra_tasks.rules.catalogue import HOST_ACCESS
from lyra_tasks.rules.deviations import enforce_rules
from lyra_tasks.rules.services import check_service_settings
from lyra_tasks.scaffold.plan import plan_init
from lyra_tasks.scaffold.project_files import inspect_project
from lyra_tasks.scaffold.run import write_init_files
from tests.conftest import PROJECTS
from tests.thorough import keep_named

pytestmark = pytest.mark.slow

SAMPLES = sorted(path.name for path in (PROJECTS / "init").iterdir())


def init_project(root: Path) -> None:
    compose_files = ("deploy/compose.yaml",) if root.name == "larder" else ()
    write_init_files(plan_init(inspect_project(root, compose_files)), root)


def init_sample(name: str, parent: Path) -> Path:
    root = parent / name
    shutil.copytree(PROJECTS / "init" / name, root)
    (root / ".git").mkdir()
    init_project(root)
    return root


def load_sample(name: str, parent: Path) -> LoadedConfig:
    return load_config(init_sample(name, parent))


def image_config(loaded: LoadedConfig, name: str) -> dict[str, Any]:
    """Return the configuration of a service's image, as far as the Dockerfile declares it."""
    service = loaded.config.services[name]
    if not loaded.config.is_own_image(name):
        return {}
    image = loaded.config.images[service.image]
    declared = resolve_declared_image(read_dockerfile(dockerfile_path(loaded.root, image)), image.target, image.args)
    return {"User": declared.user, "Volumes": dict.fromkeys(declared.volumes), "Env": []}


def plan_sample_lab(loaded: LoadedConfig) -> LabPlan:
    services = {
        name: ServiceFacts(
            f"sha256:{name}", image_config(loaded, name), resolve_test_environment(name, service), {}, {}
        )
        for name, service in loaded.config.services.items()
    }
    return plan_lab(loaded.config, LabFacts("run", "127.0.0.1", True, "/files", services))


@pytest.mark.parametrize("name", SAMPLES)
def test_generated_configuration_loads_and_follows_rules(tmp_path: Path, name: str) -> None:
    loaded = load_sample(name, tmp_path)
    config = loaded.config
    assert plan_sample_lab(loaded).services.keys() == config.services.keys()
    for service_name, service in config.services.items():
        results = list(check_service_settings(service_name, service, image_config(loaded, service_name)))
        open_todos = " ".join(todos(tmp_path / name))
        for request in service.host_access:  # somebody must say whether the service does without
            assert request in open_todos
            results = [result for result in results if result.rule != HOST_ACCESS]
        enforce_rules(config, results, datetime.date.today())
    for image in config.images.values():
        list_base_images(read_dockerfile(dockerfile_path(loaded.root, image)), image.target, image.args)
    checked_services = {test.service for test in config.tests}
    assert checked_services == {name for name, service in config.services.items() if not service.oneshot}


@pytest.mark.parametrize("name", keep_named(["relay", "guestlist"], list(SAMPLES)))
def test_second_init_changes_nothing(tmp_path: Path, name: str) -> None:
    root = init_sample(name, tmp_path)
    contents_before = contents(root)
    second_plan = plan_init(inspect_project(root))
    assert ".lyra.toml" in second_plan.existing
    assert write_init_files(second_plan, root) == second_plan
    assert contents(root) == contents_before


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def todos(root: Path) -> list[str]:
    return [todo.text for todo in list_todos((root / ".lyra.toml").read_text())]


def test_compose_services_are_converted(tmp_path: Path) -> None:
    config = load_sample("guestlist", tmp_path).config
    web, redis = config.services["web"], config.services["redis"]
    assert web.depends_on == ["redis"]
    assert web.ports == {"http": 8000}
    values = {name: (variable.default, variable.secret) for name, variable in web.environment.items()}
    assert values == {
        "CAPACITY": ("3", False),
        "REDIS_HOST": ("redis", False),
        "SECRET_KEY": (None, True),
        "TITLE": ("Guest list", False),
        "PYTHONUNBUFFERED": ("1", False),
        "PYTHONDONTWRITEBYTECODE": ("1", False),
    }
    descriptions = {name: variable.description for name, variable in web.environment.items()}
    assert descriptions["CAPACITY"] == "how many guests are let in"  # the comment above it in the env file
    assert descriptions["TITLE"] == "head of the page"  # the comment after it in the compose file
    assert web.dev is not None
    assert web.dev.source == "/app"  # mounted there by Compose, so `create` does the same
    assert (redis.image, redis.user, redis.command) == ("redis:7", "999:999", ["redis-server", "--save", ""])
    assert redis.healthcheck is not None
    assert (redis.healthcheck.exec, redis.healthcheck.retries) == (["redis-cli", "ping"], 5)
    assert [(volume.path, volume.owner) for volume in redis.volumes.values()] == [("/data", None)]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("amqp://shop:hunter2@mq/", "amqp://shop:TEST@mq/"),
        ("shop:hunter2@tcp(db:3306)/shop", "shop:TEST@tcp(db:3306)/shop"),
        ("Server=db;User Id=shop;Password=hunter2;Database=shop", "Server=db;User Id=shop;Password=TEST;Database=shop"),
        ("host=db user=shop password='hunter2 2' dbname=shop", "host=db user=shop password=TEST dbname=shop"),
        ("jdbc:postgresql://db/shop?user=shop&password=hunter2&ssl=true", "jdbc:postgresql://db/shop?user=shop&password=TEST&ssl=true"),
    ],
)  # fmt: skip
def test_password_in_address_is_replaced(address: str, expected: str) -> None:
    assert replace_passwords(address) == (expected.replace("TEST", SHARED_TEST_VALUE), True)
    for plain in ("http://db:5432/a@b", "a:b@c", "keyboard=password", "2026-11-24T12:00@home(1)"):
        assert replace_passwords(plain) == (plain, False)


def test_compose_secrets_share_one_test_value(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services:\n"
        "  app:\n    image: example.org/app:1\n    ports: [80]\n"
        "    environment:\n      DATABASE_URL: postgres://shop:hunter2@db:5432/shop\n"
        "  db:\n    image: postgres:16-alpine\n"
        "    environment:\n      POSTGRES_PASSWORD: hunter2\n      POSTGRES_USER: shop\n    env_file: .env\n"
    )
    (tmp_path / ".env").write_text("PGADMIN_TOKEN=hunter2\nSMTP_PASS=hunter2\nMAIL_PWD=hunter2\nBYPASS_CACHE=1\n")
    init_project(tmp_path)
    services = load_config(tmp_path).config.services
    for file in (".lyra.toml", ".lyra/compose.json"):
        assert "hunter2" not in (tmp_path / file).read_text()
    password, address = services["db"].environment["POSTGRES_PASSWORD"], services["app"].environment["DATABASE_URL"]
    assert password.secret is address.secret is True
    assert address.test_value == f"postgres://shop:{password.test_value}@db:5432/shop"
    assert services["db"].environment["SMTP_PASS"].secret is True
    assert services["db"].environment["BYPASS_CACHE"].default == "1"
    assert services["db"].user == "70:70"


def test_secret_in_command_is_replaced_with_note(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services:\n"
        "  cache:\n    image: redis:7\n    command: redis-server --requirepass ${CACHE_PASSWORD}\n"
        "    healthcheck:\n      test: redis-cli --pass ${CACHE_PASSWORD:-hunter2} ping\n"
        "    environment:\n      AUTH: Basic ${API_TOKEN:-hunter2}\n"
        "  queue:\n    image: redis:7\n    command:\n"
        "    - redis-server\n    - --requirepass\n    - hunter2\n    - --masterauth-token=hunter2\n"
    )
    (tmp_path / ".env").write_text("CACHE_PASSWORD=hunter2\n")
    plan = plan_init(inspect_project(tmp_path))
    write_init_files(plan, tmp_path)
    auth = load_config(tmp_path).config.services["cache"].environment["AUTH"]
    assert (auth.secret, auth.test_value) == (True, f"Basic {SHARED_TEST_VALUE}")
    for file in (".lyra.toml", ".lyra/compose.json"):
        assert "hunter2" not in (tmp_path / file).read_text()
    assert sum("a secret in a command" in note for note in plan.notes) == 1  # one line for both
    assert sum("a secret in a health check" in note for note in plan.notes) == 1


def test_compose_profiles_oneshots_and_shared_volumes(tmp_path: Path) -> None:
    root = init_sample("ledger", tmp_path)
    config = load_config(root).config
    assert list(config.services) == ["migrate", "api"]
    assert config.services["migrate"].oneshot
    assert config.services["api"].command == ["sh", "-c", "exec httpd -f -p 8080 -h /www"]
    assert config.services["api"].limits.memory == 64 * 1024**2
    assert [image.context for image in config.images.values()] == ["."]  # one build, two services
    assert [service.volumes["books"].shared for service in config.services.values()] == ["books", "books"]
    notes = " ".join(plan_init(inspect_project(root)).notes)
    assert "only the profile tools starts it" in notes


def test_compose_secrets_configs_and_unsupported_mounts(tmp_path: Path) -> None:
    root = init_sample("vault", tmp_path)
    vault = load_config(root).config.services["vault"]
    assert {key: secret.path for key, secret in vault.secrets.items()} == {
        "api_token": "/run/secrets/api_token",
        "signing": "/etc/vault/signing.key",
    }
    assert {file.path: file.source for file in vault.configs.values()} == {
        "/www/motd.txt": "vault/motd.txt",
        "/www/pages/about.html": "vault/pages/about.html",
    }
    assert vault.environment["API_TOKEN_FILE"].default == "/run/secrets/api_token"
    assert vault.environment["STORE_URL"].secret
    assert vault.healthcheck is not None
    assert "$${" not in str(vault.healthcheck.exec)
    assert any("docker.sock" in todo for todo in todos(root))


def test_image_that_may_be_the_own_one_is_offered_as_a_table(tmp_path: Path) -> None:
    for name in ("kitchen", "cellar"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text("FROM scratch\nUSER 1:1\n")
    (tmp_path / "compose.yaml").write_text("services: {web: {image: 'ghcr.io/acme/inn:1', user: '1:1'}}\n")
    init_project(tmp_path)
    text = (tmp_path / ".lyra.toml").read_text()
    _, _, offer = text.partition("services.web is made from it, take these lines:\n#\n")
    pasted = [line.removeprefix("# ") for line in offer.splitlines()[:4]]
    assert pasted == ["[images.cellar]", 'context = "cellar"', "[services.web]", 'image = "cellar"']
    assert text.count("No service builds") == 2


def test_context_contains_copied_files(tmp_path: Path) -> None:
    config = load_sample("bakery", tmp_path).config
    contexts = {name: (image.context, image.dockerfile) for name, image in config.images.items()}
    assert contexts == {
        "orders": (".", "services/orders/Dockerfile"),
        "oven": ("services/oven", "Dockerfile"),
        "shop": ("services/shop", "Dockerfile"),
    }
    assert config.services["oven"].environment["TEMPERATURE"].description == "how hot it is, in degrees"


def test_production_and_development_stages_are_chosen(tmp_path: Path) -> None:
    config = load_sample("storefront", tmp_path).config
    image = config.images["storefront"]
    assert (image.target, image.dev_target) == ("production", "development")
    assert config.services["storefront"].ports == {"http": 3000}  # EXPOSE $PORT
    notes = plan_init(inspect_project(tmp_path / "storefront")).notes
    assert any(note.startswith("Dockerfile: its `# syntax` line") for note in notes)
    (check,) = config.tests
    assert check.http == "GET /healthz"  # from its HEALTHCHECK


def test_production_dockerfile_is_preferred(tmp_path: Path) -> None:
    root = init_sample("newsroom", tmp_path)
    config = load_config(root).config
    assert {name: image.dockerfile for name, image in config.images.items()} == {
        "newsroom": "Dockerfile.prod",
        "worker": "Dockerfile.worker",
    }
    notes = " ".join(plan_init(inspect_project(root)).notes)
    assert all(f"skipped {name}:" in notes for name in ("Dockerfile", "Dockerfile.dev", "Dockerfile.test"))


def test_port_keeps_its_protocol(tmp_path: Path) -> None:
    config = load_sample("minutes", tmp_path).config
    assert config.services["minutes"].ports == {"http": 8000, "statsd": "8125/udp"}


def test_env_file_example_gives_test_values(tmp_path: Path) -> None:
    queue = load_sample("courier", tmp_path).config.services["courier"].environment["QUEUE"]
    assert (queue.required, queue.default, queue.test_value) == (True, None, "letters")


def test_ignore_files_get_missing_lines_only(tmp_path: Path) -> None:
    root = init_sample("storefront", tmp_path)
    assert (root / ".dockerignore").read_text() == "node_modules\n.git\n.lyra\npromotion\n"
    assert (root / ".gitignore").read_text() == "promotion/\n"
    minutes = init_sample("minutes", tmp_path)
    assert (minutes / ".dockerignore").read_text() == "*\n!minutes\n"  # excludes both already


def test_ignore_file_keeps_bytes_line_endings_mode_and_link(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM alpine\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / "shared").write_bytes(b"caf\xe9.log\n*.tmp")  # git accepts any bytes
    (tmp_path / "shared").chmod(0o600)
    (tmp_path / ".gitignore").symlink_to("shared")
    (tmp_path / ".dockerignore").write_bytes(b"\xef\xbb\xbfnode_modules\r\n.git\r\n")
    init_project(tmp_path)
    assert (tmp_path / "shared").read_bytes() == b"caf\xe9.log\n*.tmp\npromotion/\n"
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".gitignore").is_symlink()
    assert (tmp_path / ".dockerignore").read_bytes() == (b"\xef\xbb\xbfnode_modules\r\n.git\r\n.lyra\r\npromotion\r\n")


def test_line_of_ignore_file_in_other_encoding_is_not_added_again(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM alpine\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_bytes(b"caf\xe9.log\npromotion/\n")
    init_project(tmp_path)
    assert (tmp_path / ".gitignore").read_bytes() == b"caf\xe9.log\npromotion/\n"


def test_copied_directory_that_is_not_searched_is_not_missing(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM alpine\nCOPY vendor dist/app.js /app/\nCOPY gone ../../LICENSE /app/\n")
    (tmp_path / "LICENSE").touch()  # `..` leads nowhere above the context
    for directory in ("vendor", "dist"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "app.js").touch()
    init_project(tmp_path)
    assert [text for text in todos(tmp_path) if "not found" in text] == [
        "Dockerfile copies gone, not found in the context .: correct `context`"
    ]


def test_copied_git_directory_stays_in_context(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM alpine\nCOPY .git/HEAD /version\n")
    files = {file.path: file for file in plan_init(inspect_project(tmp_path)).files}
    assert files[".dockerignore"].appended_lines == (".lyra", "promotion")


def test_odd_compose_values_are_carried_or_said(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services:\n"
        "  web-app: {image: redis, mem_limit: -1, depends_on: [Web_App]}\n"
        "  Web_App:\n    image: '${REGISTRY:-example.org${PORT:-:5000}}/r'\n    user: '${UID}'\n"
        "    volumes: ['./a/site.conf:/etc/a.conf:ro', './b/site.conf:/etc/b.conf:ro', 'files:/x', 'files:/y']\n"
        '    command: [sh, -c, "set -e\\nexec x"]\n'
        "    env_file: app.env\n"
        "  gone: {image: 'r:${TAG:?}'}\n"
        "volumes: {files: {}}\n"
    )
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "site.conf").touch()
    (tmp_path / "app.env.example").write_text("GREETING=hello\n")
    (tmp_path / "app.env.production").write_text("GREETING=goodbye\n")
    plan = plan_init(inspect_project(tmp_path))
    write_init_files(plan, tmp_path)
    services = load_config(tmp_path).config.services
    assert services.keys() == {"web-app", "web_app", "gone"}
    app = services["web_app"]
    assert (services["web-app"].depends_on, app.aliases) == (["web_app"], ["Web_App"])
    assert (app.image, app.command) == ("example.org:5000/r", ["sh", "-c", "set -e\nexec x"])
    assert app.environment["GREETING"].default == "hello"
    assert {file.path for file in app.configs.values()} == {"/etc/a.conf", "/etc/b.conf"}
    assert {volume.path for volume in app.volumes.values()} == {"/x", "/y"}
    messages = "\n".join((*todos(tmp_path), *plan.notes))
    for text in (
        "mem_limit: every container has limits: the default takes the place of none",
        "user: depends on a variable without a value (UID)",
        "image depends on a variable without a value (TAG)",
    ):
        assert text in messages


def test_open_value_beside_impossible_service_is_one_todo(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services: {a: {image: 'r:${TAG:?}'}, b: {image: r, network_mode: 'container:x'}}\n"
    )
    init_project(tmp_path)
    assert load_config(tmp_path).config.compose.ignore == ["b"]
    assert sum("depends on a variable without a value (TAG)" in todo for todo in todos(tmp_path)) == 1


@pytest.mark.parametrize("text", ["services: &s {web: {environment: [*s]}}", "[" * 3000])
def test_recursive_compose_file_is_rejected(tmp_path: Path, text: str) -> None:
    (tmp_path / "compose.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"compose\.yaml: recursive or nested too deeply"):
        inspect_project(tmp_path)


def test_pipes_and_non_utf8_names_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM alpine\n")
    os.mkfifo(tmp_path / ".env")
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    (odd / "Dockerfile").write_text("FROM alpine\n")
    project = inspect_project(tmp_path)
    assert list(project.dockerfiles) == ["Dockerfile"]
    write_init_files(plan_init(project), tmp_path)
    assert list(load_config(tmp_path).config.images) == [make_name(tmp_path.name)]


def test_init_writes_to_file_system_without_modes_and_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    for name in ("fchmod", "link"):  # like FAT
        monkeypatch.setattr(os, name, refuse)
    init_sample("brochure", tmp_path)
    load_config(tmp_path / "brochure")
    assert [path.name for path in (tmp_path / "brochure").glob(".lyra-init.*")] == []
    (tmp_path / "brochure" / ".lyra.toml").unlink()
    second_plan = plan_init(inspect_project(tmp_path / "brochure"))
    (tmp_path / "brochure" / ".lyra.toml").write_text("# new\n")
    with pytest.raises(PreconditionError, match="was created in the meantime"):
        write_init_files(second_plan, tmp_path / "brochure")
    assert (tmp_path / "brochure" / ".lyra.toml").read_text() == "# new\n"


def test_new_files_appear_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed `init` leaves whole files only; a part would be taken for the configuration by the next one."""
    write_compose_project(tmp_path, SERVICE_HEAD + "      A: b\n")
    plan, sync, seen = plan_init(inspect_project(tmp_path)), os.fsync, set[tuple[str, str]]()
    new = [tmp_path / file.path for file in plan.files if not (tmp_path / file.path).exists()]

    def look(descriptor: int) -> None:
        seen.update((path.name, path.read_text()) for path in new if path.exists())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    write_init_files(plan, tmp_path)
    final = {(path.name, path.read_text()) for path in new}
    assert seen
    assert seen <= final


def test_volume_at_tmp_becomes_tmpfs(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM eclipse-temurin:21\nVOLUME /tmp\nEXPOSE 8080\n")
    (tmp_path / "compose.yaml").write_text(
        "services:\n  app: {build: ., volumes: ['scratch:/tmp', '/data']}\nvolumes: {scratch: {}}\n"
    )
    init_project(tmp_path)
    app = load_config(tmp_path).config.services["app"]
    assert [volume.path for volume in app.volumes.values()] == ["/data"]
    assert list(app.tmpfs) == ["/tmp"], "documented, since the image declares it"


def test_invalid_dockerfile_declarations_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        'FROM alpine\nEXPOSE 80\nVOLUME /a /A here / /x:y\nHEALTHCHECK CMD ["sh", "-c", "a\\nb"]\n'
    )
    init_project(tmp_path)
    config = load_config(tmp_path).config
    (service,) = config.services.values()
    assert [volume.path for volume in service.volumes.values()] == ["/a", "/A"]
    assert [test.tcp for test in config.tests] == ["http"]
    assert service.healthcheck is None, "the image has one"
    assert sum("which is not a path in a container" in todo for todo in todos(tmp_path)) == 3


def test_existing_tasks_file_is_kept(tmp_path: Path) -> None:
    root = tmp_path / "brochure"
    shutil.copytree(PROJECTS / "init" / "brochure", root)
    (root / "tasks.py").write_text("# mine\n")
    init_project(root)
    assert (root / "tasks.py").read_text() == "# mine\n"
    assert (root / ".lyra.toml").exists()


@pytest.fixture
def sample_root(tmp_path: Path) -> Path:
    root = tmp_path / "storefront"
    shutil.copytree(PROJECTS / "init" / "storefront", root)
    (root / ".dockerignore").write_text("node_modules")
    return root


def test_draft_that_is_not_valid_is_written_with_todos(sample_root: Path) -> None:
    valid_plan = plan_init(inspect_project(sample_root))
    files = (replace(file, text=file.text.replace('context = "."', 'context = "gone"')) for file in valid_plan.files)
    result = write_init_files(replace(valid_plan, files=tuple(files)), sample_root)
    (problem,) = [todo.text for todo in result.todos if todo.text.startswith("this must be settled first")]
    assert re.search(r'line \d+: images\.storefront\.context: "gone" is not a directory', problem)
    assert [file.path for file in result.files] == [file.path for file in valid_plan.files]
    assert (sample_root / ".lyra.toml").read_text() == result.files[0].text, "with the TODO"


def test_invalid_yaml_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services:\n  web: [\n")
    with pytest.raises(ConfigurationError, match=r"compose\.yaml:\d+: not valid YAML"):
        inspect_project(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"Docker Compose [\d.]+ refuses the project: empty compose file"),
        ("services: [a]", r"Docker Compose [\d.]+ refuses the project: services must be a mapping"),
        (
            "services:\n  web: null",
            r"compose.yaml:2: Docker Compose [\d.]+ refuses the project: .*services.web must be a mapping",
        ),
        (
            "services:\n  a: {image: a}\n  web: {}",
            'compose.yaml:3: Docker Compose .* refuses the project: service "web"',
        ),
        ("services:\n  web:\n    image: a\n    ports: [x]", "Docker Compose .* refuses the project: .*ontainerPort: x"),
        ("services:\n  web:\n    image: a\n    volumes: [[]]", "compose.yaml:4: .*services.web.volumes.0 must be"),
        ("services: {web: {build: ../outside}}", "None of the services can run here"),
        (
            "services: {a: {image: r, volumes_from: ['container:b']}, b: {image: r, network_mode: 'container:a'}}",
            "None of the serv",
        ),
    ],
)
def test_impossible_project_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "compose.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        init_project(tmp_path)
    assert caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["compose.yaml"]


@pytest.mark.parametrize(
    "text",
    [
        'services: {Web_1: {image: a, ports: [80], environment: {A-B: c, OK: "x\\ny"}}}',
        "services: {a: {image: r, mem_limit: -1, cpus: 0, pids_limit: -1}, b: {image: r, mem_limit: 4m, cpus: 0}}",
        "services: {a: {image: r, healthcheck: {test: [CMD, a], interval: 10s, start_period: 0s, retries: 0}}}",
        "services: {Web_App: {image: r}, web-app: {image: r}, WEB.APP: {image: r}}",
        'services: {a: {image: r, command: [sh, -c, "set -e\\nexec x\\n"], healthcheck: {test: "a\\nb"}}}',
        "services: {a: {image: r, user: '${UID}:${GID}'}}",
        "services: {a: {image: r, configs: [c]}, b: {image: r}}\nconfigs: {c: {file: ../c.conf}}",
        "services: {a: {image: r, volumes: ['da:/x', 'da:/y', 'Da:/z', 'da:/x/']}}\nvolumes: {da: {}, Da: {}}",
    ],
)
def test_odd_compose_file_gives_a_valid_configuration(tmp_path: Path, text: str) -> None:
    (tmp_path / "compose.yaml").write_text(text)
    init_project(tmp_path)
    load_config(tmp_path)


SERVICE_HEAD = "services:\n  web:\n    image: redis:7\n    environment:\n"


def write_compose_project(root: Path, text: str) -> None:
    (root / ".git").mkdir()
    (root / "Dockerfile").write_text("FROM scratch\n")
    (root / "compose.yaml").write_text(text)


def test_compose_is_asked_again_only_if_a_file_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    questions: list[ConfigQuestion] = []

    def ask(plugin: ComposePlugin, question: ConfigQuestion, *, is_interpolated: bool = True) -> dict[str, Any]:
        questions.append(question)
        return ask_config(plugin, question, is_interpolated=is_interpolated)

    monkeypatch.setattr("lyra_tasks.compose.reader.ask_config", ask)
    for name, is_changed in (("same", False), ("changed", True)):
        root = tmp_path / name
        root.mkdir()
        write_compose_project(root, SERVICE_HEAD + "      A: b\n")
        plan = plan_init(inspect_project(root))
        if is_changed:
            (root / "compose.yaml").write_text(SERVICE_HEAD + "      A: c\n")
        questions.clear()
        write_init_files(plan, root)
        assert bool(questions) is is_changed, "the problems of the configuration depend on the files as they are now"
        questions.clear()
        assert load_config(root).config.services["web"].environment["A"].default == ("c" if is_changed else "b")
        assert questions == []


@pytest.mark.parametrize(
    "text",
    ["      A: |\n        x\n", "      A: |\n        x", "      A: >-\n        x\n\n\n", "      [A=1]",
     "      - A=1\n\n", "      A: >+\n\n\n", "      A:\n"],
)  # fmt: skip
def test_last_value_of_compose_file_may_be_a_block(tmp_path: Path, text: str) -> None:
    write_compose_project(tmp_path, SERVICE_HEAD + text)
    init_project(tmp_path)
    assert load_config(tmp_path).config.services["web"].image == "redis:7"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (SERVICE_HEAD + '      A: "\\ud800"', "compose.yaml:5: a character is not valid Unicode"),
        (SERVICE_HEAD + "      A: !!timestamp abc", "compose.yaml:5: not a valid value of timestamp"),
        (SERVICE_HEAD + "      A: 2026-99-01", "compose.yaml:5: not a valid value of timestamp"),
        (SERVICE_HEAD + "      A: !!python/name:os.system x", "compose.yaml:5: not valid YAML"),
        (SERVICE_HEAD + "      A: " + "[" * 5000, "compose.yaml: recursive or nested too deeply"),
        (SERVICE_HEAD + "      A: &a [*a]", "compose.yaml: recursive or nested too deeply"),
        (f"services:\n  web:\n    ports:\n    - {'1' * 5000}\n", "compose.yaml:4: not a valid value of int"),
        (f"services:\n  web:\n    build:\n      target: {'1' * 5000}\n", "compose.yaml:4: not a valid value of int"),
        (SERVICE_HEAD + "# " + "x" * 1024**2, "compose.yaml: larger than 1 MiB"),
    ],
    ids=range(9),
)  # fmt: skip
def test_unreadable_compose_file_is_named_with_line(tmp_path: Path, text: str, problem: str) -> None:
    write_compose_project(tmp_path, text)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigurationError, match=problem) as caught:
        init_project(tmp_path)
    assert caught.value.hint
    assert sorted(tmp_path.iterdir()) == before


def test_interrupted_init_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Path, text: str) -> None:
        raise KeyboardInterrupt

    write_compose_project(tmp_path, SERVICE_HEAD + "      A: b\n")
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("lyra_tasks.scaffold.run.load_config_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        init_project(tmp_path)
    assert sorted(tmp_path.iterdir()) == before
