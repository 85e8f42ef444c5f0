"""The finished tar of a root file system is the same, whether mmdebstrap writes `/dev` or not."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from lyra_tasks.engine.bases.rootfs_tar import PACKAGE_LIST, finish_tar
from lyra_tasks.errors import PreconditionError

LONG_NAME = f"./usr/{'x' * 150}"  # in a header of its own


def write_tar(path: Path, names: Iterable[str]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            content = b"b=2\na=1\n" if name.endswith(PACKAGE_LIST) else b"x" * 700
            if name.endswith("/"):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    "names",
    [
        ("./", f"./{PACKAGE_LIST}", "./usr/", "./devices", LONG_NAME),
        ("./", "./dev/", f"./{PACKAGE_LIST}", "./usr/", "./devices", LONG_NAME),
        ("./", "./dev/", "./dev/null", "./usr/", "./devices", LONG_NAME, f"./{PACKAGE_LIST}"),
        ("./", "./usr/", f"./{PACKAGE_LIST}", "./devices", LONG_NAME, "./dev/", "./dev/pts/"),
    ],
)
def test_finished_tar_has_dev_once_at_its_end(tmp_path: Path, names: tuple[str, ...]) -> None:
    plain = write_tar(tmp_path / "plain.tar", ("./", f"./{PACKAGE_LIST}", "./usr/", "./devices", LONG_NAME))
    other = write_tar(tmp_path / "other.tar", names)
    assert finish_tar(plain, 7) == finish_tar(other, 7) == ["b=2", "a=1"]
    assert other.read_bytes() == plain.read_bytes()
    with tarfile.open(other) as archive:
        assert archive.getnames() == [".", "./usr", "./devices", LONG_NAME, "./dev"]
        assert archive.getmember("./dev").mtime == 7


def test_tar_without_list_of_packages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match="no list of its packages"):
        finish_tar(write_tar(tmp_path / "a.tar", ["./", "./usr/"]), 0)


def test_finished_tar_is_the_same_with_every_version_of_tar(tmp_path: Path) -> None:
    names = ("./", f"./{PACKAGE_LIST}", "./usr/", "./devices", LONG_NAME)
    older, newer = (write_tar(tmp_path / f"{version}.tar", names) for version in ("1.34", "1.35"))
    with tarfile.open(older) as archive:
        headers = [member.offset_data - tarfile.BLOCKSIZE for member in archive.getmembers()]
    content = bytearray(older.read_bytes())
    for start in headers:
        header = content[start : start + tarfile.BLOCKSIZE]
        header[329:345] = b"0000000\0" * 2
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        content[start : start + tarfile.BLOCKSIZE] = header
    older.write_bytes(content)
    assert older.read_bytes() != newer.read_bytes()
    finish_tar(older, 7)
    finish_tar(newer, 7)
    assert older.read_bytes() == newer.read_bytes()
    with tarfile.open(newer) as archive:
        assert archive.getnames() == [".", "./usr", "./devices", LONG_NAME, "./dev"]
