"""Stand-ins for official images, made of Debian packages: user, paths, volumes, ports and entry point are the same.

The archives are kept in the user's cache, since building all of them takes minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lyra_tasks.config.models import Rootfs
from lyra_tasks.engine.bases import rootfs
from lyra_tasks.engine.sandbox import Sandbox

_HERE = Path(__file__).parent
# what the entry points and the RUN instructions call
_TOOLS = ("base-files", "bash", "coreutils", "dash", "findutils", "grep", "sed", "tzdata", "util-linux")
PYTHON = ("python3", "python3-pika", "python3-psycopg2", "python3-pymysql", "python3-redis")


@dataclass(frozen=True)
class StandIn:
    """The Dockerfile in `directory`, the Debian packages that it adds, and the options of its build."""

    directory: str
    packages: tuple[str, ...]
    suite: str = "trixie"
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)

    @property
    def rootfs(self) -> Rootfs:
        """Return the root file system with the packages: unpacked only, so that no script sets up a server."""
        return Rootfs(suite=self.suite, packages=[*_TOOLS, *self.packages], variant="extract")

    def digest(self) -> str:
        """Return a hash of everything that the archive is made of, except the versions of the packages."""
        files = {path.name: path.read_text() for path in sorted((_HERE / self.directory).iterdir()) if path.is_file()}
        return hashlib.sha256(json.dumps([asdict(self), _TOOLS, files]).encode()).hexdigest()


STAND_INS: Mapping[str, StandIn] = {
    "postgres:17": StandIn("postgres", ("postgresql-17",)),
    # the paths of 18 with the program of 17, since no stable release of Debian has a newer one
    "postgres:18": StandIn(
        "postgres",
        ("postgresql-17",),
        arguments={"MAJOR": "18", "PGDATA": "/var/lib/postgresql/18/docker", "VOLUME": "/var/lib/postgresql"},
    ),
    "redis:8": StandIn("redis", ("redis-server",)),
    "mariadb:11": StandIn("mariadb", ("mariadb-server",)),
    "nginx:1.26": StandIn("nginx", ("curl", "nginx", "perl-base"), target="nginx"),
    "nginxinc/nginx-unprivileged:1.26": StandIn("nginx", ("curl", "nginx", "perl-base"), target="nginx-unprivileged"),
    "rabbitmq:4": StandIn("rabbitmq", ("rabbitmq-server",)),
    "memcached:1.6": StandIn("memcached", ("memcached",)),
    "python:3.13-slim": StandIn("python", PYTHON),
    "registry.example.org/pages/wiki:2.5": StandIn("wiki", PYTHON, arguments={"VERSION": "2.5"}),
    "registry.example.org/pages/wiki:2.6": StandIn("wiki", PYTHON, arguments={"VERSION": "2.6"}),
}


def archive_of(reference: str, box: Sandbox, cache: Path) -> Path:
    """Return the archive of a stand-in, from the cache or built on the engine `box`."""
    stand_in = STAND_INS[reference]
    name = reference.replace("/", "-").replace(":", "-")
    archive = cache / "tests" / "stand-ins" / f"{name}-{stand_in.digest()[:16]}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        _build(reference, stand_in, archive, box, cache)
    return archive


def load(references: Iterable[str], box: Sandbox, cache: Path) -> None:
    """Load stand-ins into the engine, under the names of the official images."""
    for reference in references:
        run_docker(box, "load", "--quiet", "--input", str(archive_of(reference, box, cache)))


def run_docker(box: Sandbox, *arguments: str) -> str:
    """Run docker with the engine and return its output."""
    environment = os.environ | box.environment() | {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    done = subprocess.run([str(box.docker), *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _build(reference: str, stand_in: StandIn, archive: Path, box: Sandbox, cache: Path) -> None:
    built = rootfs.build_rootfs(stand_in.rootfs, cache=cache)
    with tempfile.TemporaryDirectory(dir=archive.parent) as directory:
        context = Path(directory) / "context"
        shutil.copytree(_HERE / stand_in.directory, context)
        shutil.copyfile(built.tar, context / built.tar.name)
        options = [f"--build-arg={name}={value}" for name, value in stand_in.arguments.items()]
        options += [f"--target={stand_in.target}"] if stand_in.target else []
        run_docker(box, "build", "--tag", reference, *options, str(context))
        saved = Path(directory) / "image.tar"
        run_docker(box, "save", "--output", str(saved), reference)
        run_docker(box, "image", "rm", "--force", reference)
        saved.replace(archive)
