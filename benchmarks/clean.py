"""`clean` of 100 containers, 20 volumes and 10 networks, against `docker rm -f` and friends."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, Spent, in_turn, row, shell
from benchmarks.project import Project, engine, project
from lyra_tasks.config.load import load_config
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.connect import Engine, connect_engine
from lyra_tasks.engine.objects.containers import create_containers, create_networks, create_volumes
from lyra_tasks.engine.objects.holder import HOLD_PATH, ensure_holder_image
from lyra_tasks.engine.workspace import open_workspace

TIMES = 5
CONTAINERS, VOLUMES, NETWORKS = 100, 20, 10
RUNNING = (20, CONTAINERS)  # of the containers; the others were made and not started


def rows() -> Iterator[Row]:
    """Few of them running, and all; what is removed is made anew before each measurement, which is not measured."""
    with tempfile.TemporaryDirectory(prefix="lyra-bench-") as name, engine(Path(name), "containerd") as box:
        measured = project(Path(name), box, {"web": []})
        with _connected(measured, box) as (client, made):
            for running in RUNNING:
                yield _row(measured, running, made)
                left = [each for each in client.api.containers(all=True) if each["Names"][0].startswith("/bench-")]
                if left:
                    raise SystemExit(f"{len(left)} containers are left: nothing was measured")


def _row(measured: Project, running: int, made: Callable[[int], None]) -> Row:
    removal = " && ".join(
        (
            f"docker rm -f -v {' '.join(_numbered('container', CONTAINERS))}",
            f"docker volume rm {' '.join(_numbered('volume', VOLUMES))}",
            f"docker network rm {' '.join(_numbered('network', NETWORKS))}",
        )
    )

    def ours() -> Spent:
        made(running)
        return measured.word("clean")

    def theirs() -> Spent:
        made(running)
        return shell(removal, measured.root, measured.environment)

    found = in_turn(TIMES, clean=ours, docker=theirs)
    what = f"clean, {CONTAINERS} containers ({running} running), {VOLUMES} volumes, {NETWORKS} networks"
    return row(what, found["clean"], "docker rm -f, volume rm, network rm", found["docker"], 0.7)


@contextmanager
def _connected(measured: Project, box: sandbox.Sandbox) -> Iterator[tuple[Engine, Callable[[int], None]]]:
    """A connection to the engine, and what makes the objects there in our name, that many containers running."""
    before = dict(os.environ)
    os.environ |= {"XDG_STATE_HOME": measured.environment["XDG_STATE_HOME"], **box.environment()}
    try:
        work = open_workspace(load_config(measured.root))
        client = connect_engine(work.config, work.paths)

        def made(running: int) -> None:
            image = ensure_holder_image(client, work.owner)
            networks, volumes = _numbered("network", NETWORKS), _numbered("volume", VOLUMES)
            create_networks(client, work.owner, {name: {} for name in networks})
            create_volumes(client, work.owner, {name: {} for name in volumes})
            payloads = {
                name: _payload(image, networks[number % NETWORKS], volumes[number % VOLUMES])
                for number, name in enumerate(_numbered("container", CONTAINERS))
            }
            ids = create_containers(client, work.owner, payloads)
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(client.api.start, [identity for identity, _ in ids.values()][:running]))

        yield client, made
    finally:
        os.environ.clear()
        os.environ.update(before)


def _payload(image: str, network: str, volume: str) -> dict[str, Any]:
    """A container that does nothing, and as the first process in its namespace does not hear SIGTERM either."""
    mounts = [{"Type": "volume", "Source": volume, "Target": "/data"}]
    return {"Image": image, "Cmd": [HOLD_PATH], "HostConfig": {"NetworkMode": network, "Mounts": mounts}}


def _numbered(what: str, count: int) -> list[str]:
    return [f"bench-{what}-{number}" for number in range(count)]
