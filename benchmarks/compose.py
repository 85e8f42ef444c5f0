"""Commands of a project that is configured by a Compose file, against the same project in `.lyra.toml` alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import yaml

from benchmarks.measure import Row, create_row, measure_in_turn
from benchmarks.project import Project, commit_all, create_project, start_engine
from lyra_tasks.engine.sandbox import Sandbox

ROUNDS = 7
SERVICES = 5
MAX_RATIO = 1.3
_LIMITS = {"cpus": "0.1", "memory": "16m", "pids": 8}
_SERVICE = """
[services.NAME]
image = "one"
environment.MODE = { default = "fast", description = "how it works" }
limits = { cpus = 0.1, memory = "16m", pids = 8, disk = "1m" }
"""


def measure_compose() -> Iterator[Row]:
    """Measure commands that have nothing to do, from the second one on."""
    with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name, start_engine(Path(name), "containerd") as box:
        plain = _create_plain_project(Path(name, "plain"), box)
        composed = _create_compose_project(Path(name, "compose"), box)
        for command in ("build", "status"):
            for project in (plain, composed):
                project.run(command)
            measurements = measure_in_turn(
                ROUNDS, plain=partial(plain.run, command), compose=partial(composed.run, command)
            )
            yield create_row(
                f"{command} of a Compose project, {SERVICES} services",
                measurements["compose"],
                "the same in .lyra.toml",
                measurements["plain"],
                MAX_RATIO,
            )


def _create_plain_project(directory: Path, box: Sandbox) -> Project:
    project = create_project(directory, box, {"one": []})
    config = project.root / ".lyra.toml"
    head, _, _ = config.read_text().partition("[services.")
    config.write_text(
        f'{head}[images.one]\ncontext = "one"\n'
        + "".join(_SERVICE.replace("NAME", f"s{number}") for number in range(SERVICES))
    )
    commit_all(project.root)
    return project


def _create_compose_project(directory: Path, box: Sandbox) -> Project:
    project = create_project(directory, box, {"one": []})
    config = project.root / ".lyra.toml"
    config.write_text(config.read_text().partition("[services.")[0])
    service = {"build": "./one", "environment": {"MODE": "fast"}, "deploy": {"resources": {"limits": _LIMITS}}}
    document = {"services": {f"s{number}": {"image": "one", **service} for number in range(SERVICES)}}
    (project.root / "compose.yaml").write_text(yaml.safe_dump(document))
    commit_all(project.root)
    return project
