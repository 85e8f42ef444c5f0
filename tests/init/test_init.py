"""`init` on ten repositories of other people's making: what it writes loads, plans, and says what is missing."""

from __future__ import annotations

import datetime
import errno
import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.config.discovery import list_todos
from lyra_tasks.config.load import LoadedConfig, load_config
from lyra_tasks.dockerfile.input_hashes import dockerfile_path
from lyra_tasks.dockerfile.parse import read_dockerfile
from lyra_tasks.dockerfile.stages import list_base_images, resolve_declared_image
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.init import plan, project_files, run
from lyra_tasks.init.drafts import SHARED_TEST_VALUE, DraftService, make_name, replace_passwords, set_variable
from lyra_tasks.lab.facts import resolve_test_environment as environment_for_tests
from lyra_tasks.lab.plan import LabFacts, LabPlan, ServiceFacts
from lyra_tasks.lab.plan import plan_lab as lab_plan
from lyra_tasks.rules.deviations import enforce_rules
from lyra_tasks.rules.services import check_service_settings
from tests.conftest import PROJECTS

SAMPLES = sorted(path.name for path in (PROJECTS / "init").iterdir())


def made(name: str, folder: Path) -> Path:
    root = folder / name
    shutil.copytree(PROJECTS / "init" / name, root)
    (root / ".git").mkdir()
    run.write_init_files(plan.plan_init(project_files.inspect_project(root)), root)
    return root


def loaded(name: str, folder: Path) -> LoadedConfig:
    return load_config(made(name, folder))


def image_config(found: LoadedConfig, name: str) -> dict[str, Any]:
    """What the engine would say of a service's image, as far as the Dockerfile does."""
    service = found.config.services[name]
    if service.image is None:
        return {}
    image = found.config.images[service.image]
    declared = resolve_declared_image(read_dockerfile(dockerfile_path(found.root, image)), image.target, image.args)
    return {"User": declared.user, "Volumes": dict.fromkeys(declared.volumes), "Env": []}


def planned(found: LoadedConfig) -> LabPlan:
    services = {
        name: ServiceFacts(f"sha256:{name}", image_config(found, name), environment_for_tests(name, service), {}, {})
        for name, service in found.config.services.items()
    }
    return lab_plan(found.config, LabFacts("run", "127.0.0.1", True, True, "/files", services))


@pytest.mark.parametrize("name", SAMPLES)
def test_what_init_writes_loads_plans_and_keeps_the_rules(tmp_path: Path, name: str) -> None:
    found = loaded(name, tmp_path)
    assert planned(found).services.keys() == found.config.services.keys()
    for each, service in found.config.services.items():
        enforce_rules(
            found.config, check_service_settings(each, service, image_config(found, each)), datetime.date.today()
        )
    for image in found.config.images.values():
        list_base_images(read_dockerfile(dockerfile_path(found.root, image)), image.target, image.args)
    asked = {test.service for test in found.config.tests}
    assert asked == {each for each, service in found.config.services.items() if not service.oneshot}


@pytest.mark.parametrize("name", SAMPLES)
def test_init_changes_nothing_the_second_time(tmp_path: Path, name: str) -> None:
    root = made(name, tmp_path)
    before = contents(root)
    again = plan.plan_init(project_files.inspect_project(root))
    assert again.has_configuration
    assert run.write_init_files(again, root) == ()
    assert contents(root) == before


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def todos(root: Path) -> list[str]:
    return [point.text for point in list_todos((root / ".lyra.toml").read_text())]


