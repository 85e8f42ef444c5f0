"""Five services to healthy, against `docker compose up --wait` of the same: of the bundle's own compose file.

Ours is the whole of `test --keep-running`, with the start of Python, one check that does nothing and the report; and
`create`, which does no more than Compose: it makes the lab, and ends when it is healthy. Compose gets the rhythm in
which a lab asks for health, so that neither waits for the next time to ask.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import yaml

from benchmarks.measure import Row, Spent, in_turn, row, shell
from benchmarks.project import Project, engine, project
from lyra_tasks.engine.debian.mirror import host_architecture
from lyra_tasks.engine.objects.holder import REMOVE_PATH, build_holder_program

TIMES = 7
DEPENDS: dict[str, list[str]] = {
    "store": [],
    "cache": [],
    "counter": ["store"],
    "worker": ["store", "cache"],
    "web": ["counter"],
}
_SERVICE = """
[services.NAME]
image = "held"
depends_on = DEPENDS
PORTSlimits = { cpus = 0.25, memory = "16m", pids = 16, disk = "2m" }
healthcheck = { exec = ["/remove"], interval = "1s", start_period = "60s" }

[services.NAME.volumes.data]
path = "/data"
size = "1m"
owner = "65534:65534"
description = "what is kept"
"""


def rows() -> Iterator[Row]:
    """The whole word, and what is left without the start of Python, the configuration and the engine's first answer."""
    with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name, engine(Path(name), "containerd") as box:
        measured = project(Path(name), box, {"held": []})
        _five_services(measured)
        measured.word("build", "test", "promote")
        compose = f"docker compose --file {_compose_file(measured)} --project-name measured"

        def ours() -> Spent:
            spent = measured.word("test", "--keep-running")
            _remove_lab(measured)
            return spent

        def create() -> Spent:
            spent = measured.word("create")
            measured.word("dev.stop")
            return spent

        def theirs() -> Spent:
            spent = shell(f"{compose} up --wait --detach", measured.root, measured.environment)
            shell(f"{compose} down --volumes --timeout 0", measured.root, measured.environment)
            return spent

        found = in_turn(TIMES, ours=ours, theirs=theirs, create=create, start=partial(measured.word, "engine.status"))
    against, theirs_found = "docker compose up --wait", found["theirs"]
    yield row("lab of 5 services to healthy", found["ours"], against, theirs_found, 1.0)
    yield row("the same lab, to develop in (create)", found["create"], against, theirs_found, 1.0)
    beyond = found["ours"].beyond(found["start"])
    yield row("the lab of a test, beyond start-up", beyond, against, theirs_found, 1.0)


def _five_services(measured: Project) -> None:
    """In place of the one service that every measured project has."""
    root = measured.root
    (root / "held" / "remove").write_bytes(build_holder_program(host_architecture(), REMOVE_PATH))
    (root / "held" / "remove").chmod(0o755)
    (root / "held" / "data").mkdir()
    (root / "held" / "data" / ".keep").write_text("")
    lines = (
        "FROM scratch",
        "COPY hold remove /",
        "COPY --chown=65534:65534 data /data",
        "USER 65534:65534",
        'CMD ["/hold"]',
    )
    (root / "held" / "Dockerfile").write_text("\n".join(lines) + "\n")
    head = (root / ".lyra.toml").read_text().partition("[services.")[0]
    services = "".join(
        _SERVICE.replace("NAME", name)
        .replace("DEPENDS", json.dumps(others))
        .replace("PORTS", "ports = { http = 8000 }\n" if name == "web" else "")
        for name, others in DEPENDS.items()
    )
    image = '\n[images.held]\ncontext = "held"\n'
    (root / ".lyra.toml").write_text(head + "[resources]\nhost_share = 1.0\n" + image + services)


def _compose_file(measured: Project) -> Path:
    (bundled,) = measured.root.glob("promotion/*/*/deploy/compose.yaml")
    document = yaml.safe_load(bundled.read_text())
    for service in document["services"].values():
        service["healthcheck"] |= {"interval": "1s", "start_period": "60s", "start_interval": "200ms"}
    file = measured.root / "promotion" / "compose.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def _remove_lab(measured: Project) -> None:
    """As `clean` would, but the built image stays."""
    script = (
        "docker rm --force --volumes $(docker ps --all --quiet --filter label=dev.lyra.run)"
        "; docker network rm $(docker network ls --quiet --filter label=dev.lyra.run)"
        "; docker volume rm $(docker volume ls --quiet --filter label=dev.lyra.run)"
    )
    subprocess.run(
        ["bash", "-ec", script], cwd=measured.root, env=measured.environment, check=True, stdout=subprocess.DEVNULL
    )
