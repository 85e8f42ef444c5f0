"""SHA256SUMS is read by coreutils and by us, and only in the form that we write."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import (
    format_checksums,
    list_bundle_files,
    parse_checksums,
    require_valid_name,
    write_checksums,
)
from lyra_tasks.errors import BundleError

DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
PARTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="\\/"), min_size=1).filter(
    lambda part: part not in {".", "..", "SHA256SUMS", "SHA256SUMS.sig"}
)
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
A, B = "a" * 64, "b" * 64


@given(st.dictionaries(NAMES, DIGESTS, min_size=1))
def test_formatted_checksums_are_parsed_back(sums: dict[str, str]) -> None:
    assert parse_checksums(format_checksums(sums), "here") == sums


@given(st.dictionaries(NAMES, DIGESTS, min_size=1, max_size=4), st.data())
def test_changed_checksums_never_parse_to_the_same(sums: dict[str, str], data: st.DataObject) -> None:
    content = format_checksums(sums)
    offset = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[offset] ^= data.draw(st.integers(1, 255))
    try:
        assert parse_checksums(bytes(changed), "here") != sums
    except BundleError as error:
        assert error.message.startswith(("here", "Invalid"))


@given(st.binary(max_size=300))
def test_parsed_bytes_are_canonical(data: bytes) -> None:
    try:
        sums = parse_checksums(data, "here")
    except BundleError:
        return
    assert format_checksums(sums) == data


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        f"{A} x\n",
        f"{A} *x\n",
        f"{A.upper()}  x\n",
        f"{A}  x",
        f"{A}  x\n\n",
        f"{A}  x\r\n",
        f"{A}  b\n{B}  a\n",
        f"{A}  x\n{B}  x\n",
        f"{A}  ../x\n",
        f"{A}  /x\n",
        f"{A}  ./x\n",
        f"{A}  a//x\n",
        f"{A}  a\\x\n",
        f"\\{A}  a\\\\x\n",
        f"{A}  SHA256SUMS\n",
        f"{A}  SHA256SUMS.sig\n",
    ],
)
def test_parse_refuses_invalid_lines(text: str) -> None:
    with pytest.raises(BundleError):
        parse_checksums(text.encode(), "here")


@pytest.mark.parametrize("name", ["new\nline", "back\\slash", "es\x1bcape", "nul\0", os.fsdecode(b"\xff")])
def test_format_refuses_invalid_names(name: str) -> None:
    with pytest.raises(BundleError, match="Invalid file name in a bundle"):
        format_checksums({name: A})


def test_all_file_names_are_valid_in_checksums() -> None:
    names = [value for key, value in vars(layout).items() if key.isupper() and isinstance(value, str)]
    assert len(set(names)) == len(names)
    for name in set(names) - layout.NOT_IN_CHECKSUMS:
        require_valid_name(name)


def test_sha256sum_accepts_checksums(tmp_path: Path) -> None:
    for name in ("b.txt", "a b.txt", "deep/er/ü.txt", "deep.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    sums = write_checksums(tmp_path)
    assert set(sums) == {"b.txt", "a b.txt", "deep/er/ü.txt", "deep.txt"}
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "deep.txt").write_text("changed")
    assert subprocess.run(check, cwd=tmp_path, check=False, capture_output=True).returncode == 1


def test_write_reuses_known_digests_and_is_reproducible(tmp_path: Path) -> None:
    (tmp_path / "archive.tar").write_text("x")
    (tmp_path / "other").write_text("y")
    (tmp_path / "SHA256SUMS.sig").write_text("signature")
    sums = write_checksums(tmp_path, known_digests={"archive.tar": A, "gone": B})
    assert sums["archive.tar"] == A
    assert set(sums) == {"archive.tar", "other"}
    first = (tmp_path / "SHA256SUMS").read_bytes()
    write_checksums(tmp_path, known_digests={"archive.tar": A})
    assert (tmp_path / "SHA256SUMS").read_bytes() == first


def test_write_refuses_links_and_pipes(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "up").symlink_to("..", target_is_directory=True)
    (tmp_path / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    files, irregular = list_bundle_files(tmp_path)
    assert (set(files), irregular) == ({"file"}, ("broken", "link", "pipe", "up"))
    with pytest.raises(BundleError) as error:
        write_checksums(tmp_path)
    assert error.value.details == irregular
