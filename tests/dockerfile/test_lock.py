"""The lock file: what is written is what is read, and nothing else is accepted."""

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
        "made": ROOTFS,
    }
)


def test_no_file_is_an_empty_lock(tmp_path: Path) -> None:
    assert read_lock_file(tmp_path / "none.toml") == LockFile()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / ".lyra.lock.toml"
    assert write_lock_file(path, LOCK)
    assert read_lock_file(path) == LOCK
    assert [each.name for each in tmp_path.iterdir()] == [".lyra.lock.toml"]


def test_an_unchanged_lock_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "lock.toml"
    write_lock_file(path, LOCK)
    before = path.stat()
    assert not write_lock_file(path, LOCK)
    assert path.stat().st_ino == before.st_ino


def test_equal_locks_are_equal_bytes_whatever_their_order() -> None:
    turned = LockFile(bases=dict(reversed(LOCK.bases.items())))
    assert render_lock_file(turned) == render_lock_file(LOCK)
    assert render_lock_file(LOCK).startswith("# Written by lyra; commit it. `bases.update` moves it.\n\nschema = 1\n")
    assert render_lock_file(LOCK).index("[bases.made]") < render_lock_file(LOCK).index("[bases.own]")


def test_packages_are_sorted_so_that_their_order_does_not_matter() -> None:
    assert ROOTFS.packages == ("python3", "tzdata")
    assert ROOTFS.matches(Rootfs(suite="bookworm", packages=["tzdata", "python3", "tzdata"]))
    assert not ROOTFS.matches(Rootfs(suite="bookworm", packages=["python3"]))
    assert not ROOTFS.matches(Rootfs(suite="trixie", packages=["tzdata", "python3"]))
    assert not ROOTFS.matches(Rootfs(suite="bookworm", packages=["tzdata", "python3"], variant="minbase"))


@given(st.dictionaries(st.text(string.printable.split("\t")[0] + "é", min_size=1), st.booleans(), max_size=4))
def test_every_printable_reference_survives_the_writer_or_is_refused(
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


def test_a_lock_that_the_writer_corrupts_does_not_replace_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "lock.toml"
    write_lock_file(path, LOCK)
    bad = LockFile(bases={"x": LockedImage(reference="C:\\x41", digest=f"sha256:{HASH}")})
    with pytest.raises(PreconditionError, match="cannot be written as TOML"):
        write_lock_file(path, bad)
    assert read_lock_file(path) == LOCK
    assert [each.name for each in tmp_path.iterdir()] == ["lock.toml"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("schema = 2\n", "has schema 2; this lyra knows 1"),
        ("<<<<<<< HEAD\nschema = 1\n", "is not TOML"),
        ("x = " + "[" * 3000, "is not TOML"),
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
    ],
)
def test_a_lock_that_is_not_one_is_refused_with_the_reason(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "lock.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_lock_file(path)
    assert problem in "\n".join([caught.value.message, *caught.value.details])
    assert caught.value.hint
