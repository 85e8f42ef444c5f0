"""What `init` knows of images, tried with stand-ins: servers that say nothing but their image in the Compose file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lyra_tasks.engine import sandbox
from tests.conftest import Project, repository
from tests.stand_ins import images

# Those that no sample stack has, or that have less to say here than there
SERVERS = """
services:
  newest:
    image: postgres:18
    environment: { POSTGRES_PASSWORD: "${DB_PASSWORD:-change-me}" }
  proxy:
    image: docker.io/library/nginx:1.26
    ports: ["8080:80"]
    environment: { GREETING: hello }
    volumes: ["./templates:/etc/nginx/templates:ro"]
  pages:
    image: nginxinc/nginx-unprivileged:1.26
    ports: ["8081:8080"]
  queue:
    image: rabbitmq:4
  sessions:
    image: redis:8
  cache:
    image: memcached:1.6
"""
TEMPLATE = "server { listen 80; location / { add_header X-Greeting ${GREETING}; return 200 '${GREETING} $uri'; } }\n"
CHECK = """
[[tests]]
name = "proxy fills in its template"
service = "proxy"
http = "GET /there"
body = "hello /there"
"""
USED = (
    "memcached:1.6", "nginx:1.26", "nginxinc/nginx-unprivileged:1.26", "postgres:18", "rabbitmq:4", "redis:8",
)  # fmt: skip


@pytest.fixture
def servers(tmp_path: Path, cache: Path, box: sandbox.Sandbox) -> Iterator[Project]:
    """Return a project of servers, with their images in the engine."""
    images.load(USED, box, cache)
    root = tmp_path / "servers"
    (root / "templates").mkdir(parents=True)
    (root / "compose.yaml").write_text(SERVERS)
    (root / "templates" / "default.conf.template").write_text(TEMPLATE)
    project = repository(root, tmp_path, cache, box)
    yield project
    project.clean()
    images.run_docker(box, "image", "rm", "--force", *USED)


@pytest.mark.usefixtures("named_contexts")
@pytest.mark.thorough
def test_known_images_run_under_the_rules_as_drafted(servers: Project) -> None:
    outcome = servers.lyra("init")
    assert outcome.code == 0, outcome.text
    with (servers.root / ".lyra.toml").open("a") as file:
        file.write(CHECK)
    outcome = servers.lyra("build", "test")
    assert outcome.code == 0, outcome.text
    for name in ("newest", "queue", "sessions", "cache"):
        assert f"ok   {name} is healthy" in outcome.text, outcome.text
