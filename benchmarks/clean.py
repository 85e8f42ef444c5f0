"""`clean` of 100 containers, 20 volumes and 10 networks, against `docker rm -f` and the like."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import Measurement, Row, create_row, measure_in_turn, measure_script
from benchmarks.project import Project, create_project, start_engine
from lyra_tasks.config.load import load_config
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine, connect_engine
from lyra_tasks.engine.objects.containers import create_containers, create_networks, create_volumes
from lyra_tasks.engine.objects.holder import HOLD_PATH, ensure_holder_image
from lyra_tasks.engine.workspace import open_workspace

ROUNDS = 5
CONTAINERS, VOLUMES, NETWORKS = 100, 20, 10
RUNNING = (20, CONTAINERS)  # the other containers are created but not started


def measure_clean() -> Iterator[Row]:
    """Measure with few and with all containers running; creating them is not measured."""
    with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name, start_engine(Path(name), "containerd") as box:
        sample = create_project(Path(name), box, {"web": []})
        with _connected(sample, box) as (client, create_objects):
            for running in RUNNING:
                yield _measure_row(sample, running, create_objects)
                containers = client.api.containers(all=True)
                leftovers = [item for item in containers if item["Names"][0].startswith("/bench-")]
                if leftovers:
                    raise SystemExit(f"{len(leftovers)} containers were not removed")


def _measure_row(sample: Project, running: int, create_objects: Callable[[int], None]) -> Row:
    removal = " && ".join(
        (
            f"docker rm -f -v {' '.join(_numbered_names('container', CONTAINERS))}",
            f"docker volume rm {' '.join(_numbered_names('volume', VOLUMES))}",
            f"docker network rm {' '.join(_numbered_names('network', NETWORKS))}",
        )
    )

    def ours() -> Measurement:
        create_objects(running)
        return sample.run("clean")

    def theirs() -> Measurement:
        create_objects(running)
        return measure_script(removal, sample.root, sample.environment)

    measurements = measure_in_turn(ROUNDS, clean=ours, docker=theirs)
    name = f"clean, {CONTAINERS} containers ({running} running), {VOLUMES} volumes, {NETWORKS} networks"
    return create_row(name, measurements["clean"], "docker rm -f, volume rm, network rm", measurements["docker"], 0.8)


@contextmanager
def _connected(sample: Project, box: sandbox.Sandbox) -> Iterator[tuple[Engine, Callable[[int], None]]]:
    """Yield a connection to the engine, and a function that creates the objects and starts some containers."""
    environment = dict(os.environ)
    os.environ |= {"XDG_STATE_HOME": sample.environment["XDG_STATE_HOME"], **box.environment()}
    try:
        work = open_workspace(load_config(sample.root))
        client = connect_engine(work.config, work.paths)

        def create_objects(running: int) -> None:
            image = ensure_holder_image(client, work.owner)
            networks, volumes = _numbered_names("network", NETWORKS), _numbered_names("volume", VOLUMES)
            create_networks(client, work.owner, {name: {} for name in networks})
            create_volumes(client, work.owner, {name: {} for name in volumes})
            payloads = {
                name: _payload(image, networks[number % NETWORKS], volumes[number % VOLUMES])
                for number, name in enumerate(_numbered_names("container", CONTAINERS))
            }
            ids = create_containers(client, work.owner, payloads)
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(client.api.start, [identity for identity, _ in ids.values()][:running]))

        yield client, create_objects
    finally:
        os.environ.clear()
        os.environ.update(environment)


def _payload(image: str, network: str, volume: str) -> dict[str, Any]:
    """Return a container that does nothing and, as the first process of its namespace, ignores SIGTERM."""
    mounts = [{"Type": "volume", "Source": volume, "Target": "/data"}]
    return {"Image": image, "Cmd": [HOLD_PATH], "HostConfig": {"NetworkMode": network, "Mounts": mounts}}


def _numbered_names(kind: str, count: int) -> list[str]:
    return [f"bench-{kind}-{number}" for number in range(count)]
