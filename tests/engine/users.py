"""A user other than root, with a closed home, in a mount namespace: no user is added to this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

UID, DOCKER_GID = 54321, 54322
RANGE = "ada:200000:65536\n"
_AS_ADA = """
mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/ids" /etc/subuid && mount --bind "$1/ids" /etc/subgid
[ -z "$2" ] || { mount -t tmpfs none /usr/local/sbin && cp -p "$2"/* /usr/local/sbin && chmod u+s /usr/local/sbin/*; }
mkdir -p "$1/root" && mount --rbind /root "$1/root" && mount -t tmpfs -o mode=755 none /root
for path in $4; do mkdir -p "/root/$path" && mount --bind "$1/root/$path" "/root/$path" || exit; done
cd "$3" && shift 4
"""


@dataclass(frozen=True)
class User:
    """A user `ada`, and the directory with her home."""

    place: Path

    @property
    def home(self) -> Path:
        """Return her home."""
        return self.place / "home"

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        programs: Path | None,
        ids: str = RANGE,
        directory: Path | None = None,
        shown: Sequence[Path] = (),
        network: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; `programs` is the directory of newuidmap and newgidmap, `ids` the lines of /etc/subuid.

        Of root's home, she sees the program and what is `shown`. `network` is the namespace of another network.
        """
        (self.place / "ids").write_text(ids)
        switch = f'exec setpriv --reuid={UID} --regid={UID} --groups={DOCKER_GID} "$@"'
        surroundings = ["nsenter", f"--net={network}", "--"] if network else []
        surroundings += ["unshare", "--mount", "sh", "-c", _AS_ADA + switch, "sh"]
        needed = [Path(sys.base_prefix), REPOSITORY, Path(sys.prefix), *shown]
        below_root = [path for path in needed if path.is_relative_to("/root")]
        places = [str(self.place), str(programs or ""), str(directory or self.home)]
        places.append(" ".join(str(path.relative_to("/root")) for path in below_root))
        variables = {**environment, "HOME": str(self.home)}
        return subprocess.run(
            [*surroundings, *places, *command], env=variables, capture_output=True, text=True, check=False
        )


@contextmanager
def other_user() -> Iterator[User]:
    """Yield a user whose home is removed afterwards."""
    for file in ("/etc/subuid", "/etc/subgid"):
        Path(file).touch()  # where they are mounted
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "passwd").write_text(f"{Path('/etc/passwd').read_text()}ada:x:{UID}:{UID}::{place}/home:/bin/sh\n")
        (place / "home").mkdir(mode=0o700)
        os.chown(place / "home", UID, UID)
        yield User(place)
