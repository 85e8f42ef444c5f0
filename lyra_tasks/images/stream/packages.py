"""List the packages of an image by the package databases of Debian, Alpine, Python and npm in its layers.

A layer is read once, as a stream, and only files that record packages are parsed. Layers are merged as engines do it,
lowest first, with their whiteouts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeGuard, TypeVar

from pydantic import Field

from lyra_tasks.digests import hex_part
from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import mark_used
from lyra_tasks.images.stream.tar import SECTOR_BYTES, Block, BlockReader, TarHeader, read_tar_members
from lyra_tasks.records.record import Record, read_valid_record, write_record

T = TypeVar("T")

_MAX_RECORD_BYTES = 16 * 1024**2
_WHITEOUT_PREFIX = ".wh."
_OPAQUE_WHITEOUT = ".wh..wh..opq"
# a quick filter: most paths do not match
_RELEVANT_PATH = re.compile(r"node_modules|-info|^var|^(usr/)?lib/apk/|os-release$")
_OS_RELEASE_PATHS = ("etc/os-release", "usr/lib/os-release")
# an entry with such a name that is not a directory hides what lower layers have below it
_RECORD_PARENTS = re.compile(
    r"(.+/)?(node_modules(/@[^/]+)?(/[^/@]+)?|[^/]+\.(dist|egg)-info)|var(/lib(/dpkg(/status\.d)?)?)?"
)
# the files of a package that is not configured completely are present all the same
_INSTALLED_STATES = (["installed"], ["triggers-pending"], ["triggers-awaited"], ["half-configured"], ["unpacked"])

Kind = Literal["deb", "apk", "pypi", "npm"]


class Package(Record):
    """An installed package; `arch` and `license` may be empty.

    `source` and `source_version` are those of the package that it was built from, if they are others.
    """

    kind: Kind
    name: str
    version: str
    arch: str = ""
    license: str = ""
    source: str = ""
    source_version: str = ""

    @property
    def source_name(self) -> str:
        """Return the name of the package that it was built from, by which distributions track vulnerabilities."""
        return self.source or self.name

    @property
    def upstream_version(self) -> str:
        """Return the version of the package that it was built from."""
        return self.source_version or self.version


class OsRelease(Record):
    """The content of `os-release`: `debian`, `12`, `Debian GNU/Linux 12 (bookworm)`, `bookworm`."""

    id: str
    version: str
    name: str
    codename: str = ""


def parse_dpkg_status(data: bytes) -> list[Package]:
    """Parse Debian's `status` or a file in `status.d`, without packages of which only the configuration is left."""
    return [
        _describe_deb(stanza)
        for stanza in _read_stanzas(data, ": ")
        if stanza.get("Package")
        and stanza.get("Version")
        and stanza.get("Status", "installed").split()[-1:] in _INSTALLED_STATES
    ]


def _describe_deb(stanza: Mapping[str, str]) -> Package:
    """Return a package of dpkg; `Source` may name a version: `openssl (3.0.17-1)`."""
    source, _, version = stanza.get("Source", "").partition(" ")
    return Package(
        kind="deb",
        name=stanza["Package"],
        version=stanza["Version"],
        arch=stanza.get("Architecture", ""),
        source=source,
        source_version=version.strip("() "),
    )


def parse_apk_installed(data: bytes) -> list[Package]:
    """Parse Alpine's `installed`."""
    return [
        Package(
            kind="apk",
            name=stanza["P"],
            version=stanza["V"],
            arch=stanza.get("A", ""),
            license=stanza.get("L", ""),
            source=stanza.get("o", ""),
        )
        for stanza in _read_stanzas(data, ":")
        if stanza.get("P") and stanza.get("V")
    ]


def parse_python_metadata(data: bytes) -> list[Package]:
    """Parse the header of Python's `METADATA` or `PKG-INFO`, which ends with the first empty line."""
    header = next(_read_stanzas(data.partition(b"\n\n")[0], ": "), {})
    if not (header.get("Name") and header.get("Version")):
        return []
    license_text = header.get("License-Expression", "")
    return [Package(kind="pypi", name=header["Name"], version=header["Version"], license=license_text)]


