"""Build and test the ten samples of `init` and the quick start as generated, on one engine.

Their bases are public images; without a registry, the engine has stand-ins with the same names.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lyra_tasks.config.models import Rootfs
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.bases import rootfs
from lyra_tasks.engine.client.connect import Engine
from tests.conftest import PROJECTS, REPOSITORY, Project, environment_of, repository
from tests.thorough import THOROUGH

TOOLS = ["coreutils", "dash"]
PACKAGES = {
    "python:3.12-slim": [*TOOLS, "netbase", "passwd", "python3", "tzdata"],
    "redis:7": ["redis-server"],
    "ruby:3.3": [*TOOLS, "ruby"],
    "ruby:3.3-slim": [*TOOLS, "ruby"],
    "node:22-bookworm-slim": [*TOOLS, "npm"],
    "golang:1.23-bookworm": [*TOOLS, "golang-go"],
}
NORMAL = ("relay",)
"""The sample of the normal check: a Compose file with a third-party image, which needs no fixes."""
APPLETS = ("sh", "httpd", "wget", "test", "sleep", "date", "echo", "mkdir", "chown", "cat", "tail")


@pytest.fixture(scope="module")
def provide(engine: Engine, busybox: Path, cache: Path) -> Iterator[Callable[..., None]]:
    """Return a function that loads stand-ins for base images into the engine."""
    loaded: set[str] = set()

    def load(*references: str) -> None:
        for reference in set(references) - loaded:
            if reference in PACKAGES:
                archive = rootfs.build_rootfs(Rootfs(suite="bookworm", packages=PACKAGES[reference]), cache=cache)
                tar = archive.tar.read_bytes()
                if "node:" in reference:
                    tar = with_user("node", tar)
                if "redis:" in reference:
                    tar = with_directory("data", 999, tar)
            else:
                tar = busybox_root(busybox / "busybox")
            name, tag = reference.split(":")
            engine.api.import_image_from_data(tar, repository=name, tag=tag)
            loaded.add(reference)

    yield load
    for reference in loaded:
        engine.api.remove_image(reference, force=True)


def with_user(name: str, tar: bytes) -> bytes:
    """Return the root file system with an additional user."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(tar)) as source, tarfile.open(fileobj=stream, mode="w") as target:
        for member in source:
            content = source.extractfile(member) if member.isreg() else None
            if content is not None and member.name == "./etc/passwd":
                users = content.read() + f"{name}:x:1000:1000::/home/{name}:/bin/sh\n".encode()
                member.size, content = len(users), io.BytesIO(users)
            target.addfile(member, content)
    return stream.getvalue()


def with_directory(name: str, owner: int, tar: bytes) -> bytes:
    """Return the root file system with an additional directory of this user."""
    stream = io.BytesIO(tar)
    with tarfile.open(fileobj=stream, mode="a") as target:
        directory = tarfile.TarInfo(f"./{name}")
        directory.type, directory.mode, directory.uid, directory.gid = tarfile.DIRTYPE, 0o755, owner, owner
        target.addfile(directory)
    return stream.getvalue()