def test_compose_gives_services_environment_health_dependencies_and_volumes(tmp_path: Path) -> None:
    found = loaded("guestlist", tmp_path).config
    web, redis = found.services["web"], found.services["redis"]
    assert web.depends_on == ["redis"]
    assert web.ports == {"http": 8000}
    values = {name: (each.default, each.secret) for name, each in web.environment.items()}
    assert values == {
        "CAPACITY": ("3", False),
        "REDIS_HOST": ("redis", False),
        "SECRET_KEY": (None, True),
        "TITLE": ("Guest list", False),
        "PYTHONUNBUFFERED": ("1", False),
        "PYTHONDONTWRITEBYTECODE": ("1", False),
    }
    said = {name: each.description for name, each in web.environment.items()}
    assert said["CAPACITY"] == "how many guests are let in"  # the comment above it in the env file
    assert said["TITLE"] == "head of the page"  # the comment behind it in the compose file
    assert web.dev is not None
    assert web.dev.source == "/app"  # what compose mounts there is what `create` brings
    assert (redis.external, redis.user, redis.command) == ("redis:7", "999:999", ["redis-server", "--save", ""])
    assert redis.healthcheck is not None
    assert (redis.healthcheck.exec, redis.healthcheck.retries) == (["redis-cli", "ping"], 5)
    assert [(each.path, each.owner) for each in redis.volumes.values()] == [("/data", "999:999")]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("amqp://shop:hunter2@mq/", "amqp://shop:TEST@mq/"),
        ("shop:hunter2@tcp(db:3306)/shop", "shop:TEST@tcp(db:3306)/shop"),
        ("Server=db;User Id=shop;Password=hunter2;Database=shop", "Server=db;User Id=shop;Password=TEST;Database=shop"),
        ("host=db user=shop password='hunter2 2' dbname=shop", "host=db user=shop password=TEST dbname=shop"),
        ("jdbc:postgresql://db/shop?user=shop&password=hunter2&ssl=true", "jdbc:postgresql://db/shop?user=shop&password=TEST&ssl=true"),
    ],
)  # fmt: skip
def test_a_password_in_an_address_is_not_copied(written: str, kept: str) -> None:
    service = DraftService("app")
    set_variable(service, "WHERE", written, "", shared=True)
    assert service.environment["WHERE"].secret
    assert service.environment["WHERE"].test_value == kept.replace("TEST", SHARED_TEST_VALUE)
    for plain in ("http://db:5432/a@b", "a:b@c", "keyboard=password", "2026-11-24T12:00@home(1)"):
        assert replace_passwords(plain) == (plain, False)


def test_no_secret_of_a_compose_file_is_copied_and_services_agree_on_one(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services:\n"
        "  app:\n    image: example.org/app:1\n    ports: [80]\n"
        "    environment:\n      DATABASE_URL: postgres://shop:hunter2@db:5432/shop\n"
        "  db:\n    image: postgres:16-alpine\n"
        "    environment:\n      POSTGRES_PASSWORD: hunter2\n      POSTGRES_USER: shop\n    env_file: .env\n"
    )
    (tmp_path / ".env").write_text("PGADMIN_TOKEN=hunter2\nSMTP_PASS=hunter2\nMAIL_PWD=hunter2\nBYPASS_CACHE=1\n")
    text = next(
        file.text for file in plan.plan_init(project_files.inspect_project(tmp_path)).files if file.path == ".lyra.toml"
    )
    assert "hunter2" not in text
    services = tomllib.loads(text)["services"]
    address, password = (
        services["app"]["environment"]["DATABASE_URL"], services["db"]["environment"]["POSTGRES_PASSWORD"],
    )  # fmt: skip
    assert password["secret"] is address["secret"] is True
    assert address["test_value"] == f"postgres://shop:{password['test_value']}@db:5432/shop"
    assert services["db"]["environment"]["SMTP_PASS"]["secret"] is True
    assert services["db"]["environment"]["BYPASS_CACHE"]["default"] == "1"
    assert services["db"]["user"] == "70:70"


def test_a_secret_in_a_command_is_not_copied_but_told(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services:\n"
        "  cache:\n    image: redis:7\n    command: redis-server --requirepass ${CACHE_PASSWORD}\n"
        "    healthcheck:\n      test: redis-cli -a ${CACHE_PASSWORD:-hunter2} ping\n"
        "    environment:\n      AUTH: Basic ${API_TOKEN:-hunter2}\n"
        "  queue:\n    image: redis:7\n    command:\n"
        "    - redis-server\n    - --requirepass\n    - hunter2\n    - --masterauth-token=hunter2\n"
    )
    (tmp_path / ".env").write_text("CACHE_PASSWORD=hunter2\n")
    run.write_init_files(plan.plan_init(project_files.inspect_project(tmp_path)), tmp_path)
    assert "hunter2" not in (tmp_path / ".lyra.toml").read_text()
    assert load_config(tmp_path).config.services["cache"].environment["AUTH"].secret
    told = " ".join(todos(tmp_path))
    assert told.count("a secret stands in its command") == 2
    assert told.count("a secret stands in its healthcheck") == 1


