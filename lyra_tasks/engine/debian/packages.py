"""Debian packages without installing any: an apt of our own beside the machine's, on the machine's own mirror."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from lyra_tasks import console
from lyra_tasks.engine.debian.mirror import (
    apt_environment,
    find_mirror,
    host_architecture,
    host_codename,
    require_debian,
)
from lyra_tasks.errors import PreconditionError
from lyra_tasks.locks import file_lock
from lyra_tasks.redaction import strip_url_credentials

__all__ = [
    "AptWorkspace",
    "Deb",
    "host_codename",
    "find_mirror",
    "require_debian",
    "require_root",
    "file_sha256",
    "unpack_debs",
]

KEYRINGS = tuple(
    Path(f"/usr/share/keyrings/{name}")
    for name in ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp", "ubuntu-archive-keyring.gpg")
)

# The machine's hooks would run for our own lists, too; its proxy settings are wanted, so its configuration is read.
_APT_CONF = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg;
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Acquire::Retries "2";
Acquire::http::Timeout "20";
// A mirror that is no longer synchronised is still signed; without this its index is refused once it is some days old.
Acquire::Check-Valid-Until "false";
// The unprivileged user that apt would switch to may not write below our folders.
APT::Sandbox::User "root";
// Lists of other suites stay: several engines and root file systems share one workspace.
APT::Get::List-Cleanup "false";
APT::Update::Error-Mode "any";
// Some mirrors offer SHA512 as well, and apt would show that one only.
Acquire::ForceHash "SHA256";
"""
_UNREACHABLE = re.compile(
    r"could not resolve|temporary failure|could ?n.t connect|unable to connect|connection (failed|refused|timed out)"
    r"|network is unreachable|no route to host",
    re.IGNORECASE,
)
_LOCK_TIMEOUT_S = 900.0  # seconds; as long as a slow line needs for an engine


@dataclass(frozen=True)
class Deb:
    """One downloaded package; `sha256` is what the signed index says, and what the file has."""

    name: str
    version: str
    sha256: str
    path: Path
    size: int


@dataclass(frozen=True)
class _IndexEntry:
    """What the index offers for a package: its file name, size in bytes and sha256."""

    file: str
    size: int
    sha256: str

    @property
    def deb_name(self) -> tuple[str, str]:
        name, version, _ = self.file.split("_", 2)
        return name, unquote(version)


def require_root(purpose: str) -> None:
    """Raise PreconditionError naming `purpose` unless this process is root."""
    if os.geteuid() != 0:
        raise PreconditionError(f"{purpose} needs root", hint="run the command as root, or use a machine with Docker")