def busybox_root(program: Path) -> bytes:
    """Return a root file system with BusyBox, its applets, and the user database."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.add(program, "bin/busybox")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name, text in (("passwd", "root:x:0:0::/:/bin/sh\n"), ("group", "root:x:0:\n")):
            entry = tarfile.TarInfo(f"etc/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
        for name in ("home", "root", "tmp", "var"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(directory)
    return stream.getvalue()


pytestmark = pytest.mark.usefixtures("named_contexts")


@pytest.fixture
def cloned(tmp_path: Path, cache: Path, box: sandbox.Sandbox) -> Iterator[Callable[[str], Project]]:
    """Return a function that copies a sample to a git repository."""
    projects: list[Project] = []

    def clone(name: str) -> Project:
        root = tmp_path / name
        shutil.copytree(PROJECTS / "init" / name, root)
        projects.append(repository(root, tmp_path, cache, box))
        return projects[-1]

    yield clone
    for project in projects:
        project.clean()


def test_quick_start_commands_work(
    tmp_path: Path, cache: Path, box: sandbox.Sandbox, provide: Callable[..., None]
) -> None:
    provide("python:3.12-slim")
    program = tmp_path / "bin" / "lyra"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -W error -m lyra_tasks.tasks.program "$@"\n')
    program.chmod(0o755)
    git_config = tmp_path / "gitconfig"
    git_config.write_text("[user]\nname = Ada\nemail = ada@example.org\n")
    environment = environment_of(tmp_path, cache, box)
    environment |= {"PATH": f"{program.parent}:{environment['PATH']}", "GIT_CONFIG_GLOBAL": str(git_config)}
    page = (REPOSITORY / "docs" / "quickstart.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "all").write_text("set -eux\n" + "".join(blocks))
    result = subprocess.run(
        ["sh", tmp_path / "all"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode:
        Project(tmp_path / "hello", environment).lyra("clean")
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "hello" / "promotion" / "hello" / "0.1.0" / "PROMOTION.md").is_file()
    assert "the page greets" in result.stdout
    todos = [line for line in result.stderr.splitlines() if "TODO" in line]
    assert todos, "later commands repeat the TODOs of init"
    assert all("description" in line for line in todos), todos


@dataclass(frozen=True)
class Sample:
    """A sample: the messages about it, the fixes of its Dockerfile, and the checks that pass then."""

    name: str
    bases: tuple[str, ...]
    passed: tuple[str, ...]
    messages: tuple[str, ...] = ()
    fixes: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    decisions: tuple[tuple[str, str], ...] = ()
    """what only the developer can say, in `.lyra.toml`"""


SAMPLES = [
    Sample("bakery", ("busybox:1.36",), ("orders answers /greeting.txt", "oven writes a log", "shop answers /")),
    Sample("brochure", ("busybox:1.36",), ("brochure answers /",)),
    Sample("courier", ("busybox:1.36",), ("courier writes a log",)),
    Sample("guestlist", ("python:3.12-slim", "redis:7"), ("redis is healthy", "web listens on port http")),
    Sample("larder", ("busybox:1.36",), ("larder answers /jam.txt",), arguments=("--compose", "deploy/compose.yaml")),
    Sample("ledger", ("busybox:1.36",), ("api answers /coins.txt",)),
    Sample(
        "minutes",
        ("python:3.12-slim",),
        ("minutes listens on port http",),
        messages=("volume opt-minutes-data: user 1500:100 cannot write: /opt/minutes/data is not in the image",),
        fixes=(("1500 clerk", "1500 clerk && mkdir data && chown 1500:1500 data"),),
    ),
    Sample("newsroom", ("ruby:3.3-slim",), ("newsroom listens on port http", "worker writes a log")),
    Sample("relay", ("busybox:1.36", "redis:7"), ("relay answers /state.txt", "store is healthy")),
    Sample(
        "storefront",
        ("node:22-bookworm-slim",),
        ("storefront answers /",),
        messages=(
            "Dockerfile: its `# syntax` line needs a registry for each build; delete it if none is available",
            "hint: Delete the `# syntax=` line, so that the engine's own frontend reads the Dockerfile",
        ),
        fixes=(("# syntax=docker/dockerfile:1\n", ""),),
    ),
    Sample(
        "tally",
        ("golang:1.23-bookworm",),
        ("tally listens on port http",),
        messages=("volume var-lib-tally: user 65532:65532 cannot write: /var/lib/tally is not in the image",),
        fixes=(("USER", "COPY --from=build --chown=65532:65532 /srv /var/lib/tally\nUSER"),),
    ),
    Sample(
        "vault",
        ("busybox:1.36",),
        ("store writes a log", "vault answers /motd.txt"),
        messages=("TODO: it asks the host for /var/run/docker.sock", "runs without /var/run/docker.sock"),
        decisions=(
            ("[services.store]\n", "[services.store]\nhost_access = []\n"),
            ('log = "."', 'exec = ["test", "-d", "/data"]'),
        ),
    ),
]


@pytest.mark.parametrize(
    "sample",
    [pytest.param(sample, id=sample.name, marks=[] if sample.name in NORMAL else THOROUGH) for sample in SAMPLES],
)
def test_init_sample_builds_and_passes_after_fixes(
    sample: Sample, cloned: Callable[[str], Project], provide: Callable[..., None]
) -> None:
    provide(*sample.bases)
    project = cloned(sample.name)
    init_outcome = project.lyra("init", *sample.arguments)
    assert init_outcome.code == 0, init_outcome.text
    if sample.messages:
        outcome = project.lyra("build", "test")
        output = init_outcome.text + outcome.text
        assert outcome.code in (4, 5), output
        assert all(message in output for message in sample.messages), output
        for old, new in sample.fixes:
            project.replace("Dockerfile", old, new)
        for old, new in sample.decisions:
            project.replace(".lyra.toml", old, new)
    outcome = project.lyra("build")
    assert outcome.code == 0, outcome.text
    project.commit("what init wrote and build locked")
    outcome = project.lyra("build", "test", "promote")
    assert outcome.code == 0, outcome.text
    assert all(check in outcome.text for check in sample.passed), outcome.text
    assert len(project.bundles()) == 1