def test_profiles_one_shots_and_shared_volumes_are_told_apart(tmp_path: Path) -> None:
    root = made("ledger", tmp_path)
    found = load_config(root).config
    assert list(found.services) == ["migrate", "api"]
    assert found.services["migrate"].oneshot
    assert found.services["api"].command == ["sh", "-c", "exec httpd -f -p 8080 -h /www"]
    assert found.services["api"].limits.memory == 64 * 1024**2
    assert [image.context for image in found.images.values()] == ["."]  # one build, two services
    assert "the volume books is shared with migrate; here, each has its own" in todos(root)
    notes = plan.plan_init(project_files.inspect_project(root)).notes
    assert "docker-compose.yml: adminer is started by a profile alone and was left out" in notes
    assert "docker-compose.override.yml was not read" in notes


def test_secrets_configs_and_what_a_container_may_not_have(tmp_path: Path) -> None:
    root = made("vault", tmp_path)
    vault = load_config(root).config.services["vault"]
    assert {key: each.path for key, each in vault.secrets.items()} == {
        "api-token": "/run/secrets/api_token",
        "signing": "/etc/vault/signing.key",
    }
    assert {each.path: each.source for each in vault.configs.values()} == {
        "/www/motd.txt": "vault/motd.txt",
        "/www/pages/about.html": "vault/pages/about.html",
    }
    assert vault.environment["API_TOKEN_FILE"].default == "/run/secrets/api_token"
    assert vault.environment["STORE_URL"].secret
    assert vault.healthcheck is not None
    assert "$${" not in str(vault.healthcheck.exec)
    assert any("docker.sock" in each for each in todos(root))


def test_a_context_is_the_folder_that_holds_what_the_dockerfile_copies(tmp_path: Path) -> None:
    found = loaded("bakery", tmp_path).config
    where = {name: (image.context, image.dockerfile) for name, image in found.images.items()}
    assert where == {
        "orders": (".", "services/orders/Dockerfile"),
        "oven": ("services/oven", "Dockerfile"),
        "shop": ("services/shop", "Dockerfile"),
    }
    assert found.services["shop"].volumes["var-shop"].owner == "1200:1200"
    assert found.services["oven"].environment["TEMPERATURE"].description == "how hot it is, in degrees"


def test_the_stage_for_production_is_shipped_and_the_other_developed_in(tmp_path: Path) -> None:
    found = loaded("storefront", tmp_path).config
    image = found.images["storefront"]
    assert (image.target, image.dev_target) == ("production", "development")
    assert found.services["storefront"].ports == {"http": 3000}  # EXPOSE $PORT
    notes = plan.plan_init(project_files.inspect_project(tmp_path / "storefront")).notes
    assert any(each.startswith("Dockerfile: its `# syntax` line") for each in notes)
    (check,) = found.tests
    assert check.http == "GET /healthz"  # where its HEALTHCHECK asks


def test_of_several_dockerfiles_the_one_for_production_is_taken(tmp_path: Path) -> None:
    root = made("newsroom", tmp_path)
    found = load_config(root).config
    assert {name: image.dockerfile for name, image in found.images.items()} == {
        "newsroom": "Dockerfile.prod",
        "worker": "Dockerfile.worker",
    }
    notes = " ".join(plan.plan_init(project_files.inspect_project(root)).notes)
    assert all(f"{each} was left out" in notes for each in ("Dockerfile", "Dockerfile.dev", "Dockerfile.test"))


def test_a_user_by_name_has_the_numbers_that_the_dockerfile_gives_it(tmp_path: Path) -> None:
    found = loaded("minutes", tmp_path).config
    assert found.services["minutes"].volumes["opt-minutes-data"].owner == "1500:1500"
    assert found.services["minutes"].ports == {"http": 8000, "statsd": "8125/udp"}


def test_an_example_of_an_env_file_gives_values_for_tests(tmp_path: Path) -> None:
    queue = loaded("courier", tmp_path).config.services["courier"].environment["QUEUE"]
    assert (queue.required, queue.default, queue.test_value) == (True, None, "letters")


def test_ignore_files_get_what_they_lack_and_keep_what_they_have(tmp_path: Path) -> None:
    root = made("storefront", tmp_path)
    assert (root / ".dockerignore").read_text() == "node_modules\n.git\n.lyra\npromotion\n"
    assert (root / ".gitignore").read_text() == "promotion/\n"
    minutes = made("minutes", tmp_path)
    assert (minutes / ".dockerignore").read_text() == "*\n!minutes\n"  # leaves both out already