class AptWorkspace:
    """Lists, cache and sources of our own below `root`, for `suites` of the machine's mirror.

    Several processes may use one root: each call holds a lock on it. `components` are those of the mirror to read.
    """

    def __init__(self, root: Path, suites: Sequence[str], *, components: Sequence[str] = ("main",)) -> None:
        self.root = root.absolute()
        self.suites = tuple(sorted(set(suites)))
        self.components = tuple(components)
        self._sources = self.root / f"{'-'.join((*self.suites, *self.components))}.sources"

    @cached_property
    def mirror_url(self) -> str:
        """The mirror that everything comes from."""
        return find_mirror()

    def update(self) -> None:
        """Fetch the signed indexes of the suites. PreconditionError if the mirror cannot be reached or lacks one."""
        require_debian()
        with self._lock():
            for directory in ("lists/partial", "cache/archives/partial"):
                (self.root / directory).mkdir(parents=True, exist_ok=True)
            (self.root / "apt.conf").write_text(_APT_CONF)
            self._sources.write_text(self._sources_stanza())
            result = self._run_apt("update")
        if result.returncode:
            suites = " and ".join(self.suites)
            raise _apt_error(f"the package index of {suites} could not be read", self.mirror_url, result.stderr)

    def download(
        self, packages: Sequence[str], directory: Path, progress: Callable[[str], None] = console.info
    ) -> list[Deb]:
        """Download packages, each verified against the index, into a folder; what is there already stays.

        A package is `name/suite`, or `name` for the newest.
        `update` comes first. PreconditionError names a package that the suite lacks, or the mirror if it is silent.
        """
        directory = directory.absolute()
        directory.mkdir(parents=True, exist_ok=True)
        with self._lock():
            entries = self._read_index_entries(packages)
            missing = [entry for entry in entries if not _is_intact(directory / entry.file, entry.sha256)]
            if missing:
                total = console.format_bytes(sum(entry.size for entry in missing))
                progress(f"downloading {len(missing)} packages, {total}, from {strip_url_credentials(self.mirror_url)}")
                for entry in missing:
                    (directory / entry.file).unlink(missing_ok=True)
                result = self._run_apt("download", *packages, cwd=directory)
                if result.returncode:
                    raise _apt_error("the packages could not be downloaded", self.mirror_url, result.stderr)
        return [_verify_download(entry, directory) for entry in entries]

    def _read_index_entries(self, packages: Sequence[str]) -> list[_IndexEntry]:
        # apt leaves out what already lies in the working directory, which is the caller's
        result = self._run_apt("--print-uris", "download", *packages, cwd=self.root)
        if result.returncode:
            raise _apt_error("a package is not in the index", self.mirror_url, result.stderr)
        matches = re.findall(r"(?m)^'[^']+' (\S+) (\d+) SHA256:([0-9a-f]{64})$", result.stdout)
        entries = [_IndexEntry(file, int(size), sha256) for file, size, sha256 in matches]
        if len(entries) != len(set(packages)):
            raise PreconditionError("the package index gives no SHA256 for every package", hint="use another mirror")
        return entries

    def _sources_stanza(self) -> str:
        keyring = next((path for path in KEYRINGS if path.exists()), None)
        lines = [
            "Types: deb",
            f"URIs: {self.mirror_url}",
            f"Suites: {' '.join(self.suites)}",
            f"Components: {' '.join(self.components)}",
            f"Architectures: {host_architecture()}",
            *([f"Signed-By: {keyring}"] if keyring else []),
        ]
        return "\n".join(lines) + "\n"

    def _run_apt(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        settings = {
            "Dir::Etc::sourcelist": self._sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::Lists": self.root / "lists",
            # What this machine has installed must not decide what is offered.
            "Dir::State::status": "/dev/null",
            "Dir::Cache": self.root / "cache",
            # Container images turn this off to stay small; without it every call parses all lists again.
            "Dir::Cache::pkgcache": f"{self._sources.stem}.bin",
            "Dir::Cache::srcpkgcache": "",
        }
        options = [argument for key, value in settings.items() for argument in ("-o", f"{key}={value}")]
        command = ["apt-get", "-qq", "-c", str(self.root / "apt.conf"), *options, *arguments]
        return subprocess.run(command, cwd=cwd, env=apt_environment(), capture_output=True, text=True, check=False)

    def _lock(self) -> AbstractContextManager[int]:
        return file_lock(self.root / "lock", resource="the package workspace", timeout=_LOCK_TIMEOUT_S)


def unpack_debs(debs: Iterable[Deb], directory: Path) -> None:
    """Unpack packages into a folder; no script of theirs runs."""
    directory.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        result = subprocess.run(
            ["dpkg", "-x", str(deb.path), str(directory)],
            env=apt_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise PreconditionError(
                f"the package {deb.name} could not be unpacked into {directory}",
                hint="see whether the disk is full; if not, delete the package and try again",
                details=tuple(result.stderr.splitlines()[-5:]),
            )


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_intact(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256


def _verify_download(entry: _IndexEntry, directory: Path) -> Deb:
    path = directory / entry.file
    if not _is_intact(path, entry.sha256):
        raise PreconditionError(
            f"the package {entry.file} is not what the signed index says", hint="delete it and try again"
        )
    name, version = entry.deb_name
    return Deb(name=name, version=version, sha256=entry.sha256, path=path, size=entry.size)


def _apt_error(message: str, mirror_url: str, output: str) -> PreconditionError:
    lines = tuple(strip_url_credentials(line) for line in output.splitlines() if line.startswith(("E:", "W:")))[-5:]
    if _UNREACHABLE.search(output):
        return PreconditionError(
            f"the package mirror {strip_url_credentials(mirror_url)} could not be reached",
            hint="connect this machine to it, or name a mirror within reach in apt's sources",
            details=lines,
        )
    return PreconditionError(message, hint="see what apt says, and whether the mirror carries it", details=lines)
