"""Root file systems built from packages of this machine's mirror: needs root and the mirror, but not Docker.

What the same code has built of the same packages is kept in the user's cache, since it takes most of the time here.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import lyra_tasks.engine
from lyra_tasks.config.models import Rootfs
from lyra_tasks.digests import file_sha256, sha256_hex
from lyra_tasks.engine.bases.rootfs import build_rootfs
from lyra_tasks.engine.bases.rootfs_cache import BuiltRootfs
from lyra_tasks.engine.debian.mirror import find_mirror
from lyra_tasks.errors import PreconditionError
from lyra_tasks.locks import file_lock
from tests.conftest import REPOSITORY
from tests.engine.users import RANGE, UID, User, other_user
from tests.packages import unpacked
from tests.thorough import keep

CONFIGURED = Rootfs(suite="bookworm", packages=["ca-certificates"])
PYTHON = Rootfs(suite="bookworm", packages=["python3"])  # compiles its library when it is set up
SMALL = Rootfs(suite="bookworm", packages=["busybox-static"], variant="extract")


@pytest.fixture(scope="module")
def roots(cache: Path) -> Path:
    """A cache of just this code, so that all is built again when the code changes; those of older code are removed."""
    engine = Path(lyra_tasks.engine.__file__).parent
    sources = sorted([*engine.glob("bases/rootfs*.py"), *engine.glob("debian/*.py")])
    assert len(sources) > 5
    directory = cache / "tests" / "rootfs" / sha256_hex("".join(map(file_sha256, sources)).encode())[:16]
    directory.mkdir(parents=True, exist_ok=True)
    os.utime(directory)
    for other in directory.parent.iterdir():
        if other.stat().st_mtime < time.time() - 24 * 3600:
            shutil.rmtree(other)
    return directory


def copy_packages(roots: Path, directory: Path) -> None:
    """Copy what was downloaded, but not what was built of it."""
    shutil.copytree(roots / "apt", directory / "apt")
    shutil.copytree(roots / "rootfs" / "debs", directory / "rootfs" / "debs")


def has_staging(roots: Path) -> bool:
    """Return whether a build has left its files; none of another session runs meanwhile."""
    with file_lock(roots / "rootfs" / "lock", resource="the cache of root file systems", timeout=900):
        return (roots / "rootfs" / "staging").exists()


@pytest.fixture(scope="module")
def configured(roots: Path) -> BuiltRootfs:
    return build_rootfs(CONFIGURED, cache=roots)


@pytest.fixture(scope="module")
def small(roots: Path) -> BuiltRootfs:
    return build_rootfs(SMALL, cache=roots)


@pytest.mark.parametrize("spec", keep(1, [SMALL, PYTHON]), ids=lambda spec: str(spec.variant))
def test_rootfs_does_not_depend_on_the_environment(
    spec: Rootfs, roots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_rootfs(spec, cache=roots)
    if "PYTHONDONTWRITEBYTECODE" in os.environ:
        monkeypatch.delenv("PYTHONDONTWRITEBYTECODE")
    else:
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    for name, value in {
        "HOME": "/nonexistent",
        "TMPDIR": "/nonexistent",
        "LC_ALL": "de_DE.UTF-8",
        "TZ": "UTC-9",
    }.items():
        monkeypatch.setenv(name, value)
    other = tmp_path / "other cache, with a 'quote'"
    copy_packages(roots, other)
    umask = os.umask(0o077)
    try:
        again = build_rootfs(spec, cache=other)
    finally:
        os.umask(umask)
    assert again.tar.read_bytes() == first.tar.read_bytes()
    assert again.pin == first.pin


BUILD = """
import sys
from pathlib import Path
from lyra_tasks.config.models import Rootfs
from lyra_tasks.engine.bases.rootfs import build_rootfs
from lyra_tasks.engine.debian.namespaces import require_user_namespaces
from lyra_tasks.errors import LyraError
try:
    if len(sys.argv) == 1:
        require_user_namespaces()
    else:
        print(build_rootfs(Rootfs.model_validate_json(sys.argv[1]), cache=Path("cache").absolute()).pin.sha256)
except LyraError as error:
    sys.exit(f"{error.message}\\n{error.hint}")