def test_an_ignore_file_keeps_every_byte_its_line_ends_its_mode_and_its_place(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM alpine\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / "shared").write_bytes(b"caf\xe9.log\n*.tmp")  # git takes any bytes
    (tmp_path / "shared").chmod(0o600)
    (tmp_path / ".gitignore").symlink_to("shared")
    (tmp_path / ".dockerignore").write_bytes(b"\xef\xbb\xbfnode_modules\r\n.git\r\n")
    run.write_init_files(plan.plan_init(project_files.inspect_project(tmp_path)), tmp_path)
    assert (tmp_path / "shared").read_bytes() == b"caf\xe9.log\n*.tmp\npromotion/\n"
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".gitignore").is_symlink()
    assert (tmp_path / ".dockerignore").read_bytes() == (b"\xef\xbb\xbfnode_modules\r\n.git\r\n.lyra\r\npromotion\r\n")


def test_the_history_stays_in_the_context_of_a_dockerfile_that_copies_it(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM alpine\nCOPY .git/HEAD /version\n")
    files = {file.path: file for file in plan.plan_init(project_files.inspect_project(tmp_path)).files}
    assert files[".dockerignore"].appended_lines == (".lyra", "promotion")


def test_what_compose_leaves_without_a_limit_or_a_name_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services:\n"
        "  web-app: {image: redis, mem_limit: -1, depends_on: [Web_App]}\n"
        "  Web_App:\n    image: '${REGISTRY:-example.org${PORT:-:5000}}/r'\n    user: '${UID}'\n"
        "    volumes: ['./a/site.conf:/etc/a.conf:ro', './b/site.conf:/etc/b.conf:ro', 'd:/x', 'd:/y']\n"
        '    command: [sh, -c, "set -e\\nexec x"]\n'
        "    env_file: app.env\n"
        "  gone: {image: 'r:${TAG}'}\n"
    )
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "site.conf").touch()
    (tmp_path / "app.env.example").write_text("GREETING=hello\n")
    (tmp_path / "app.env.production").write_text("GREETING=goodbye\n")
    run.write_init_files(plan.plan_init(project_files.inspect_project(tmp_path)), tmp_path)
    services = load_config(tmp_path).config.services
    assert services.keys() == {"web-app", "web-app-2"}
    assert services["web-app"].depends_on == ["web-app-2"]
    assert services["web-app-2"].external == "example.org:5000/r"
    assert services["web-app-2"].environment["GREETING"].default == "hello"
    assert {each.path for each in services["web-app-2"].configs.values()} == {"/etc/a.conf", "/etc/b.conf"}
    assert {each.path for each in services["web-app-2"].volumes.values()} == {"/x", "/y"}
    said = "\n".join(todos(tmp_path))
    for text in (
        "-1 is no limit of memory that can be in force",
        "its user is ${UID}, and nothing here says what UID is",
        "its command has several lines",
        "its image is r:${TAG}, and nothing here says what TAG is",
    ):
        assert text in said


@pytest.mark.parametrize("text", ["services: {web: &w {environment: &e {A: 1, <<: *e}}}", "[" * 3000])
def test_a_compose_file_that_holds_itself_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "compose.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"^compose\.yaml: holds itself"):
        project_files.inspect_project(tmp_path)


def test_a_pipe_is_not_waited_for_and_a_name_that_cannot_be_written_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM alpine\n")
    os.mkfifo(tmp_path / ".env")
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    (odd / "Dockerfile").write_text("FROM alpine\n")
    found = project_files.inspect_project(tmp_path)
    assert found.texts == {}
    assert list(found.dockerfiles) == ["Dockerfile"]
    run.write_init_files(plan.plan_init(found), tmp_path)
    assert list(load_config(tmp_path).config.images) == [make_name(tmp_path.name)]


def test_where_a_file_has_neither_modes_nor_a_second_name_it_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_words: object, **_more: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    for name in ("fchmod", "link"):  # as FAT answers
        monkeypatch.setattr(os, name, refused)
    made("brochure", tmp_path)
    load_config(tmp_path / "brochure")
    assert [path.name for path in (tmp_path / "brochure").glob(".lyra-init.*")] == []
    (tmp_path / "brochure" / ".lyra.toml").unlink()
    planned = plan.plan_init(project_files.inspect_project(tmp_path / "brochure"))
    (tmp_path / "brochure" / ".lyra.toml").write_text("# by then\n")
    with pytest.raises(PreconditionError, match="is there by now"):
        run.write_init_files(planned, tmp_path / "brochure")
    assert (tmp_path / "brochure" / ".lyra.toml").read_text() == "# by then\n"


