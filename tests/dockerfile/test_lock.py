"""Tests of reading and writing lock files."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyra_tasks.config.models import Rootfs
from lyra_tasks.dockerfile.lock_file import (
    LockedArchive,
    LockedImage,
    LockedRootfs,
    LockFile,
    read_lock_file,
    render_lock_file,
    write_lock_file,
)
from lyra_tasks.errors import ConfigurationError, PreconditionError

HASH = "0123456789abcdef" * 4
ROOTFS = LockedRootfs(
    suite="bookworm",
    variant="custom",
    packages=("tzdata", "python3"),
    architecture="amd64",
    sha256=HASH,
    source_date_epoch=1686355200,
    resolved=("zlib1g=1:1.2.13", "dash=0.5.12-2"),
    tools={"mmdebstrap": "1.3.5-7"},
)
LOCK = LockFile(
    bases={
        "python:3.12-slim": LockedImage(reference="python:3.12-slim", digest=f"sha256:{HASH}"),
        "own": LockedArchive(path="bases/own.tar", sha256=HASH, digest=f"sha256:{HASH}"),
        "built": ROOTFS,
    }
)
ROOTFS_KEYS = f"""source = "rootfs"
suite = "bookworm"
variant = "custom"
architecture = "amd64"
sha256 = "{HASH}"
source_date_epoch = 1
resolved = []
tools = {{}}
"""


def test_missing_lock_file_is_empty(tmp_path: Path) -> None:
    assert read_lock_file(tmp_path / "none.toml") == LockFile()


def test_lock_file_round_trips(tmp_path: Path) -> None:
    path = tmp_path / ".lyra.lock.toml"
    assert write_lock_file(path, LOCK)
    assert read_lock_file(path) == LOCK
    assert [path.name for path in tmp_path.iterdir()] == [".lyra.lock.toml"]


def test_unchanged_lock_file_is_not_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "lock.toml"
    write_lock_file(path, LOCK)
    before = path.stat()
    assert not write_lock_file(path, LOCK)
    assert path.stat().st_ino == before.st_ino


def test_equal_lock_files_have_equal_bytes() -> None:
    reversed_lock = LockFile(bases=dict(reversed(LOCK.bases.items())))
    assert render_lock_file(reversed_lock) == render_lock_file(LOCK)
    assert render_lock_file(LOCK).startswith("# Written by lyra; commit it. `lock.update` changes it.\n\nschema = 1\n")
    assert render_lock_file(LOCK).index("[bases.built]") < render_lock_file(LOCK).index("[bases.own]")


def test_order_of_packages_does_not_matter() -> None:
    assert ROOTFS.packages == ("python3", "tzdata")
    assert ROOTFS.matches(Rootfs(suite="bookworm", packages=["tzdata", "python3", "tzdata"]))
    assert not ROOTFS.matches(Rootfs(suite="bookworm", packages=["python3"]))
    assert not ROOTFS.matches(Rootfs(suite="trixie", packages=["tzdata", "python3"]))
    assert not ROOTFS.matches(Rootfs(suite="bookworm", packages=["tzdata", "python3"], variant="minbase"))


@given(st.dictionaries(st.text(string.printable.split("\t")[0] + "é", min_size=1), st.booleans(), max_size=4))
def test_printable_reference_round_trips_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, keys: dict[str, bool]
) -> None:
    lock = LockFile(
        bases={key: LockedImage(reference=key, digest=f"sha256:{HASH}", local=local) for key, local in keys.items()}
    )
    path = tmp_path_factory.mktemp("lock") / "lock.toml"
    try:
        write_lock_file(path, lock)
    except PreconditionError:
        assert list(path.parent.iterdir()) == []
    else:
        assert read_lock_file(path) == lock


def test_lock_file_is_kept_if_the_writer_corrupts_it(tmp_path: Path) -> None:
    path = tmp_path / "lock.toml"
    write_lock_file(path, LOCK)
    corrupted = LockFile(bases={"x": LockedImage(reference="C:\\x41", digest=f"sha256:{HASH}")})
    with pytest.raises(PreconditionError, match=r"Cannot write .* as TOML"):
        write_lock_file(path, corrupted)
    assert read_lock_file(path) == LOCK
    assert [path.name for path in tmp_path.iterdir()] == ["lock.toml"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("schema = 2\n", "schema 2 is newer than 1"),
        ("<<<<<<< HEAD\nschema = 1\n", "not valid TOML"),
        ("x = " + "[" * 3000, "not valid TOML"),
        ("schema = 1\nmore = 1\n", "more: Extra inputs are not permitted"),
        ('schema = 1\n[bases.x]\nsource = "image"\n', "bases.x.image.reference: Field required"),
        ('schema = 1\n[bases.x]\nsource = "magic"\n', "bases.x: Input tag 'magic'"),
        (
            'schema = 1\n[bases.x]\nsource = "image"\nreference = "a"\ndigest = "sha256:12"\n',
            "bases.x.image.digest: String should match pattern",
        ),
        (
            f'schema = 1\n[bases.x]\nsource = "image"\nreference = "a"\ndigest = "sha256:{HASH}"\nkey = 1\n',
            "bases.x.image.key: Extra inputs are not permitted",
        ),
        (
            f'schema = 1\n[bases.x]\n{ROOTFS_KEYS}packages = ["a"]\n',
            "bases.x.rootfs.packages.0: String should match pattern",
        ),
        (
            f"schema = 1\n[bases.x]\n{ROOTFS_KEYS}packages = []\n",
            "bases.x.rootfs.packages: Value error, must not be empty",
        ),
        (f"schema = {'1' * 5000}\n", "not valid TOML: a value is out of range"),
        (f"a{'.a' * 1500} = 1\n", "not valid TOML: nested too deeply"),
    ],
)
def test_invalid_lock_file_is_refused_with_the_reason(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "lock.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        read_lock_file(path)
    assert problem in "\n".join([raised.value.message, *raised.value.details])
    assert raised.value.hint
