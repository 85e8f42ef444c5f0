"""Debian packages, downloaded and unpacked but not installed: a separate apt that uses the machine's mirror."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from lyra_tasks import console
from lyra_tasks.digests import file_sha256
from lyra_tasks.engine.debian.mirror import find_mirror, host_architecture, require_debian, run_debian_tool
from lyra_tasks.errors import PreconditionError
from lyra_tasks.locks import file_lock
from lyra_tasks.redaction import strip_url_credentials

KEYRINGS = tuple(
    Path(f"/usr/share/keyrings/{name}")
    for name in ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp", "ubuntu-archive-keyring.gpg")
)

# The machine's configuration is read because of its proxy settings, but its hooks must not run for our lists.
_APT_CONF = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg;
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Acquire::Retries "2";
Acquire::http::Timeout "20";
// The index of a mirror that is no longer updated is still signed, but expires after some days.
Acquire::Check-Valid-Until "false";
// The unprivileged user that apt would switch to may not write below our directories.
APT::Sandbox::User "root";
// Engines and root file systems of several suites share one workspace.
APT::Get::List-Cleanup "false";
APT::Update::Error-Mode "any";
// Some mirrors also have SHA512, and apt would print only that.
Acquire::ForceHash "SHA256";
"""
_UNREACHABLE = re.compile(
    r"could not resolve|temporary failure|could ?n.t connect|unable to connect|connection (failed|refused|timed out)"
    r"|network is unreachable|no route to host",
    re.IGNORECASE,
)
_LOCK_TIMEOUT_S = 900.0  # a slow connection may take minutes for the packages of an engine


@dataclass(frozen=True)
class Deb:
    """A downloaded package whose file has the `sha256` of the signed index."""

    name: str
    version: str
    sha256: str
    path: Path
    size: int


@dataclass(frozen=True)
class _IndexEntry:
    """A package in the index: its file name, size in bytes and sha256."""

    file: str
    size: int
    sha256: str

    @property
    def deb_name(self) -> tuple[str, str]:
        name, version, _ = self.file.split("_", 2)
        return name, unquote(version)


class AptWorkspace:
    """An apt with lists, cache and sources below `root`, for some suites and components of the machine's mirror.

    Several processes may share a root, since every call locks it.
    """

    def __init__(self, root: Path, suites: Sequence[str], *, components: Sequence[str] = ("main",)) -> None:
        self.root = root.absolute()
        self.suites = tuple(sorted(set(suites)))
        self.components = tuple(components)
        self._sources = self.root / f"{'-'.join((*self.suites, *self.components))}.sources"

    @cached_property
    def mirror_url(self) -> str:
        """Return the URL of the mirror."""
        return find_mirror()

    def update(self) -> None:
        """Download the signed indexes of the suites.

        Raises:
            PreconditionError: The mirror is not reachable, or does not have a suite.
        """
        require_debian()
        with self._lock():
            for directory in ("lists/partial", "cache/archives/partial"):
                (self.root / directory).mkdir(parents=True, exist_ok=True)
            (self.root / "apt.conf").write_text(_APT_CONF)
            self._sources.write_text(self._sources_stanza())
            result = self._run_apt("update")
        if result.returncode:
            suites = " and ".join(self.suites)
            raise _apt_error(f"Cannot read the package index of {suites}", self.mirror_url, result.stderr)

    def download(
        self, packages: Sequence[str], directory: Path, progress: Callable[[str], None] = console.info
    ) -> list[Deb]:
        """Download packages into a directory and verify them against the index; intact files are not downloaded again.

        A package is `name/suite`, or `name` for the newest. Call `update` first.

        Raises:
            PreconditionError: A suite does not have a package, or the mirror is not reachable.
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
                result = self._run_apt("download", *packages, directory=directory)
                if result.returncode:
                    raise _apt_error("Cannot download the packages", self.mirror_url, result.stderr)
        return [_verify_download(entry, directory) for entry in entries]

    def _read_index_entries(self, packages: Sequence[str]) -> list[_IndexEntry]:
        # In another directory: apt omits what exists in the working directory.
        result = self._run_apt("--print-uris", "download", *packages, directory=self.root)
        if result.returncode:
            raise _apt_error("A package is not in the index", self.mirror_url, result.stderr)
        matches = re.findall(r"(?m)^'[^']+' (\S+) (\d+) SHA256:([0-9a-f]{64})$", result.stdout)
        entries = [_IndexEntry(file, int(size), sha256) for file, size, sha256 in matches]
        if len(entries) != len(set(packages)):
            raise PreconditionError("The package index has packages without SHA256", hint="Use another mirror")
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

    def _run_apt(self, *arguments: str, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
        settings = {
            "Dir::Etc::sourcelist": self._sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::Lists": self.root / "lists",
            # The packages of this machine must not influence the selection.
            "Dir::State::status": "/dev/null",
            "Dir::Cache": self.root / "cache",
            # Container images turn this cache off to stay small, but without it every call parses all lists.
            "Dir::Cache::pkgcache": f"{self._sources.stem}.bin",
            "Dir::Cache::srcpkgcache": "",
        }
        options = [argument for key, value in settings.items() for argument in ("-o", f"{key}={value}")]
        command = ["apt-get", "-qq", "-c", str(self.root / "apt.conf"), *options, *arguments]
        return run_debian_tool(command, directory=directory)

    def _lock(self) -> AbstractContextManager[int]:
        return file_lock(self.root / "lock", resource="the package workspace", timeout=_LOCK_TIMEOUT_S)


def unpack_debs(debs: Iterable[Deb], directory: Path) -> None:
    """Unpack packages into a directory without running their scripts."""
    directory.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        result = run_debian_tool(["dpkg", "-x", str(deb.path), str(directory)])
        if result.returncode:
            raise PreconditionError(
                f"Cannot unpack package {deb.name} into {directory}",
                hint=f"Check the free disk space, or delete {deb.path} and retry",
                details=tuple(result.stderr.splitlines()[-5:]),
            )


def _is_intact(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256


def _verify_download(entry: _IndexEntry, directory: Path) -> Deb:
    path = directory / entry.file
    if not _is_intact(path, entry.sha256):
        raise PreconditionError(
            f"Package {entry.file} does not match the signed index", hint=f"Delete {path} and retry"
        )
    name, version = entry.deb_name
    return Deb(name=name, version=version, sha256=entry.sha256, path=path, size=entry.size)


def _apt_error(message: str, mirror_url: str, output: str) -> PreconditionError:
    lines = tuple(strip_url_credentials(line) for line in output.splitlines() if line.startswith(("E:", "W:")))[-5:]
    if _UNREACHABLE.search(output):
        return PreconditionError(
            f"Package mirror {strip_url_credentials(mirror_url)} is not reachable",
            hint="Check the network, or use another mirror in apt's sources",
            details=lines,
        )
    return PreconditionError(message, hint="Check apt's messages, and that the mirror has it", details=lines)