def test_a_volume_at_tmp_is_in_memory_as_it_is_in_every_container(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM eclipse-temurin:21\nVOLUME /tmp\nEXPOSE 8080\n")
    (tmp_path / "compose.yaml").write_text("services:\n  app: {build: ., volumes: ['scratch:/tmp', '/data']}\n")
    run.write_init_files(plan.plan_init(project_files.inspect_project(tmp_path)), tmp_path)
    app = load_config(tmp_path).config.services["app"]
    assert [each.path for each in app.volumes.values()] == ["/data"]
    assert list(app.tmpfs) == ["/tmp"], "documented, since the image declares it"


def test_what_a_dockerfile_declares_and_no_configuration_can_hold_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        'FROM alpine\nEXPOSE 80\nVOLUME /a /A here / /x:y\nHEALTHCHECK CMD ["sh", "-c", "a\\nb"]\n'
    )
    run.write_init_files(plan.plan_init(project_files.inspect_project(tmp_path)), tmp_path)
    found = load_config(tmp_path).config
    (service,) = found.services.values()
    assert [each.path for each in service.volumes.values()] == ["/a", "/A"]
    assert [test.tcp for test in found.tests] == ["http"]
    assert service.healthcheck is None, "the image has its own"
    assert sum("which is no place in a container" in each for each in todos(tmp_path)) == 3


def test_a_tasks_file_of_ones_own_is_kept(tmp_path: Path) -> None:
    root = tmp_path / "brochure"
    shutil.copytree(PROJECTS / "init" / "brochure", root)
    (root / "tasks.py").write_text("# mine\n")
    run.write_init_files(plan.plan_init(project_files.inspect_project(root)), root)
    assert (root / "tasks.py").read_text() == "# mine\n"
    assert (root / ".lyra.toml").exists()


@pytest.fixture
def refused(tmp_path: Path) -> Path:
    root = tmp_path / "storefront"
    shutil.copytree(PROJECTS / "init" / "storefront", root)
    (root / ".dockerignore").write_text("node_modules")
    return root


def test_a_configuration_that_the_loader_refuses_is_not_written_and_nothing_else_is(refused: Path) -> None:
    before = contents(refused)
    good = plan.plan_init(project_files.inspect_project(refused))
    bad = plan.InitPlan(
        tuple(
            plan.PlannedFile(file.path, file.text.replace('context = "."', 'context = "gone"'), file.appended_lines)
            for file in good.files
        ),
        good.existing, good.todos, good.notes,
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match="nothing was written") as raised:
        run.write_init_files(bad, refused)
    assert [each for each in raised.value.details if not each.startswith(".lyra.toml:")] == []
    assert contents(refused) == before


def test_a_compose_file_that_is_no_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services:\n  web: [\n")
    with pytest.raises(ConfigurationError, match=r"^compose\.yaml:\d+: not valid YAML"):
        project_files.inspect_project(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "services: {}", "services: [a]", "services: {web: null}", "services: {web: {}}",
        "services: {web: {build: ../outside}}", "services: {web: {image: a, ports: ['1-2:3-4', x], volumes: [[]]}}",
        "services: {web: {image: a, environment: 5, depends_on: 7, healthcheck: x, deploy: []}}",
        "services: {Web_1: {image: 'a b', ports: [70000, 80], environment: {A-B: c, OK: \"x\\ny\"}, command: \"'\"}}",
        "services: {a: {image: r, mem_limit: -1, cpus: 0, pids_limit: -1}, b: {image: r, mem_limit: 4m, cpus: .inf}}",
        "services: {a: {image: r, healthcheck: {test: 5}}, b: {image: r, healthcheck: {test: [CMD]}}}",
        "services: {a: {image: r, healthcheck: {test: x, interval: 10, start_period: 0s, retries: 0}}}",
        "services: {Web_App: {image: r}, web-app: {image: r}, WEB.APP: {image: r}, 日本: {image: r}, 数据: {image: r}}",
        "services: {a: {image: r, command: [sh, -c, \"set -e\\nexec x\\n\"], healthcheck: {test: \"a\\nb\"}}}",
        "services: {a: {image: '${REG}/r', user: '${UID}:${GID}'}}",
        "services: {a: {image: r, configs: [c]}}\nconfigs: {c: {file: ../c.conf}}",
        "services: {a: {image: r, volumes: ['d:/x', 'd:/y', 'D:/z', 'd:/x/']}}",
    ],
)  # fmt: skip
def test_whatever_a_compose_file_holds_what_is_written_is_valid(tmp_path: Path, text: str) -> None:
    (tmp_path / "compose.yaml").write_text(text)
    run.write_init_files(plan.plan_init(project_files.inspect_project(tmp_path)), tmp_path)
    load_config(tmp_path)
