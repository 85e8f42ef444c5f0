"""Programs of others that read archives of images: Debian's skopeo, umoci and podman, unpacked but not installed."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

# Including libraries that a machine may lack; from bookworm, so that they also run on newer systems.
READERS = (
    *("skopeo", "umoci", "podman", "conmon", "crun"),
    *("libgpgme11", "libassuan0", "libgpg-error0", "libdevmapper1.02.1", "libsubid4", "libseccomp2"),
    *("libyajl2", "libglib2.0-0"),
)


def run_reader(readers: Path, name: str, *arguments: str, home: str = "/nonexistent") -> str:
    """Run one of the programs and return its output."""
    libraries = sorted({str(path.parent) for path in readers.glob("**/*.so.*")})
    environment = os.environ | {"LD_LIBRARY_PATH": ":".join(libraries), "HOME": home}
    command = [str(readers / "usr" / "bin" / name), *arguments]
    result = subprocess.run(command, env=environment, cwd=readers, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@contextmanager
def podman_in(readers: Path) -> Iterator[Callable[..., str]]:
    """Yield a function that runs podman with its own store, in a short path, which podman needs."""
    programs = readers / "usr" / "bin"
    with tempfile.TemporaryDirectory(prefix="pod") as place:
        policy = Path(place, ".config/containers/policy.json")
        policy.parent.mkdir(parents=True)
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        options = (
            *("--root", f"{place}/root", "--runroot", f"{place}/run", "--tmpdir", f"{place}/tmp"),
            *("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"),
            *("--conmon", str(programs / "conmon"), "--runtime", str(programs / "crun")),
        )
        yield partial(run_reader, readers, "podman", *options, home=place)
