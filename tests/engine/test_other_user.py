"""A user of the group `docker`, who is not root: from a base of packages to a bundle, and clean."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lyra_tasks.engine import sandbox
from tests.engine.clones import clone
from tests.engine.relay import relayed
from tests.engine.users import DOCKER_GID, UID, User, other_user
from tests.packages import unpacked


def test_whole_demo_works_for_a_user_of_the_group_docker(box: sandbox.Sandbox, cache: Path, tmp_path: Path) -> None:
    demo = clone(tmp_path, cache, box)
    programs = unpacked(cache, "uidmap") / "usr" / "bin"
    with other_user() as user, relayed(box.socket, user.place) as engine:
        _give_to(user, demo.root, "project")
        _give_to(user, box.config_dir, ".docker")
        os.chown(user.place / "relay.sock", 0, DOCKER_GID)
        (user.place / "relay.sock").chmod(0o660)
        hidden = ("XDG_", "DOCKER_", "LYRA_")
        environment = {key: value for key, value in demo.environment.items() if not key.startswith(hidden)}
        engine_directory = box.docker.parents[1].resolve()
        path = f"{engine_directory / 'cli'}:{environment['PATH']}"
        environment |= {"DOCKER_HOST": engine.address, "PATH": path}
        # published ports are on the loopback interface of the engine, which cannot reach the mirror
        there = Path(f"/proc/{box.pid}/ns/net")
        for arguments, network in (
            (["doctor"], None),
            (["build"], None),
            (["test", "promote"], there),
            (["create"], there),
            (["clean"], None),
        ):
            command = demo.command(*arguments)
            outcome = user.run(
                command,
                environment,
                programs=programs,
                directory=user.home / "project",
                shown=[engine_directory],
                network=network,
            )
            assert outcome.returncode == 0, f"{arguments}: {outcome.stdout}{outcome.stderr}"
        bundles = list((user.home / "project" / "promotion").glob("*/*/manifest.json"))
        assert [path.stat().st_uid for path in bundles] == [UID]


def _give_to(user: User, directory: Path, name: str) -> None:
    """Copy a directory into the home of a user."""
    shutil.copytree(directory, user.home / name, symlinks=True)
    for path in [user.home / name, *(user.home / name).rglob("*")]:
        os.chown(path, UID, UID, follow_symlinks=False)
