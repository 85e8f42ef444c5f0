"""Five services until they are healthy, against `docker compose up --wait` with the bundle's compose file.

Measured are `test --keep-running`, with the start of Python, one check that does nothing and the report, and `create`,
which does the same as Compose. Compose gets the health check intervals of a lab, so that neither waits longer.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import yaml

from benchmarks.measure import Measurement, Row, create_row, measure_in_turn, measure_script
from benchmarks.project import Project, create_project, start_engine
from lyra_tasks.engine.debian.mirror import host_architecture
from lyra_tasks.engine.objects.holder import REMOVE_PATH, build_holder_program

ROUNDS = 7
MAX_RATIO = 0.95
DEPENDS: dict[str, list[str]] = {
    "store": [],
    "cache": [],
    "counter": ["store"],
    "worker": ["store", "cache"],
    "web": ["counter"],
}
_SERVICE = """
[services.NAME]
image = "sample"
depends_on = DEPENDS
PORTSlimits = { cpus = 0.25, memory = "16m", pids = 16, disk = "2m" }
healthcheck = { exec = ["/remove"], interval = "1s", start_period = "60s" }

[services.NAME.volumes.data]
path = "/data"
size = "1m"
owner = "65534:65534"
description = "stored data"
"""


def measure_lab() -> Iterator[Row]:
    """Measure both commands, and `test` also without its start-up time."""
    with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name, start_engine(Path(name), "containerd") as box:
        sample = create_project(Path(name), box, {"sample": []})
        _write_five_services(sample)
        sample.run("build", "test", "promote")
        compose = f"docker compose --file {_write_compose_file(sample)} --project-name sample"

        def ours() -> Measurement:
            measurement = sample.run("test", "--keep-running")
            _remove_lab(sample)
            return measurement

        def create() -> Measurement:
            measurement = sample.run("create")
            sample.run("dev.stop")
            return measurement

        def theirs() -> Measurement:
            measurement = measure_script(f"{compose} up --wait --detach", sample.root, sample.environment)
            measure_script(f"{compose} down --volumes --timeout 0", sample.root, sample.environment)
            return measurement

        measurements = measure_in_turn(
            ROUNDS, ours=ours, theirs=theirs, create=create, start=partial(sample.run, "engine.status")
        )
    reference, compose_up = "docker compose up --wait", measurements["theirs"]
    yield create_row("test environment of 5 services", measurements["ours"], reference, compose_up, MAX_RATIO)
    yield create_row(
        "development environment of 5 services (create)", measurements["create"], reference, compose_up, MAX_RATIO
    )
    without_start = measurements["ours"].minus(measurements["start"])
    yield create_row(
        "test environment of 5 services, without start-up", without_start, reference, compose_up, MAX_RATIO
    )


def _write_five_services(sample: Project) -> None:
    """Replace the only service of a benchmark project by five."""
    root = sample.root
    (root / "sample" / "remove").write_bytes(build_holder_program(host_architecture(), REMOVE_PATH))
    (root / "sample" / "remove").chmod(0o755)
    (root / "sample" / "data").mkdir()
    (root / "sample" / "data" / ".keep").write_text("")
    lines = (
        "FROM scratch",
        "COPY hold remove /",
        "COPY --chown=65534:65534 data /data",
        "USER 65534:65534",
        'CMD ["/hold"]',
    )
    (root / "sample" / "Dockerfile").write_text("\n".join(lines) + "\n")
    head = (root / ".lyra.toml").read_text().partition("[services.")[0]
    services = "".join(
        _SERVICE.replace("NAME", name)
        .replace("DEPENDS", json.dumps(others))
        .replace("PORTS", "ports = { http = 8000 }\n" if name == "web" else "")
        for name, others in DEPENDS.items()
    )
    image = '\n[images.sample]\ncontext = "sample"\n'
    (root / ".lyra.toml").write_text(head + "[resources]\nhost_share = 1.0\n" + image + services)


def _write_compose_file(sample: Project) -> Path:
    (bundled,) = sample.root.glob("promotion/*/*/deploy/compose.yaml")
    document = yaml.safe_load(bundled.read_text())
    for service in document["services"].values():
        service["healthcheck"] |= {"interval": "1s", "start_period": "60s", "start_interval": "200ms"}
    file = sample.root / "promotion" / "compose.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def _remove_lab(sample: Project) -> None:
    """Remove the lab like `clean`, but keep the built image."""
    script = (
        "docker rm --force --volumes $(docker ps --all --quiet --filter label=dev.lyra.run)"
        "; docker network rm $(docker network ls --quiet --filter label=dev.lyra.run)"
        "; docker volume rm $(docker volume ls --quiet --filter label=dev.lyra.run)"
    )
    subprocess.run(
        ["bash", "-ec", script], cwd=sample.root, env=sample.environment, check=True, stdout=subprocess.DEVNULL
    )
