"""A user of the group `docker`, who is not root: from an empty state to a bundle, a development environment, and clean.

That a base of packages is the same for such a user is in `test_rootfs.py`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lyra_tasks.engine import sandbox
from tests.conftest import Project
from tests.engine.relay import relayed
from tests.engine.users import DOCKER_GID, UID, User, other_user


def test_all_works_for_a_user_of_the_group_docker(box: sandbox.Sandbox, tiny: Project) -> None:
    with other_user() as user, relayed(box.socket, user.place) as engine:
        _give_to(user, tiny.root, "project")
        _give_to(user, box.config_dir, ".docker")
        os.chown(user.place / "relay.sock", 0, DOCKER_GID)
        (user.place / "relay.sock").chmod(0o660)
        hidden = ("XDG_", "DOCKER_", "LYRA_")
        environment = {key: value for key, value in tiny.environment.items() if not key.startswith(hidden)}
        engine_directory = box.docker.parents[1].resolve()
        path = f"{engine_directory / 'cli'}:{environment['PATH']}"
        environment |= {"DOCKER_HOST": engine.address, "PATH": path}
        for arguments in (["doctor", "build", "test", "promote", "create"], ["clean"]):
            outcome = user.run(
                tiny.command(*arguments),
                environment,
                programs=None,
                directory=user.home / "project",
                shown=[engine_directory],
                # published ports are on the loopback interface of the engine
                network=Path(f"/proc/{box.pid}/ns/net"),
            )
            assert outcome.returncode == 0, f"{arguments}: {outcome.stdout}{outcome.stderr}"
        bundles = list((user.home / "project" / "promotion").glob("*/*/manifest.json"))
        assert [path.stat().st_uid for path in bundles] == [UID]


def _give_to(user: User, directory: Path, name: str) -> None:
    """Copy a directory into the home of a user."""
    shutil.copytree(directory, user.home / name, symlinks=True)
    for path in [user.home / name, *(user.home / name).rglob("*")]:
        os.chown(path, UID, UID, follow_symlinks=False)
