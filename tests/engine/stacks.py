"""Stacks of other people's shape, and nodes that receive and start their bundles."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lyra_tasks.bundle.format import layout
from lyra_tasks.engine.sandbox import Sandbox
from tests.conftest import PROJECTS, Project, repository
from tests.stand_ins import images

PASSWORD = "only-for-tests-0123456789abcdef"
_PORT = 8123


@dataclass(frozen=True)
class Stack:
    """A sample project: the images in its bundle, images that others made, checks, and the edit of the next version.

    `write` is method, path and body of a request that adds data; `path` shows `data`, and `news` in the next version.
    `front` is the service that is published. `values` are what the operator sets besides passwords, `files` what each
    developer has and git ignores. `checks` are added to what `init` writes. The project is called `name`.
    """

    directory: str
    name: str
    images: tuple[str, ...]
    third_party: tuple[str, ...]
    front: str
    checks: str
    edit: tuple[str, str, str]
    write: tuple[str, str, str]
    path: str
    data: str
    news: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)


SHOP = Stack(
    directory="shop",
    name="shop",
    images=("cache", "db", "proxy", "web"),
    third_party=("nginx:1.26", "postgres:17", "python:3.13-slim", "redis:8"),
    front="proxy",
    files={"secrets/db_password.txt": PASSWORD},
    checks="""
[[tests]]
name = "something is sold"
service = "proxy"
http = "POST /goods"
send = '{"name": "pear"}'
status = 201

[[tests]]
name = "what is sold is on the front page, which counts visits"
service = "proxy"
http = "GET /"
body = "<h1>Corner shop</h1><ul><li>pear</li></ul><p>"
""",
    edit=(
        "web/shop/migrate.py",
        '    "CREATE TABLE goods (id serial PRIMARY KEY, name text NOT NULL UNIQUE)",\n',
        '    "CREATE TABLE goods (id serial PRIMARY KEY, name text NOT NULL UNIQUE)",\n'
        "    \"UPDATE goods SET name = name || ' of last year'\",\n",
    ),
    write=("POST", "/goods", '{"name": "apple"}'),
    path="/",
    data="apple",
    news="apple of last year",
)
WIKI = Stack(
    directory="wiki",
    name="wiki",
    images=("cache", "db", "wiki"),
    third_party=(
        "mariadb:11", "memcached:1.6", "registry.example.org/pages/wiki:2.5", "registry.example.org/pages/wiki:2.6",
    ),
    front="wiki",
    checks="""
[[tests]]
name = "a page is written"
service = "wiki"
http = "PUT /start"
send = "A first page."
status = 201

[[tests]]
name = "the page is shown, its copy is among the uploads, its views are counted"
service = "wiki"
http = "GET /start"
body = "A first page.\\n1 views, 1 uploads"
""",
    edit=("compose.yaml", "${WIKI_VERSION:-2.5}", "${WIKI_VERSION:-2.6}"),
    write=("PUT", "/garden", "Plant tulips in autumn."),
    path="/garden",
    data="Plant tulips in autumn.",
    news="wiki 2.6",
)  # fmt: skip
MONOREPO = Stack(
    directory="monorepo",
    values={"AMQP_URL": f"amqp://books:{PASSWORD}@queue:5672/"},
    name="books",
    images=("catalog", "gateway", "mailer", "orders", "queue"),
    third_party=("python:3.13-slim", "rabbitmq:4"),
    front="gateway",
    checks="""
[[tests]]
name = "a book is ordered"
service = "gateway"
http = "POST /orders"
send = '{"title": "Walden"}'
json = { ordered = "Walden" }

[[tests]]
name = "the mailer knows about it"
service = "mailer"
log = "mail about Walden"
retry = 20
""",
    edit=("services/gateway/main.py", '"GET /books": lambda _: ask', '"GET /books": lambda _: ["new:"] + ask'),
    write=("POST", "/orders", '{"title": "Emma"}'),
    path="/books",
    data="Emma",
    news="new:",
)
STACKS = (SHOP, WIKI, MONOREPO)


def prepare(stack: Stack, tmp_path: Path, cache: Path, box: Sandbox) -> Project:
    """Copy a stack to a git repository, load the images of others into the engine, and run `init`."""
    images.load(stack.third_party, box, cache)
    root = tmp_path / stack.directory
    shutil.copytree(PROJECTS / stack.directory, root)
    for name, text in stack.files.items():
        (root / name).write_text(text)
    project = repository(root, tmp_path, cache, box)
    outcome = project.lyra("init")
    assert outcome.code == 0, outcome.text
    with (root / ".lyra.toml").open("a") as file:
        file.write(stack.checks)
    project.commit("lyra init")
    return project


def promote(project: Project, version: str) -> Path:
    """Commit what the build locks, tag it as a version, test and promote it, and return the bundle."""
    outcome = project.lyra("build")
    assert outcome.code == 0, outcome.text
    project.commit("lock")
    project.git("tag", f"v{version}")
    outcome = project.lyra("build", "test", "promote")
    assert outcome.code == 0, outcome.text
    (bundle,) = [path for path in project.bundles() if path.name == version]
    return bundle


@dataclass(frozen=True)
class Node:
    """A production node: an engine and a directory for what is carried to it."""

    box: Sandbox
    place: Path

    def receive(self, bundle: Path) -> Path:
        """Carry a bundle or a pack to the node, run its script, and return where it is now."""
        carried = self.place / bundle.name
        shutil.copytree(bundle, carried)
        self.run("sh", layout.RECEIVE_SCRIPT, cwd=carried)
        return carried

    def start(self, carried: Path, stack: Stack) -> None:
        """Fill in `.env` as the operator does, and start the services."""
        deploy = carried / "deploy"
        (deploy / ".env").write_text(self._fill_in((deploy / ".env.example").read_text(), stack))
        self.run("docker", "compose", "up", "--detach", "--wait", cwd=deploy)

    def _fill_in(self, example: str, stack: Stack) -> str:
        """Return `.env` with all required values; only the front is published at a known port."""
        lines, comment = [], ""
        for line in example.splitlines():
            name = line.lstrip("#").partition("=")[0]
            owner = re.search(r"a file that user (\d+):(\d+) can read", comment)
            if re.fullmatch(r"#?[A-Z0-9_]+_PUBLISH=.*", line):
                port = _PORT if name.startswith(f"{stack.front.upper()}_") else 0
                lines.append(f"{name}={self.box.address}:{port}")
            elif re.fullmatch(r"[A-Z0-9_]+=", line):
                value = str(self._secret_file(name, int(owner[1]), int(owner[2]))) if owner else PASSWORD
                lines.append(f"{name}={stack.values.get(name, value)}")
            else:
                lines.append(line)
            comment = line
        return "\n".join([*lines, ""])

    def _secret_file(self, name: str, uid: int, gid: int) -> Path:
        path = self.place / name.lower()
        if not path.exists():
            path.write_text(PASSWORD)
            path.chmod(0o400)
            os.chown(path, uid, gid)
        return path

    def request(self, method: str, path: str, body: str = "") -> str:
        """Send a request to the published service and return the response."""
        url = f"http://{self.box.address}:{_PORT}{path}"
        request = urllib.request.Request(url, data=body.encode() or None, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            content: bytes = response.read()
        return content.decode()

    def run(self, *command: str, cwd: Path) -> str:
        """Run a command with the node's engine and return its output."""
        # Compose prefers the environment to `.env`, and the services have variables of these names
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment = own | self.box.environment()
        environment["PATH"] = f"{self.box.docker.parent}:{environment['PATH']}"
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
