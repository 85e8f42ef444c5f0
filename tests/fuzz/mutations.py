"""Damage documents: valid ones, changed in a few places, in their structure or in their bytes."""

from __future__ import annotations

import copy
import io
import json
import sys
import tarfile
import tomllib
from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import strategies as st
from isal import igzip

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Draw = Callable[[st.SearchStrategy[Any]], Any]

DEEP: Any = "x"
for _ in range(100):
    DEEP = [DEEP]
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"),
    "", " ", "x", "0", "-1", "é", "\u2028", "\x00", "\x1b[31m", "\ud800", "\udce9", "a\nb", "../../etc/passwd", "/",
    "$X", "${", "*" * 50, "9" * 5000, "x" * 70_000, "sha256:" + "0" * 64, "2026-99-99", "1.0.0",
    [], {}, [None], [[]], [{}], [""], {"": ""}, {"a": None}, {"name": 1}, DEEP,
)  # fmt: skip
TEXTS = (
    b"", b"\0", b"\n", b"\r\n", b"\t", b" ", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xc3\xa9", b'"', b"'", b"#",
    b":", b"=", b"- ", b"|", b">-\n", b"&a ", b"*a", b"!!int ", b"!!timestamp x", b"<<: ", b"\\", b"${A", b"<<EOF\n",
    b"--", b",", b"[" * 3000, b"{" * 300, b"<a>" * 2000, b"a" + b".a" * 1500, b"9" * 5000, b"1" + b"0" * 400, b"-1",
    b"1e999", b"NaN", b"null", b"\\ud800",
)  # fmt: skip
_NUMBERS = st.integers(0, 2**20)


@st.composite
def damaged_values(draw: Draw, seed: Any) -> Any:
    """Return a copy of a value in which up to four parts are removed, replaced, repeated or renamed."""
    value = copy.deepcopy(seed)
    for _ in range(draw(st.integers(0, 4))):
        places = list(_list_places(value))
        if not places:
            return draw(st.sampled_from(VALUES))
        container, key = places[draw(_NUMBERS) % len(places)]
        match draw(st.integers(0, 4)):
            case 0:
                del container[key]
            case 1 if isinstance(container, dict):
                container[f"{key}{draw(st.sampled_from(('', 's', '.', ' ')))}"] = container.pop(key)
            case 1 | 2 if isinstance(container, list):
                container += [copy.deepcopy(container[key])] * draw(st.integers(1, 3))
            case _:
                container[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
    return value


def _list_places(value: Any) -> Any:
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        if child is not DEEP:
            yield from _list_places(child)


@st.composite
def damaged_bytes(draw: Draw, data: bytes) -> bytes:
    """Return bytes that are cut off, repeated, overwritten, or have something inserted, in up to three places."""
    for _ in range(draw(st.integers(0, 3))):
        start = draw(_NUMBERS) % (len(data) + 1)
        length = draw(st.sampled_from((0, 1, 2, 7, 60, 512)))
        match draw(st.integers(0, 4)):
            case 0:
                data = data[:start]
            case 1:
                data = data[:start] + data[start : start + length] * 2 + data[start + length :]
            case 2:
                data = data[:start] + data[start + length :]
            case _:
                data = data[:start] + draw(st.sampled_from(TEXTS)) + data[start + length :]
    return data


def json_documents(seed: Any) -> st.SearchStrategy[bytes]:
    """Return damaged JSON documents."""
    texts = damaged_values(seed).map(lambda value: json.dumps(value).encode())
    return texts | damaged_bytes(json.dumps(seed).encode())


def json_lines(seed: list[Any]) -> st.SearchStrategy[bytes]:
    """Return damaged documents of one JSON value in each line."""
    lines = damaged_values(seed).map(
        lambda value: b"".join(
            json.dumps(line).encode() + b"\n" for line in (value if isinstance(value, list) else [value])
        )
    )
    return lines | damaged_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in seed))


def toml_documents(text: str) -> st.SearchStrategy[bytes]:
    """Return damaged TOML documents."""
    return damaged_values(tomllib.loads(text)).map(_dump_toml) | damaged_bytes(text.encode())


def _dump_toml(document: Any) -> bytes:
    items = document.items() if isinstance(document, dict) else [("x", document)]
    return "".join(f"{_quote(key)} = {_format_toml(value)}\n" for key, value in items).encode("utf-8", "surrogatepass")


def _format_toml(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{_quote(key)} = {_format_toml(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_format_toml, value)) + "]"
        case bool():
            return str(value).lower()
        case None:
            return '""'
        case str():
            return _quote(value)
        case _:
            return str(value)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def yaml_documents(text: str) -> st.SearchStrategy[bytes]:
    """Return damaged YAML documents."""
    values = damaged_values(yaml.safe_load(text))
    return values.map(lambda value: yaml.safe_dump(value, sort_keys=False).encode()) | damaged_bytes(text.encode())


@st.composite
def tars(draw: Draw, members: dict[str, Any]) -> bytes:
    """Return tar archives with damaged documents, names, headers or bytes; dicts and lists are written as JSON."""
    buffer = io.BytesIO()
    chosen = draw(st.sampled_from(sorted(members)))
    with tarfile.open(
        fileobj=buffer, mode="w", format=draw(st.sampled_from((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)))
    ) as archive:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            entry = tarfile.TarInfo(name)
            if name == chosen:
                match draw(st.integers(0, 3)):
                    case 0:
                        entry.name = draw(
                            st.sampled_from(("", "../x", "/x", "x" * 300, "a/" * 100, "caf\udce9", name.upper()))
                        )
                    case 1:
                        types = (
                            tarfile.DIRTYPE,
                            tarfile.SYMTYPE,
                            tarfile.LNKTYPE,
                            tarfile.FIFOTYPE,
                            tarfile.CHRTYPE,
                            b"Z",
                        )
                        entry.type, entry.linkname = draw(st.sampled_from(types)), "../../x"
                    case 2 if not isinstance(content, bytes):
                        data = draw(json_documents(content))
                    case _:
                        data = draw(damaged_bytes(data))
            entry.size = len(data) if entry.isreg() else 0
            archive.addfile(entry, io.BytesIO(data))
    return bytes(draw(damaged_bytes(buffer.getvalue()))) if draw(st.booleans()) else buffer.getvalue()


@st.composite
def compressed(draw: Draw, contents: st.SearchStrategy[bytes]) -> bytes:
    """Return contents as they are or compressed, with the compressed bytes damaged in half of the cases."""
    data = draw(contents)
    match draw(st.sampled_from(("none", "gzip", "zstd"))):
        case "gzip":
            data = igzip.compress(data)
        case "zstd":
            data = zstd.compress(data)
    return bytes(draw(damaged_bytes(data))) if draw(st.booleans()) else data
