"""Packages of an image, from the package databases in its layers."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from lyra_tasks.errors import BundleError
from lyra_tasks.images.stream.packages import (
    ImagePackages,
    OsRelease,
    Package,
    list_packages,
    load_layer_packages,
    merge_layer_packages,
    read_layer_packages,
    save_layer_packages,
)
from tests.images.saves import layer, pieces, tar

STATUS = b"""Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u10
Description: C library
 Package: not-this-one

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: tzdata
Status: install ok installed
Architecture: all
Version: 2024a-0+deb12u1
"""
INSTALLED = b"C:Q1abc=\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\nF:lib\nR:ld\n\nP:zlib\nV:1.3.1-r1\nA:x86_64\n\n"
METADATA = b"Metadata-Version: 2.1\nName: Foo_Bar\nVersion: 1.0.post1\nLicense-Expression: MIT\n\nName: not this\n"
RELEASE = b'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n'

LIBC = Package(kind="deb", name="libc6", version="2.36-9+deb12u10", arch="amd64")
TZDATA = Package(kind="deb", name="tzdata", version="2024a-0+deb12u1", arch="all")
MUSL = Package(kind="apk", name="musl", version="1.2.5-r0", arch="x86_64", license="MIT")
ZLIB = Package(kind="apk", name="zlib", version="1.3.1-r1", arch="x86_64")
FOO = Package(kind="pypi", name="Foo_Bar", version="1.0.post1", license="MIT")


def npm(name: str, version: str = "1.0.0") -> bytes:
    return json.dumps({"name": name, "version": version, "license": "ISC"}).encode()


def read_packages(*layers: bytes) -> ImagePackages:
    return merge_layer_packages(read_layer_packages(pieces(layer), "layer") for layer in layers)


def names(*layers: bytes) -> list[str]:
    return [package.name for package in list_packages(read_packages(*layers))]


@pytest.mark.parametrize(
    ("files", "packages"),
    [
        ({"var/lib/dpkg/status": STATUS}, [LIBC, TZDATA]),
        ({"./var/lib/dpkg/status": STATUS}, [LIBC, TZDATA]),
        ({"var/lib/dpkg/status.d/base": b"Package: base-files\nVersion: 12\n"},
         [Package(kind="deb", name="base-files", version="12")]),
        ({"lib/apk/db/installed": INSTALLED}, [MUSL, ZLIB]),
        ({"usr/lib/apk/db/installed": INSTALLED}, [MUSL, ZLIB]),
        ({"opt/venv/lib/python3.12/site-packages/foo_bar-1.0.dist-info/METADATA": METADATA}, [FOO]),
        ({"usr/lib/python3/dist-packages/foo_bar-1.0.egg-info/PKG-INFO": METADATA}, [FOO]),
        ({"app/node_modules/left-pad/package.json": npm("left-pad")},
         [Package(kind="npm", name="left-pad", version="1.0.0", license="ISC")]),
        ({"node_modules/@types/node/package.json": npm("@types/node")},
         [Package(kind="npm", name="@types/node", version="1.0.0", license="ISC")]),
        ({"node_modules/a/test/package.json": npm("fixture"), "package.json": npm("own")}, []),
        ({"var/lib/dpkg/status-old": STATUS, "home/lib/apk/db/installed": INSTALLED, "a/METADATA": METADATA}, []),
    ],
)  # fmt: skip
def test_records_of_every_kind_are_parsed(files: Mapping[str, bytes], packages: list[Package]) -> None:
    assert list(list_packages(read_packages(layer(files)))) == packages


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"{", b"[1]", b'{"name": 1, "version": "1"}', b"[" * 100_000])
def test_record_invalid_yields_nothing(data: bytes) -> None:
    files = ("node_modules/a/package.json", "var/lib/dpkg/status", "lib/apk/db/installed", "x.dist-info/METADATA")
    assert names(layer(dict.fromkeys(files, data))) == []


@pytest.mark.parametrize(
    ("state", "is_installed"),
    [("installed", True), ("triggers-pending", True), ("triggers-awaited", True), ("half-configured", True),
     ("unpacked", True), ("half-installed", False), ("config-files", False), ("not-installed", False)],
)  # fmt: skip
def test_dpkg_state_with_files_counts_as_installed(state: str, is_installed: bool) -> None:
    status = b"Package: man-db\nVersion: 1\nStatus: install ok " + state.encode() + b"\n"
    assert names(layer({"var/lib/dpkg/status": status})) == ["man-db"] * is_installed


def test_package_in_several_places_is_listed_once() -> None:
    paths = [f"{directory}/node_modules/a/package.json" for directory in ("app", "lib")]
    ((_, package_paths),) = list_packages(read_packages(layer(dict.fromkeys(paths, npm("a"))))).items()
    assert package_paths == paths


def test_os_release_is_read_from_either_path() -> None:
    debian = OsRelease(id="debian", version="12", name="Debian GNU/Linux 12 (bookworm)")
    assert read_packages(layer({"usr/lib/os-release": RELEASE})).os_release == debian
    linked = tar([("usr/lib/os-release", RELEASE), ("etc/os-release", "../usr/lib/os-release")])
    assert read_packages(linked).os_release == debian
    assert read_packages(linked, layer({"etc/os-release": b"ID=alpine\n"})).os_release == OsRelease(
        id="alpine", version="", name=""
    )
    assert read_packages(layer({"etc/passwd": b""})).os_release is None


A, B = "app/node_modules/a/package.json", "app/node_modules/b/package.json"
LOWER = layer({A: npm("a"), B: npm("b")})


@pytest.mark.parametrize(
    ("upper", "remaining"),
    [
        ([("app/node_modules/a/.wh.package.json", b"")], ["b"]),
        ([("app/node_modules/.wh.a", b"")], ["b"]),
        ([("app/.wh.node_modules", b"")], []),
        ([(".wh.app", b"")], []),
        ([("app/.wh..wh..opq", b"")], []),
        ([(".wh..wh..opq", b"")], []),
        ([("app/.wh..wh..opq", b""), (A, npm("new"))], ["new"]),
        ([(A, npm("new")), ("app/.wh..wh..opq", b"")], ["new"]),
        ([(A, npm("a", "2.0.0"))], ["a", "b"]),
        ([(A, b"")], ["b"]),
        ([(A, "elsewhere")], ["b"]),
        ([("app/node_modules/a", "elsewhere")], ["b"]),
        ([("app/node_modules", "elsewhere")], []),
        ([("ap/.wh.p", b""), ("app/.wh.node", b""), ("app/nodexmodules", "x")], ["a", "b"]),
    ],
)
def test_upper_layer_hides_removed_and_replaced_packages(
    upper: list[tuple[str, bytes | str]], remaining: list[str]
) -> None:
    assert names(LOWER, tar(upper)) == remaining
    assert names(tar(upper), LOWER) == ["a", "b"], "a layer only removes from lower layers"


def test_hard_link_has_packages_of_its_target() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(A)
        info.size = len(npm("a"))
        archive.addfile(info, io.BytesIO(npm("a")))
        link = tarfile.TarInfo("lib/node_modules/a/package.json")
        link.type, link.linkname = tarfile.LNKTYPE, A
        archive.addfile(link)
    assert read_packages(buffer.getvalue()).packages.keys() == {A, "lib/node_modules/a/package.json"}


def test_long_names_are_read_in_both_formats() -> None:
    path = f"{'d' * 90}/{'e' * 200}/node_modules/a/package.json"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
            info = tarfile.TarInfo(path)
            info.size = len(npm("a"))
            archive.addfile(info, io.BytesIO(npm("a")))
        assert read_packages(buffer.getvalue()).packages.keys() == {path}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_non_utf8_names_survive_the_cache(form: int, tmp_path: Path) -> None:
    directory = b"caf\xe9".decode(errors="surrogateescape")
    path = f"{directory}{'/' + 'd' * 150 if form != tarfile.USTAR_FORMAT else ''}/node_modules/a/package.json"
    odd = b'{"name": "a\\ud800", "version": "1"}'
    files = {path: npm("a"), f"{directory}/.wh.{directory}": b"", "node_modules/b/package.json": odd}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    packages = read_layer_packages(pieces(buffer.getvalue()), "layer")
    save_layer_packages(tmp_path, "sha256:1", packages)
    assert load_layer_packages(tmp_path, "sha256:1") == packages
    assert list(merge_layer_packages([packages]).packages) == [
        path.replace(directory, "caf\\xe9"),
        "node_modules/b/package.json",
    ]
    assert [package.name for package in list_packages(merge_layer_packages([packages]))] == ["a"]
    assert packages.removed == ["caf\\xe9/caf\\xe9"]


def test_record_too_large_is_skipped() -> None:
    big = b'{"name": "a", "version": "1", "x": "' + b"x" * 17 * 1024**2 + b'"}'
    assert names(layer({A: big, B: npm("b")})) == ["b"]


def test_layer_without_end_is_read_and_truncated_is_refused() -> None:
    complete = layer({A: npm("a")})
    assert names(complete[:1024]) == ["a"]
    with pytest.raises(BundleError):
        read_packages(layer({"large": bytes(5000)})[:2000])
