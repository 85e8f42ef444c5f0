"""How systems write down what is installed: one reader for each kind of record; what cannot be read says nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, TypeGuard

from lyra_tasks.records.store import Record

Kind = Literal["deb", "apk", "pypi", "npm"]


# an image is seldom asked to finish what a package's scripts left to do; its files are there
_THERE = (["installed"], ["triggers-pending"], ["triggers-awaited"], ["half-configured"], ["unpacked"])


class Package(Record):
    """An installed package; `arch` and `license` are empty where the record does not say."""

    kind: Kind
    name: str
    version: str
    arch: str = ""
    license: str = ""


class Release(Record):
    """What `os-release` says of a system: `debian`, `12`, `Debian GNU/Linux 12 (bookworm)`."""

    id: str
    version: str
    name: str


def dpkg(data: bytes) -> list[Package]:
    """Debian's `status`, or one of `status.d`: what is there, not what was removed and left its configuration."""
    return [
        Package(kind="deb", name=each["Package"], version=each["Version"], arch=each.get("Architecture", ""))
        for each in _stanzas(data, ": ")
        if each.get("Package") and each.get("Version") and each.get("Status", "installed").split()[-1:] in _THERE
    ]


def installed(data: bytes) -> list[Package]:
    """Alpine's `installed`."""
    return [
        Package(kind="apk", name=each["P"], version=each["V"], arch=each.get("A", ""), license=each.get("L", ""))
        for each in _stanzas(data, ":")
        if each.get("P") and each.get("V")
    ]


def metadata(data: bytes) -> list[Package]:
    """Python's `METADATA` and `PKG-INFO`: a header as in mail, up to the first empty line."""
    header = next(_stanzas(data.partition(b"\n\n")[0], ": "), {})
    if not (header.get("Name") and header.get("Version")):
        return []
    stated = header.get("License-Expression", "")
    return [Package(kind="pypi", name=header["Name"], version=header["Version"], license=stated)]


def module(data: bytes) -> list[Package]:
    """npm's `package.json`."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return []
    if not isinstance(document, dict):
        return []
    name, version, stated = (document.get(key) for key in ("name", "version", "license"))
    if not (_is_line(name) and _is_line(version)):
        return []
    return [Package(kind="npm", name=name, version=version, license=stated if _is_line(stated) else "")]


def _is_line(value: Any) -> TypeGuard[str]:
    """Whether a value of a JSON document is text that can be written down: it may hold half a character."""
    return isinstance(value, str) and bool(value) and value.isprintable()


def release(data: bytes) -> Release:
    """`os-release`: assignments as a shell reads them."""
    pairs = (line.partition("=") for line in data.decode(errors="replace").splitlines())
    values = {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}
    name = values.get("PRETTY_NAME") or values.get("NAME", "")
    return Release(id=values.get("ID", ""), version=values.get("VERSION_ID", ""), name=name)


def _stanzas(data: bytes, separator: str) -> Iterator[dict[str, str]]:
    """Groups of `key: value` lines with an empty line between; lines that go on with a blank are left out."""
    fields: dict[str, str] = {}
    for line in data.decode(errors="replace").split("\n"):
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif line[0] not in " \t":
            key, found, value = line.rstrip("\r").partition(separator)
            if found:
                fields.setdefault(key, value.strip())
    if fields:
        yield fields
