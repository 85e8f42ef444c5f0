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
from lyra_tasks.config.text import public
from lyra_tasks.engine.mirror import apt_environment, architecture, host_codename, mirror, require_debian
from lyra_tasks.errors import PreconditionError
from lyra_tasks.run import locked

__all__ = ["AptWorkspace", "Deb", "host_codename", "mirror", "require_debian", "require_root", "sha256_of", "unpack"]

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
_LOCK_WAIT = 900.0  # seconds; as long as a slow line needs for an engine


@dataclass(frozen=True)
class Deb:
    """One downloaded package; `sha256` is what the signed index says, and what the file has."""

    name: str
    version: str
    sha256: str
    path: Path
    size: int


@dataclass(frozen=True)
class _Offer:
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
    def address(self) -> str:
        """The mirror that everything comes from."""
        return mirror()

    def update(self) -> None:
        """Fetch the signed indexes of the suites. PreconditionError if the mirror cannot be reached or lacks one."""
        require_debian()
        with self._locked():
            for folder in ("lists/partial", "cache/archives/partial"):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            (self.root / "apt.conf").write_text(_APT_CONF)
            self._sources.write_text(self._stanza())
            result = self._apt("update")
        if result.returncode:
            suites = " and ".join(self.suites)
            raise _apt_fault(f"the package index of {suites} could not be read", self.address, result.stderr)

    def download(
        self, packages: Sequence[str], into: Path, progress: Callable[[str], None] = console.note
    ) -> list[Deb]:
        """Download packages, each verified against the index, into a folder; what is there already stays.

        A package is `name/suite`, or `name` for the newest.
        `update` comes first. PreconditionError names a package that the suite lacks, or the mirror if it is silent.
        """
        into = into.absolute()
        into.mkdir(parents=True, exist_ok=True)
        with self._locked():
            offers = self._offers(packages)
            missing = [offer for offer in offers if not _intact(into / offer.file, offer.sha256)]
            if missing:
                total = console.size(sum(offer.size for offer in missing))
                progress(f"downloading {len(missing)} packages, {total}, from {public(self.address)}")
                for offer in missing:
                    (into / offer.file).unlink(missing_ok=True)
                result = self._apt("download", *packages, cwd=into)
                if result.returncode:
                    raise _apt_fault("the packages could not be downloaded", self.address, result.stderr)
        return [_verified(offer, into) for offer in offers]

    def _offers(self, packages: Sequence[str]) -> list[_Offer]:
        # apt leaves out what already lies in the working directory, which is the caller's
        result = self._apt("--print-uris", "download", *packages, cwd=self.root)
        if result.returncode:
            raise _apt_fault("a package is not in the index", self.address, result.stderr)
        found = re.findall(r"(?m)^'[^']+' (\S+) (\d+) SHA256:([0-9a-f]{64})$", result.stdout)
        offers = [_Offer(file, int(size), sha256) for file, size, sha256 in found]
        if len(offers) != len(set(packages)):
            raise PreconditionError("the package index gives no SHA256 for every package", hint="use another mirror")
        return offers

    def _stanza(self) -> str:
        keyring = next((path for path in KEYRINGS if path.exists()), None)
        lines = [
            "Types: deb",
            f"URIs: {self.address}",
            f"Suites: {' '.join(self.suites)}",
            f"Components: {' '.join(self.components)}",
            f"Architectures: {architecture()}",
            *([f"Signed-By: {keyring}"] if keyring else []),
        ]
        return "\n".join(lines) + "\n"

    def _apt(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
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
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        command = ["apt-get", "-qq", "-c", str(self.root / "apt.conf"), *options, *words]
        return subprocess.run(command, cwd=cwd, env=apt_environment(), capture_output=True, text=True, check=False)

    def _locked(self) -> AbstractContextManager[int]:
        return locked(self.root / "lock", what="the package workspace", wait=_LOCK_WAIT)


def unpack(debs: Iterable[Deb], into: Path) -> None:
    """Unpack packages into a folder; no script of theirs runs."""
    into.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        result = subprocess.run(
            ["dpkg", "-x", str(deb.path), str(into)], env=apt_environment(), capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise PreconditionError(
                f"the package {deb.name} could not be unpacked into {into}",
                hint="see whether the disk is full; if not, delete the package and try again",
                details=tuple(result.stderr.splitlines()[-5:]),
            )


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _intact(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _verified(offer: _Offer, folder: Path) -> Deb:
    path = folder / offer.file
    if not _intact(path, offer.sha256):
        raise PreconditionError(
            f"the package {offer.file} is not what the signed index says", hint="delete it and try again"
        )
    name, version = offer.deb_name
    return Deb(name=name, version=version, sha256=offer.sha256, path=path, size=offer.size)


def _apt_fault(what: str, address: str, output: str) -> PreconditionError:
    lines = tuple(public(line) for line in output.splitlines() if line.startswith(("E:", "W:")))[-5:]
    if _UNREACHABLE.search(output):
        return PreconditionError(
            f"the package mirror {public(address)} could not be reached",
            hint="connect this machine to it, or name a mirror within reach in apt's sources",
            details=lines,
        )
    return PreconditionError(what, hint="see what apt says, and whether the mirror carries it", details=lines)
