"""Random trees and edits of them, to compare what an image holds with what it was built from."""

from __future__ import annotations

import io
import os
import random
import shutil
import stat
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_OLD = 1_600_000_000 * 10**9
FILE_MODES = (0o644, 0o600, 0o755, 0o640, 0o4755, 0o2755, 0o444)
DIRECTORY_MODES = (0o755, 0o700, 0o1777, 0o2755, 0o750)


@dataclass(frozen=True)
class Node:
    """What an image shows of a path: type, permissions, and content or target of a link."""

    kind: str
    mode: int
    content: bytes


class RandomTree:
    """A directory that is edited at random; `log` says what was done."""

    def __init__(self, root: Path, generator: random.Random) -> None:
        self.root = root
        self._random = generator
        self._count = 0
        self.excluded: str = ""
        self.log: list[str] = []
        root.mkdir(parents=True, exist_ok=True)
        for _ in range(6):
            self._add_file(self._directory())
            self._add_directory(self._directory())

    def edit(self) -> None:
        """Make one edit."""
        edits: list[Callable[[], str]] = [
            *(3 * [self._rewrite_unnoticed]), self._rewrite, self._swap, self._chmod, self._chmod_directory,
            self._new_file, self._new_directory, self._delete, self._delete_directory, self._rename,
            self._rename_directory, self._new_link, self._retarget, self._file_to_directory, self._directory_to_file,
            self._file_to_link, self._hard_link, self._break_hard_link, self._exclude,
            self._touch, self._replace_by_rename,
        ]  # fmt: skip
        while not (done := self._random.choice(edits)()):
            pass
        self.log.append(done)

    def nodes(self) -> dict[str, Node]:
        """Return what an image with `COPY . /x` must hold, by path below /x."""
        nodes = {}
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if self.excluded and (name == self.excluded or name.startswith(f"{self.excluded}/")):
                continue
            nodes[name] = _read_node(path)
        return nodes

    def _paths(self, test: Callable[[Path], bool]) -> list[Path]:
        return sorted(
            path for path in self.root.rglob("*") if path.name not in {"Dockerfile", ".dockerignore"} and test(path)
        )

    def _file(self) -> Path | None:
        files = self._paths(lambda path: path.is_file() and not path.is_symlink())
        return self._random.choice(files) if files else None

    def _subdirectory(self) -> Path | None:
        directories = self._paths(lambda path: path.is_dir() and not path.is_symlink())
        return self._random.choice(directories) if directories else None

    def _directory(self) -> Path:
        return self._random.choice([self.root, self._subdirectory() or self.root])

    def _name(self, directory: Path) -> Path:
        self._count += 1
        return directory / self._random.choice([f"n{self._count}", f"ü {self._count}", f"N{self._count}.txt"])

    def _content(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def _add_file(self, directory: Path) -> Path:
        path = self._name(directory)
        path.write_bytes(self._content(self._random.choice([0, 1, 5, 5, 5, 40, 300_000])))
        path.chmod(self._random.choice(FILE_MODES))
        _keep_time(path, _OLD)
        return path

    def _add_directory(self, directory: Path) -> Path:
        path = self._name(directory)
        path.mkdir()
        path.chmod(self._random.choice(DIRECTORY_MODES))
        return path

    def _new_file(self) -> str:
        return f"new {self._show(self._add_file(self._directory()))}"

    def _new_directory(self) -> str:
        return f"new directory {self._show(self._add_directory(self._directory()))}"

    def _rewrite_unnoticed(self) -> str:
        if (path := self._file()) is None or path.stat().st_size == 0:
            return ""
        time = path.stat().st_mtime_ns
        path.write_bytes(self._content(path.stat().st_size))
        _keep_time(path, time)
        return f"rewrite {self._show(path)}, same size and time"

    def _replace_by_rename(self) -> str:
        if (path := self._file()) is None or path.stat().st_size == 0:
            return ""
        status, other = path.stat(), path.with_name("replacement")
        other.write_bytes(self._content(status.st_size))
        other.chmod(stat.S_IMODE(status.st_mode))
        _keep_time(other, status.st_mtime_ns)
        other.replace(path)
        return f"replace {self._show(path)}, same size, mode and time"

    def _rewrite(self) -> str:
        if (path := self._file()) is None:
            return ""
        path.write_bytes(self._content(self._random.choice([0, 5, 40])))
        return f"rewrite {self._show(path)}"

    def _touch(self) -> str:
        if (path := self._file()) is None:
            return ""
        os.utime(path)
        return f"touch {self._show(path)}"

    def _swap(self) -> str:
        one, other = self._file(), self._file()
        if one is None or other is None or one.samefile(other) or one.stat().st_size != other.stat().st_size:
            return ""
        contents = one.read_bytes(), other.read_bytes()
        for path, content in zip((other, one), contents, strict=True):
            time = path.stat().st_mtime_ns
            path.write_bytes(content)
            _keep_time(path, time)
        return f"swap the content of {self._show(one)} and {self._show(other)}"

    def _chmod(self) -> str:
        if (path := self._file()) is None:
            return ""
        path.chmod(self._random.choice(FILE_MODES))
        return f"chmod {self._show(path)}"

    def _chmod_directory(self) -> str:
        if (path := self._subdirectory()) is None:
            return ""
        path.chmod(self._random.choice(DIRECTORY_MODES))
        return f"chmod directory {self._show(path)}"

    def _delete(self) -> str:
        if (path := self._file()) is None:
            return ""
        path.unlink()
        return f"delete {self._show(path)}"

    def _delete_directory(self) -> str:
        if (path := self._subdirectory()) is None:
            return ""
        shutil.rmtree(path)
        return f"delete directory {self._show(path)}"

    def _rename(self) -> str:
        if (path := self._file()) is None:
            return ""
        new = path.rename(self._name(self._directory()))
        return f"rename {self._show(path)} to {self._show(new)}"

    def _rename_directory(self) -> str:
        if (path := self._subdirectory()) is None:
            return ""
        new = path.rename(self._name(path.parent))
        return f"rename directory {self._show(path)} to {self._show(new)}"

    def _new_link(self) -> str:
        path = self._name(self._directory())
        path.symlink_to(self._random.choice(["target", "TARGET", "/etc/passwd", "."]))
        _keep_time(path, _OLD)
        return f"new link {self._show(path)}"

    def _retarget(self) -> str:
        links = self._paths(Path.is_symlink)
        if not links:
            return ""
        path = self._random.choice(links)
        target = os.readlink(path).swapcase()
        path.unlink()
        path.symlink_to(target)
        _keep_time(path, _OLD)
        return f"link {self._show(path)} to {target}, same time"

    def _file_to_directory(self) -> str:
        if (path := self._file()) is None:
            return ""
        path.unlink()
        path.mkdir()
        _keep_time(path, _OLD)
        return f"make {self._show(path)} a directory"

    def _directory_to_file(self) -> str:
        if (path := self._subdirectory()) is None:
            return ""
        shutil.rmtree(path)
        path.write_bytes(self._content(5))
        _keep_time(path, _OLD)
        return f"make directory {self._show(path)} a file"

    def _file_to_link(self) -> str:
        if (path := self._file()) is None:
            return ""
        path.unlink()
        path.symlink_to("other")
        _keep_time(path, _OLD)
        return f"make {self._show(path)} a link"

    def _hard_link(self) -> str:
        if (path := self._file()) is None:
            return ""
        new = self._name(self._directory())
        new.hardlink_to(path)
        return f"hard link {self._show(new)} to {self._show(path)}"

    def _break_hard_link(self) -> str:
        files = self._paths(lambda path: path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1)
        if not files:
            return ""
        path = self._random.choice(files)
        status, other = path.stat(), path.with_name("replacement")
        other.write_bytes(self._content(status.st_size))
        other.chmod(stat.S_IMODE(status.st_mode))
        _keep_time(other, status.st_mtime_ns)
        other.replace(path)
        return f"replace the hard link {self._show(path)}, same size and time"

    def _exclude(self) -> str:
        path = self._file()
        name = self._show(path) if path and self._random.random() < 0.6 else ""
        self.excluded = name if name.isascii() else ""
        (self.root / ".dockerignore").write_text(f"{self.excluded}\n")
        return f"exclude {self.excluded or 'nothing'}"

    def _show(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def read_image_nodes(archive: IO[bytes]) -> dict[str, Node]:
    """Return the nodes of a tar archive of /x, by path below /x."""
    nodes: dict[str, Node] = {}
    with tarfile.open(fileobj=io.BytesIO(archive.read())) as tar:
        for member in tar:
            name = member.name.rstrip("/").removeprefix("x/")
            if name == "x":
                continue
            if member.issym():
                nodes[name] = Node("link", 0, member.linkname.encode())
            elif member.isdir():
                nodes[name] = Node("directory", stat.S_IMODE(member.mode), b"")
            else:  # a file, or a hard link to one
                file = tar.extractfile(member)
                assert file is not None, name
                nodes[name] = Node("file", stat.S_IMODE(member.mode), file.read())
    return nodes


def describe_differences(expected: Mapping[str, Node], actual: Mapping[str, Node]) -> list[str]:
    """Return a line for each path that differs."""
    names = sorted({*expected, *actual})
    return [
        f"{name}: {_describe(expected.get(name))}, in the image {_describe(actual.get(name))}"
        for name in names
        if expected.get(name) != actual.get(name)
    ]


def _describe(node: Node | None) -> str:
    if node is None:
        return "nothing"
    return f"{node.kind} {node.mode:o} {len(node.content)} bytes {node.content[:5].hex()}"


def _read_node(path: Path) -> Node:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return Node("link", 0, os.fsencode(os.readlink(path)))
    if stat.S_ISDIR(status.st_mode):
        return Node("directory", stat.S_IMODE(status.st_mode), b"")
    return Node("file", stat.S_IMODE(status.st_mode), path.read_bytes())


def _keep_time(path: Path, nanoseconds: int) -> None:
    os.utime(path, ns=(nanoseconds, nanoseconds), follow_symlinks=False)
