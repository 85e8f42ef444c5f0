"""Scans of layers: setuid files, owners, architectures, secrets."""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from lyra_tasks.images.scan.layers import (
    ScannedLayer,
    can_run_programs,
    count_programs,
    find_directory_owners,
    find_setuid_files,
    resolve_directories,
    scan_layer,
)
from lyra_tasks.images.scan.secrets import SecretMatcher
from lyra_tasks.images.stream.tar import BlockReader, read_tar_members

MATCHER = SecretMatcher({"key": "the-secret-key"})


Entry = tuple[str, int, bytes | str | None] | tuple[str, int, bytes | str | None, int]


def layer(
    *entries: Entry,
    is_compressed: bool = False,
    directories: frozenset[str] | None = frozenset({"data", "srv/deep"}),
) -> ScannedLayer:
    """Scan a layer of (path, mode, content or target of a link or None for a directory, owner)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, mode, content, *owner in entries:
            entry = tarfile.TarInfo(path)
            entry.mode = mode
            entry.uid = entry.gid = owner[0] if owner else 0
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            data = content or b""
            if isinstance(data, str):
                entry.type, entry.linkname, data = tarfile.SYMTYPE, data, b""
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    data = gzip.compress(buffer.getvalue()) if is_compressed else buffer.getvalue()

    def blocks() -> Iterator[bytes]:
        for start in range(0, len(data), 700):
            yield data[start : start + 700]

    scanned, size = scan_layer(blocks(), "here", matcher=MATCHER, directories=directories)
    assert size == len(buffer.getvalue())
    return scanned


def test_setuid_files_are_recorded_compressed_or_not() -> None:
    for is_compressed in (False, True):
        scanned = layer(
            ("bin/su", 0o4755, b"x"),
            ("./bin/write", 0o2755, b"x"),
            ("bin/ls", 0o755, b"x"),
            is_compressed=is_compressed,
        )
        assert find_setuid_files([scanned]) == {"bin/su": (0, 0o4755), "bin/write": (0, 0o2755)}


def test_setuid_files_hidden_by_later_layer_are_dropped() -> None:
    first = layer(*((path, 0o4755, b"x") for path in ("a/replaced", "a/removed", "b/hidden", "c/emptied", "d/stays")))
    second = layer(
        ("a/replaced", 0o755, b"x"), ("a/.wh.removed", 0, b""), (".wh.b", 0, b""), ("c/.wh..wh..opq", 0, b"")
    )
    assert find_setuid_files([first, second]) == {"d/stays": (0, 0o4755)}
    assert find_setuid_files([second, first]).keys() == {"a/replaced", "a/removed", "b/hidden", "c/emptied", "d/stays"}


def test_directory_owner_is_that_of_last_layer() -> None:
    first = layer(("data/", 0o755, None, 0), ("srv/deep/", 0o755, None, 7), ("other/", 0o755, None, 1))
    second = layer(("./data", 0o755, None, 10001))
    directories = ("/data", "/srv/deep", "/missing")
    owners = {"/data": "10001:10001 0755", "/srv/deep": "7:7 0755"}
    assert find_directory_owners([first, second], directories) == owners
    assert find_directory_owners([first, layer((".wh.srv", 0, b""))], directories) == {"/data": "0:0 0755"}


def test_directory_behind_links_has_owner_of_their_target() -> None:
    absolute = layer(("srv", 0o777, "/mnt/../data/."), ("data/", 0o755, None, 5))
    relative = layer(("srv/", 0o755, None), ("srv/deep", 0o777, "../data"), ("data/", 0o755, None, 6))
    assert find_directory_owners([absolute], ["/srv"]) == {"/srv": "5:5 0755"}
    assert resolve_directories([absolute], ["/srv/deep"]) == {"/srv/deep": "/data/deep"}
    assert find_directory_owners([absolute, relative], ["/srv/deep"]) == {"/srv/deep": "6:6 0755"}
    replaced = layer((".wh.srv", 0, b""), ("srv/", 0o755, None), ("srv/deep/", 0o755, None, 8))
    assert find_directory_owners([absolute, replaced], ["/srv/deep"]) == {"/srv/deep": "8:8 0755"}


def test_scan_of_all_directories_knows_the_owner_behind_any_number_of_links() -> None:
    names = ["srv", *(f"link{number}" for number in range(254)), "far"]  # as many as an engine follows
    entries: list[Entry] = [(name, 0o777, f"../{target}") for name, target in pairwise(names)]
    entries += [("far/", 0o755, None), ("far/deep/", 0o750, None, 9)]
    assert find_directory_owners([layer(*entries)], ["/srv/deep"]) == {}
    followed = layer(*entries, directories=None)
    assert find_directory_owners([followed], ["/srv/deep"]) == {"/srv/deep": "9:9 0750"}
    replaced = layer((names[-2], 0o755, None), (f"{names[-2]}/deep", 0o700, None, 4), directories=None)
    assert find_directory_owners([followed, replaced], ["/srv/deep"]) == {"/srv/deep": "4:4 0700"}


def test_circular_links_lead_nowhere() -> None:
    circular = layer(("srv", 0o777, "srv/deep"), ("data", 0o777, "data"))
    assert resolve_directories([circular], ["/srv/deep", "/data"]) == {"/srv/deep": "/srv/deep", "/data": "/data"}


def elf(machine: int, *, big: bool = False) -> bytes:
    """Return the beginning of a program for this machine."""
    header = b"\x7fELF\x02" + bytes([2 if big else 1]) + bytes(12)
    return header + machine.to_bytes(2, "big" if big else "little") + bytes(2000)


def test_programs_are_counted_by_architecture() -> None:
    interpreter = Path(sys.executable).resolve().read_bytes()
    first = layer(("bin/a", 0o755, elf(62)), ("bin/b", 0o700, elf(183)), ("bin/big", 0o755, elf(22, big=True)))
    second = layer(("bin/c", 0o755, elf(62)), ("odd", 0o755, elf(4711)), ("lib", 0o644, elf(40)), ("sh", 0o755, b"#!"))
    third = layer(("bin/python", 0o755, interpreter), ("short", 0o755, b"\x7fELF"))
    assert count_programs([first, second]) == {"amd64": 2, "arm64": 1, "s390x": 1, "ELF machine 4711": 1}
    assert list(third.programs_by_architecture.values()) == [1]
    assert third.programs_by_architecture.keys() <= {"amd64", "arm64"}


def test_image_runs_where_any_program_runs() -> None:
    assert can_run_programs("linux/amd64", {"amd64": 1, "arm64": 5})
    assert can_run_programs("linux/amd64", {"386": 1})
    assert not can_run_programs("linux/arm64/v8", {"amd64": 3})
    assert can_run_programs("linux/arm64", {})


@pytest.mark.parametrize("is_compressed", [False, True])
def test_secrets_match_in_files_names_and_across_blocks(is_compressed: bool) -> None:
    scanned = layer(
        ("etc/app", 0o644, b"x" * 3000 + b"the-secret-key" + b"y" * 3000),
        ("etc/clean", 0o644, b"nothing"),
        ("var/the-secret-key.txt", 0o644, b""),
        is_compressed=is_compressed,
    )
    assert [path for path, _ in scanned.secret_matches] == ["etc/app", "var/the-secret-key.txt"]


def test_non_utf8_name_is_escaped() -> None:
    odd = b"bin/caf\xe9-the-secret-key".decode(errors="surrogateescape")
    scanned = layer((odd, 0o4755, b"x"))
    assert find_setuid_files([scanned]) == {"bin/caf\\xe9-the-secret-key": (0, 0o4755)}
    assert [path.encode() for path, _ in scanned.secret_matches] == [b"bin/caf\\xe9-the-secret-key"]
    assert find_setuid_files([scanned, layer((odd.replace("bin/", "bin/.wh."), 0, b""))]) == {}


def test_owner_out_of_range_is_ignored() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for uid in ("9" * 5000, "x", "\u0663", "10001"):
            entry = tarfile.TarInfo("data")
            entry.type, entry.uid, entry.pax_headers = tarfile.DIRTYPE, 7, {"uid": uid}
            archive.addfile(entry)
    owners = [header.uid for header, _ in read_tar_members(BlockReader([buffer.getvalue()]), "here")]
    assert owners == [7, 7, 7, 10001]
