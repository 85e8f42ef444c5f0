"""What `init` knows of an image yields to what the project declares."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.config.load import load_config
from lyra_tasks.config.models import Service
from lyra_tasks.scaffold.drafts import DraftTable
from lyra_tasks.scaffold.service_defaults import choose_cpus, describe_shortage
from tests.scaffold.test_init import init_project

pytestmark = pytest.mark.slow

VOLUMES = "{cache: {}, data: {}, run: {}}"


def draft(tmp_path: Path, text: str) -> Service:
    """Return the service `db` of a compose file as `init` drafts it."""
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "compose.yaml").write_text(f"volumes: {VOLUMES}\nservices:\n  db:\n{text}")
    init_project(tmp_path)
    return load_config(tmp_path).config.services["db"]


def paths(service: Service) -> list[str]:
    return sorted(volume.path for volume in service.volumes.values())


@pytest.mark.parametrize(
    ("volume", "volumes", "tmpfs"),
    [
        ("", ["/var/lib/postgresql/data"], {"/var/run/postgresql"}),
        ("data:/var/lib/postgresql/data", ["/var/lib/postgresql/data"], {"/var/run/postgresql"}),
        ("data:/var/lib/postgresql", ["/var/lib/postgresql"], {"/var/run/postgresql"}),
        ("data:/var/lib", ["/var/lib"], {"/var/run/postgresql"}),
        ("run:/var/run/postgresql", ["/var/lib/postgresql/data", "/var/run/postgresql"], set()),
        ("run:/run", ["/run", "/var/lib/postgresql/data"], set()),
    ],
)
def test_declared_volume_wins_over_known_path(tmp_path: Path, volume: str, volumes: list[str], tmpfs: set[str]) -> None:
    service = draft(tmp_path, "    image: postgres:16\n" + (f"    volumes: ['{volume}']\n" if volume else ""))
    assert paths(service) == volumes
    assert set(service.tmpfs) == tmpfs


def test_declared_cache_of_nginx_wins_over_known_tmpfs(tmp_path: Path) -> None:
    service = draft(tmp_path, "    image: nginx:1.27\n    volumes: ['cache:/var/cache/nginx']\n")
    assert paths(service) == ["/var/cache/nginx"]
    assert set(service.tmpfs) == {"/run"}
    assert service.user == "101:101"


def test_postgres_18_has_one_volume(tmp_path: Path) -> None:
    for number, tag in enumerate((":18", "", ":alpine")):
        service = draft(tmp_path / str(number), f"    image: postgres{tag}\n")
        assert paths(service) == ["/var/lib/postgresql"]
        assert service.user == ("70:70" if tag == ":alpine" else "999:999")


def test_volume_that_stops_postgres_18_is_told(tmp_path: Path) -> None:
    draft(tmp_path, "    image: postgres:18\n    volumes: ['data:/var/lib/postgresql/data']\n")
    text = (tmp_path / ".lyra.toml").read_text()
    assert "the image keeps its data in /var/lib/postgresql and does not start with /var/lib/postgresql/data" in text


def test_templates_of_nginx_need_writable_directory(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "shop.conf.template").write_text("server {}\n")
    service = draft(tmp_path, "    image: nginx\n    volumes: ['./templates:/etc/nginx/templates:ro']\n")
    assert "/etc/nginx/conf.d" in service.tmpfs


def test_known_health_check_yields_to_declared_one(tmp_path: Path) -> None:
    known = draft(tmp_path / "known", "    image: mariadb:11\n").healthcheck
    declared = draft(
        tmp_path / "declared", '    image: mariadb:11\n    healthcheck: {test: [CMD, "true"]}\n'
    ).healthcheck
    assert known is not None
    assert known.exec == ["healthcheck.sh", "--connect", "--innodb_initialized"]
    assert declared is not None
    assert declared.exec == ["true"]


def test_user_that_the_image_sets_is_not_set_again(tmp_path: Path) -> None:
    assert draft(tmp_path, "    image: memcached:1.6\n").user == ""


def test_ports_of_compose_file_and_image_are_both_there(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:3.13-slim\nUSER 1000\nEXPOSE 5000 8000/tcp 53/udp\n")
    service = draft(tmp_path, "    build: .\n    ports: ['8000:8000']\n")
    assert sorted(map(str, service.ports.values())) == ["5000", "53/udp", "8000"]
    assert service.ports["http"] == 8000


def test_ports_that_nobody_publishes_stay_internal(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:3.13-slim\nUSER 1000\nEXPOSE 5000\nHEALTHCHECK CMD true\n")
    assert draft(tmp_path, "    image: postgres:17\n  web:\n    build: .\n    depends_on: [db]\n").ports == {}
    services = load_config(tmp_path).config.services
    assert services["web"].ports == {"http": 5000}, "nothing depends on it"


def test_health_check_over_tcp_needs_a_port(tmp_path: Path) -> None:
    service = draft(tmp_path, "    image: nats:2\n  web:\n    image: redis:8\n    depends_on: [db]\n")
    assert service.ports == {"nats": 4222}
    assert service.healthcheck is not None
    assert service.healthcheck.tcp == "nats"


@pytest.mark.parametrize(
    ("limits", "cpus"),
    [
        ([{}] * 3, 0.25),
        ([{}] * 12, 0.12),
        ([{"cpus": 1.0}, {}, {}, {}, {}], 0.12),
        ([{"cpus": 4.0}, {}], 0.05),
    ],
)
def test_cpu_limits_of_a_draft_fit_two_processors(limits: list[dict[str, float]], cpus: float) -> None:
    assert choose_cpus([DraftTable(given={"limits": table}) for table in limits], 2) == cpus


def test_draft_says_what_the_machine_cannot_give() -> None:
    services = [DraftTable(given={"limits": {"cpus": 0.5, "memory": "1g"}}) for _ in range(4)]
    assert describe_shortage(services, 4, 16 * 1024**3) == ""
    assert "2 CPUs and 4.2 GiB together" in describe_shortage(services, 2, 16 * 1024**3)
    assert "lower limits.cpus and limits.memory" in describe_shortage(services, 4, 4 * 1024**3)


def test_worker_in_the_image_of_a_server_has_no_ports(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nUSER 1:1\nEXPOSE 8000\n")
    (tmp_path / "compose.yaml").write_text(
        "services:\n  web: {build: ., ports: ['80:8000']}\n  worker: {build: ., command: [work]}\n"
    )
    init_project(tmp_path)
    services = load_config(tmp_path).config.services
    assert (services["web"].ports, services["worker"].ports) == ({"http": 8000}, {})
    assert services["worker"].healthcheck is None


def test_oneshot_in_the_image_of_a_server_has_no_ports(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nUSER 1:1\nEXPOSE 8000\n")
    (tmp_path / "compose.yaml").write_text(
        "services:\n  migrate: {build: ., command: [migrate]}\n"
        "  web: {build: ., ports: ['8000:8000'], depends_on: {migrate: {condition: service_completed_successfully}}}\n"
    )
    init_project(tmp_path)
    services = load_config(tmp_path).config.services
    assert (services["migrate"].oneshot, services["migrate"].ports) == (True, {}), "the port is that of web on Proxima"