def parse_npm_package(data: bytes) -> list[Package]:
    """Parse npm's `package.json`."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return []
    if not isinstance(document, dict):
        return []
    name, version, license_text = (document.get(key) for key in ("name", "version", "license"))
    if not (_is_line(name) and _is_line(version)):
        return []
    return [Package(kind="npm", name=name, version=version, license=license_text if _is_line(license_text) else "")]


def _is_line(value: Any) -> TypeGuard[str]:
    """Return whether a value from JSON is printable text; it may contain lone surrogates."""
    return isinstance(value, str) and bool(value) and value.isprintable()


def parse_os_release(data: bytes) -> OsRelease:
    """Parse the shell assignments of `os-release`."""
    pairs = (line.partition("=") for line in data.decode(errors="replace").splitlines())
    values = {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}
    name = values.get("PRETTY_NAME") or values.get("NAME", "")
    return OsRelease(
        id=values.get("ID", ""),
        version=values.get("VERSION_ID", ""),
        name=name,
        codename=values.get("VERSION_CODENAME", ""),
    )


def _read_stanzas(data: bytes, separator: str) -> Iterator[dict[str, str]]:
    """Yield groups of `key: value` lines, separated by empty lines, without continuation lines."""
    fields: dict[str, str] = {}
    for line in data.decode(errors="replace").split("\n"):
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif line[0] not in " \t":
            key, matched, value = line.rstrip("\r").partition(separator)
            if matched:
                fields.setdefault(key, value.strip())
    if fields:
        yield fields


_PARSERS: tuple[tuple[re.Pattern[str], Callable[[bytes], list[Package]]], ...] = (
    (re.compile(r"var/lib/dpkg/status(\.d/[^/]+)?"), parse_dpkg_status),
    (re.compile(r"(usr/)?lib/apk/db/installed"), parse_apk_installed),
    (re.compile(r"(.+/)?[^/]+\.(dist-info/METADATA|egg-info/PKG-INFO)"), parse_python_metadata),
    (re.compile(r"(.+/)?node_modules/(@[^/]+/)?[^/@.][^/]*/package\.json"), parse_npm_package),
)


class LayerPackages(Record):
    """The packages of a layer by the path of their record, its whiteouts, and its `os-release` files."""

    schema_: Literal["lyra.layer-packages/4"] = Field(default="lyra.layer-packages/4", alias="schema")
    packages: dict[str, list[Package]]
    removed: list[str]
    opaque: list[str]
    os_releases: dict[str, OsRelease]

    @classmethod
    def empty(cls) -> LayerPackages:
        """Return a layer of which no member has been added yet."""
        return cls(packages={}, removed=[], opaque=[], os_releases={})

    def add_member(self, header: TarHeader, contents: Iterator[Block]) -> None:
        """Record what one member says; its contents are read only if they record packages."""
        path = normalize_path(header.name)
        directory, _, name = path.rpartition("/")
        if name == _OPAQUE_WHITEOUT:
            self.opaque.append(directory)
        elif is_whiteout(path):
            self.removed.append(f"{directory}/{name.removeprefix(_WHITEOUT_PREFIX)}".lstrip("/"))
        elif header.kind == "link" and _find_parser(path):
            self.packages[path] = self.packages.get(normalize_path(header.target), [])
        elif header.kind != "directory":
            _record_entry(self, path, header, contents)


class ImagePackages(Record):
    """The packages of an image by the path of their record, and its `os-release`."""

    packages: dict[str, list[Package]]
    os_release: OsRelease | None


def read_layer_packages(blocks: Iterable[Block], where: str) -> LayerPackages:
    """Return the packages of an uncompressed layer; BundleError naming `where` if it is damaged."""
    layer = LayerPackages.empty()
    for header, contents in read_layer_members(blocks, where):
        layer.add_member(header, contents)
    return layer


def read_layer_members(blocks: Iterable[Block], where: str) -> Iterator[tuple[TarHeader, Iterator[Block]]]:
    """Yield the members of an uncompressed layer; some programs leave the end out, and engines accept that."""
    return read_tar_members(BlockReader(chain(blocks, [bytes(2 * SECTOR_BYTES)])), where)


def is_whiteout(path: str) -> bool:
    """Return whether an entry stands for what its layer removes."""
    return path.rpartition("/")[2].startswith(_WHITEOUT_PREFIX)


def load_layer_packages(cache: Path, diff_id: str) -> LayerPackages | None:
    """Return the cached packages of a layer, or None if there are none or they are damaged."""
    path = _cache_path(cache, diff_id)
    mark_used(path)
    return read_valid_record(path, LayerPackages)


def save_layer_packages(cache: Path, diff_id: str, layer: LayerPackages) -> None:
    """Cache the packages of a layer for all images that have it, if there is space."""
    with suppress(OSError, PreconditionError):
        write_record(_cache_path(cache, diff_id), layer)


def _cache_path(cache: Path, diff_id: str) -> Path:
    return cache / "packages" / f"{hex_part(diff_id)}.json"


def merge_layer_packages(layers: Iterable[LayerPackages]) -> ImagePackages:
    """Return the packages of an image of these layers, lowest first."""
    packages: dict[str, list[Package]] = {}
    os_releases: dict[str, OsRelease] = {}
    for layer in layers:
        packages = drop_hidden(packages, layer) | layer.packages
        os_releases = drop_hidden(os_releases, layer) | layer.os_releases
    return ImagePackages(
        packages=dict(sorted(packages.items())),
        os_release=next((os_releases[path] for path in _OS_RELEASE_PATHS if path in os_releases), None),
    )


def _record_entry(layer: LayerPackages, path: str, header: TarHeader, contents: Iterator[Block]) -> None:
    """Record an entry that is not a directory, which replaces what a lower layer has at its path."""
    if not _RELEVANT_PATH.search(path):
        return
    if path in _OS_RELEASE_PATHS:
        if header.kind == "file" and header.size <= _MAX_RECORD_BYTES:
            layer.os_releases[path] = parse_os_release(b"".join(contents))
        return
    parse = _find_parser(path)
    if parse is None:
        if _RECORD_PARENTS.fullmatch(path):
            layer.removed.append(path)
    elif header.kind == "file" and header.size <= _MAX_RECORD_BYTES:
        layer.packages[path] = parse(b"".join(contents))
    else:
        layer.removed.append(path)


def _find_parser(path: str) -> Callable[[bytes], list[Package]] | None:
    return next((parse for pattern, parse in _PARSERS if pattern.fullmatch(path)), None)


def drop_hidden(entries: Mapping[str, T], layer: LayerPackages) -> dict[str, T]:
    """Return the entries of lower layers by path, without those that `layer` hides."""
    removed, opaque = set(layer.removed), set(layer.opaque)
    return {path: value for path, value in entries.items() if not _is_hidden(path, removed, opaque)}


def _is_hidden(path: str, removed: Set[str], opaque: Set[str]) -> bool:
    if not (removed or opaque):
        return False
    parents = ["", *(path[: match.start()] for match in re.finditer("/", path))]
    return path in removed or any(parent in removed or parent in opaque for parent in parents)


def normalize_path(name: str) -> str:
    """Return the path of a member without `./` and slashes around it."""
    return name.removeprefix("./").strip("/")


def list_packages(image: ImagePackages) -> Mapping[Package, list[str]]:
    """Return the packages of an image, sorted, with the paths that record them."""
    paths_by_package: dict[Package, list[str]] = {}
    for path, packages in image.packages.items():
        for package in packages:
            paths_by_package.setdefault(package, []).append(path)
    return dict(
        sorted(paths_by_package.items(), key=lambda item: (item[0].kind, item[0].name, item[0].version, item[0].arch))
    )