"""


@pytest.fixture(scope="module")
def ada(roots: Path, small: BuiltRootfs) -> Iterator[User]:
    """A user with a closed home, who has downloaded the packages."""
    with other_user() as user:
        copy_packages(roots, user.home / "cache")
        for path in (user.home / "cache", *(user.home / "cache").rglob("*")):
            os.chown(path, UID, UID)
        yield user


def run_as(user: User, *arguments: str, programs: Path | None, ids: str = RANGE) -> subprocess.CompletedProcess[str]:
    """Build a root file system as the user, or without arguments only check whether that is possible.

    `programs` is the directory of newuidmap and newgidmap, `ids` the lines of /etc/subuid.
    """
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return user.run([sys.executable, "-c", BUILD, *arguments], environment, programs=programs, ids=ids)


def test_user_without_user_namespaces_is_told_what_to_install(ada: User, cache: Path) -> None:
    if shutil.which("newuidmap") is None:
        result = run_as(ada, programs=None)
        assert result.returncode == 1
        assert "newuidmap is not installed\nRun `sudo apt-get install uidmap`" in result.stderr
    programs = unpacked(cache, "uidmap") / "usr" / "bin"
    result = run_as(ada, SMALL.model_dump_json(), programs=programs, ids=RANGE.replace("ada", "eve"))
    assert result.returncode == 1
    assert "have no range for this user\nRun `sudo usermod --add-subuids" in result.stderr


def test_rootfs_is_the_same_for_a_user_other_than_root(ada: User, small: BuiltRootfs, cache: Path) -> None:
    result = run_as(ada, SMALL.model_dump_json(), programs=unpacked(cache, "uidmap") / "usr" / "bin")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{small.pin.sha256}\n"


def test_rootfs_has_merged_usr_and_empty_dev(configured: BuiltRootfs, small: BuiltRootfs) -> None:
    for built in (configured, small):
        with tarfile.open(built.tar) as archive:
            assert archive.getmember("./bin").linkname == "usr/bin"
            assert archive.getmember("./sbin").linkname == "usr/sbin"
            assert [name for name in archive.getnames() if name.startswith("./dev")] == ["./dev"]


def test_rootfs_is_configured_and_keeps_licences_only(configured: BuiltRootfs) -> None:
    with tarfile.open(configured.tar) as archive:
        names = set(archive.getnames())
        documents = {
            member.name for member in archive if member.name.startswith("./usr/share/doc/") and not member.isdir()
        }
    assert {"./usr/bin/sh", "./etc/passwd", "./etc/ld.so.cache", "./etc/ssl/certs/ca-certificates.crt"} <= names
    assert "./usr/share/doc/ca-certificates/copyright" in names
    assert {Path(name).name for name in documents} == {"copyright"}
    assert not {"./usr/share/man", "./usr/share/locale", "./usr/share/info"} & names
    assert not [name for name in names if name.startswith(("./var/log/", "./var/lib/apt/lists/deb"))]


def test_rootfs_has_no_traces_of_machine_or_mirror(configured: BuiltRootfs) -> None:
    host = find_mirror().split("/")[2].encode()
    with tarfile.open(configured.tar) as archive:
        assert not {"./etc/hostname", "./etc/resolv.conf", "./etc/apt/sources.list"} & set(archive.getnames())
        for member in archive:
            if member.isfile() and member.name.startswith(("./etc/", "./var/")):
                stream = archive.extractfile(member)
                assert stream is not None
                text = stream.read()
                # Maintainer scripts and package descriptions may name Debian's servers.
                assert host not in text or "/dpkg/info/" in member.name, member.name
                assert platform.node().encode() + b"\n" not in text or len(platform.node()) < 8, member.name


def test_rootfs_pin_lists_packages_and_tools(configured: BuiltRootfs, small: BuiltRootfs) -> None:
    assert any(package.startswith("ca-certificates=20") for package in configured.pin.resolved)
    assert any(package.startswith("perl-base=") for package in configured.pin.resolved)
    assert [package.split("=")[0] for package in small.pin.resolved] == ["busybox-static"]
    assert configured.pin.matches(CONFIGURED)
    assert list(configured.pin.tools) == ["mmdebstrap"]


def test_cached_rootfs_needs_no_network_or_tools(
    small: BuiltRootfs, roots: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build_rootfs(SMALL, cache=roots, pin=small.pin) == small


def test_unchanged_mirror_reuses_cached_rootfs(small: BuiltRootfs, roots: Path) -> None:
    before = small.tar.stat()
    assert build_rootfs(SMALL, cache=roots) == small
    assert small.tar.stat().st_ino == before.st_ino
    assert not has_staging(roots)


def test_unavailable_locked_rootfs_is_precondition_error(small: BuiltRootfs, roots: Path) -> None:
    unavailable = small.pin.model_copy(update={"sha256": "0" * 64, "resolved": ("busybox-static=1:0.1",)})
    with pytest.raises(PreconditionError) as caught:
        build_rootfs(SMALL, cache=roots, pin=unavailable)
    assert "Locked bookworm root file system 000000000000 is not available" in caught.value.message
    assert small.pin.sha256[:12] in caught.value.message
    assert "lock.update" in caught.value.hint
    assert caught.value.details[0].startswith("busybox-static: 1:0.1 -> 1:1.")


def test_foreign_packages_are_only_extracted(small: BuiltRootfs, roots: Path) -> None:
    other = "arm64" if small.pin.architecture == "amd64" else "amd64"
    configured = small.pin.model_copy(update={"architecture": other, "variant": "custom", "sha256": "0" * 64})
    with pytest.raises(PreconditionError, match=f"Cannot set up packages for linux/{other}") as caught:
        build_rootfs(configured.spec, cache=roots, pin=configured, locations=("Dockerfile:1: tools",))
    assert ("extract" in caught.value.hint, caught.value.details) == (True, ("Dockerfile:1: tools",))
    built = build_rootfs(SMALL, cache=roots, architecture=other)
    assert (built.pin.architecture, built.pin.sha256 != small.pin.sha256) == (other, True)
    assert [package.split("=")[0] for package in built.pin.resolved] == ["busybox-static"]


def test_rootfs_of_missing_package_leaves_nothing(small: BuiltRootfs, roots: Path) -> None:
    with pytest.raises(PreconditionError) as caught:
        build_rootfs(Rootfs(suite="bookworm", packages=["no-such-package"], variant="extract"), cache=roots)
    assert "no-such-package" in caught.value.message
    assert any("no-such-package" in line for line in caught.value.details)
    assert not has_staging(roots)
