"""Root file systems made of packages of this machine's mirror: needs root and the mirror, not Docker."""

from __future__ import annotations

import platform
import tarfile
from pathlib import Path

import pytest

from lyra_tasks.config.models import Rootfs
from lyra_tasks.engine.bases.rootfs import BuiltRootfs, build_rootfs
from lyra_tasks.engine.debian.mirror import find_mirror
from lyra_tasks.errors import PreconditionError

PYTHON = Rootfs(suite="bookworm", packages=["python3", "ca-certificates"])
SMALL = Rootfs(suite="bookworm", packages=["busybox-static"], variant="extract")


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def python(roots: Path) -> BuiltRootfs:
    return build_rootfs(PYTHON, cache=roots)


@pytest.fixture(scope="module")
def small(roots: Path) -> BuiltRootfs:
    return build_rootfs(SMALL, cache=roots)


@pytest.mark.parametrize("spec", [PYTHON, SMALL], ids=lambda spec: str(spec.variant))
def test_the_same_packages_give_the_same_bytes_in_another_cache(
    spec: Rootfs, python: BuiltRootfs, small: BuiltRootfs, tmp_path: Path
) -> None:
    first = python if spec is PYTHON else small
    again = build_rootfs(spec, cache=tmp_path)
    assert again.tar.read_bytes() == first.tar.read_bytes()
    assert again.pin == first.pin


def test_bin_sbin_and_lib_are_links_into_usr_and_dev_is_an_empty_folder(
    python: BuiltRootfs, small: BuiltRootfs
) -> None:
    for made in (python, small):
        with tarfile.open(made.tar) as archive:
            assert archive.getmember("./bin").linkname == "usr/bin"
            assert archive.getmember("./sbin").linkname == "usr/sbin"
            assert [name for name in archive.getnames() if name.startswith("./dev")] == ["./dev"]


def test_packages_are_configured_and_licences_stay_while_documentation_goes(python: BuiltRootfs) -> None:
    with tarfile.open(python.tar) as archive:
        names = set(archive.getnames())
        documents = {each.name for each in archive if each.name.startswith("./usr/share/doc/") and not each.isdir()}
    assert {"./usr/bin/sh", "./etc/passwd", "./etc/ld.so.cache", "./etc/ssl/certs/ca-certificates.crt"} <= names
    assert "./usr/share/doc/python3/copyright" in names
    assert {Path(name).name for name in documents} == {"copyright"}
    assert not {"./usr/share/man", "./usr/share/locale", "./usr/share/info"} & names
    assert not [name for name in names if name.startswith(("./var/log/", "./var/lib/apt/lists/deb"))]


def test_nothing_of_this_machine_or_its_mirror_is_inside(python: BuiltRootfs) -> None:
    host = find_mirror().split("/")[2].encode()
    with tarfile.open(python.tar) as archive:
        assert not {"./etc/hostname", "./etc/resolv.conf", "./etc/apt/sources.list"} & set(archive.getnames())
        for member in archive:
            if member.isfile() and member.name.startswith(("./etc/", "./var/")):
                stream = archive.extractfile(member)
                assert stream is not None
                text = stream.read()
                # Maintainer scripts and descriptions of Debian's own packages name Debian's servers.
                assert host not in text or "/dpkg/info/" in member.name, member.name
                assert platform.node().encode() + b"\n" not in text or len(platform.node()) < 8, member.name


def test_what_was_asked_for_and_what_came_is_written_down(python: BuiltRootfs, small: BuiltRootfs) -> None:
    assert any(each.startswith("python3=3.") for each in python.pin.resolved)
    assert any(each.startswith("perl-base=") for each in python.pin.resolved)
    assert [each.split("=")[0] for each in small.pin.resolved] == ["busybox-static"]
    assert python.pin.matches(PYTHON)
    assert list(python.pin.tools) == ["mmdebstrap"]


def test_a_locked_root_in_the_cache_needs_neither_network_nor_tools(
    small: BuiltRootfs, roots: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build_rootfs(SMALL, cache=roots, pin=small.pin) == small


def test_an_unchanged_mirror_gives_the_cached_root_without_making_it_again(small: BuiltRootfs, roots: Path) -> None:
    before = small.tar.stat()
    assert build_rootfs(SMALL, cache=roots) == small
    assert small.tar.stat().st_ino == before.st_ino
    assert not (roots / "rootfs" / "staging").exists()


def test_a_locked_root_that_cannot_be_had_any_more_is_a_precondition(small: BuiltRootfs, roots: Path) -> None:
    gone = small.pin.model_copy(update={"sha256": "0" * 64, "resolved": ("busybox-static=1:0.1",)})
    with pytest.raises(PreconditionError) as caught:
        build_rootfs(SMALL, cache=roots, pin=gone)
    assert "the lock pins a bookworm root file system 000000000000" in caught.value.message
    assert small.pin.sha256[:12] in caught.value.message
    assert "bases.update" in caught.value.hint
    assert caught.value.details[0].startswith("busybox-static: 1:0.1 -> 1:1.")


def test_packages_of_another_platform_are_unpacked_and_never_set_up(small: BuiltRootfs, roots: Path) -> None:
    other = "arm64" if small.pin.architecture == "amd64" else "amd64"
    configured = small.pin.model_copy(update={"architecture": other, "variant": "custom", "sha256": "0" * 64})
    with pytest.raises(PreconditionError, match=f"packages for linux/{other} are not set up") as caught:
        build_rootfs(configured.spec, cache=roots, pin=configured, locations=("Dockerfile:1: tools",))
    assert ("extract" in caught.value.hint, caught.value.details) == (True, ("Dockerfile:1: tools",))
    made = build_rootfs(SMALL, cache=roots, architecture=other)
    assert (made.pin.architecture, made.pin.sha256 != small.pin.sha256) == (other, True)
    assert [each.split("=")[0] for each in made.pin.resolved] == ["busybox-static"]


def test_a_package_that_does_not_exist_is_named_and_nothing_stays(small: BuiltRootfs, roots: Path) -> None:
    with pytest.raises(PreconditionError) as caught:
        build_rootfs(Rootfs(suite="bookworm", packages=["no-such-package"], variant="extract"), cache=roots)
    assert "no-such-package" in caught.value.message
    assert any("no-such-package" in line for line in caught.value.details)
    assert not (roots / "rootfs" / "staging").exists()
