"""Debian packages, downloaded and unpacked but not installed: a separate apt that uses the machine's mirror."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from lyra_tasks import console
from lyra_tasks.digests import file_sha256
from lyra_tasks.engine.debian.mirror import (
    find_keyring,
    find_mirror,
    find_security_mirror,
    host_architecture,
    is_rolling,
    list_security_suites,
    read_access_settings,
    require_debian,
    run_debian_tool,
)
from lyra_tasks.engine.debian.unpacked import claim_directory
from lyra_tasks.errors import PreconditionError
from lyra_tasks.locks import file_lock
from lyra_tasks.redaction import strip_url_credentials

# Read instead of the machine's configuration, whose hooks and exceptions are not for packages that root runs.
_APT_CONF = """\
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
// The index of a mirror that is no longer updated is still signed, but hides what was fixed since.
Acquire::Check-Valid-Until "true";
Acquire::Check-Date "true";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Acquire::Retries "2";
Acquire::http::Timeout "20";
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
_ROLLING_VALIDITY_S = 60 * 24 * 3600
_EXPIRED = re.compile(r"is expired|no longer valid|not valid yet", re.IGNORECASE)
_MISSING_SECURITY_SUITE = (
    re.compile(r"(?m)^E: Failed to fetch \S*/dists/(?P<suite>[\w.-]+-security)/.*"),
    re.compile(r"(?m)^E: The repository '\S+ (?P<suite>[\w.-]+-security) Release' does not have a Release file"),
)
_DAMAGED = re.compile(r"mismatch|unexpected size|signature|NOSPLIT|clearsigned", re.IGNORECASE)
_SYNCING = re.compile(r"Mirror sync in progress|Hash Sum mismatch", re.IGNORECASE)
_LOCK_TIMEOUT_S = 900.0  # a slow connection may take minutes for the packages of an engine


@dataclass(frozen=True)
class Deb:
    """A package as the signed index describes it, and the path of its file once it is downloaded."""

    name: str
    version: str
    sha256: str
    path: Path
    size: int

    def is_intact(self) -> bool:
        """Return whether the file exists and is the one of the index."""
        return self.path.is_file() and file_sha256(self.path) == self.sha256


class AptWorkspace:
    """An apt with lists, cache and sources below `root`, for some suites and components of the machine's mirror.

    Each suite comes with its security suite, if the machine's apt knows a mirror for those. Several processes may share
    a root, since every call locks it.
    """

    def __init__(self, root: Path, suites: Sequence[str], *, components: Sequence[str] = ("main",)) -> None:
        self.root = root.absolute()
        self.suites = tuple(sorted(set(suites)))
        self.components = tuple(components)

    @cached_property
    def mirror_url(self) -> str:
        """Return the URL of the mirror."""
        return find_mirror()

    @cached_property
    def security_suites(self) -> tuple[str, ...]:
        """The security suites that packages come from; `update` leaves out those that cannot be read."""
        return list_security_suites(self.suites)

    def update(self) -> None:
        """Download the signed indexes of the suites and their security suites; warn if one of the latter is missing."""
        require_debian()
        # Apt believes the indexes that it has once verified.
        claim_directory(self.root, keep=False)
        with self._lock():
            for directory in ("lists/partial", "cache/archives/partial"):
                (self.root / directory).mkdir(parents=True, exist_ok=True)
            (self.root / "apt.conf").write_text(_APT_CONF + read_access_settings())
            result, self.security_suites = run_with_security_suites(
                lambda suites: self._run_apt("update", security_suites=suites), self.security_suites
            )
        if result.returncode:
            suites = " and ".join(self.suites)
            raise _apt_error(f"Cannot read the package index of {suites}", self.mirror_url, result.stderr)

    def download(
        self, packages: Sequence[str], directory: Path, progress: Callable[[str], None] = console.info
    ) -> list[Deb]:
        """Download packages into a directory and verify them against the index; intact files are not downloaded again.

        A package is `name/suite`, fixes of its security suite included, or `name` for the newest. Call `update` first.
        """
        directory = directory.absolute()
        directory.mkdir(parents=True, exist_ok=True)
        with self._lock():
            debs_by_suite = {
                suite: self._read_index(names, directory, suite) for suite, names in _group_by_suite(packages).items()
            }
            debs = [deb for suite_debs in debs_by_suite.values() for deb in suite_debs]
            missing = [deb for deb in debs if not deb.is_intact()]
            if missing:
                total, started = sum(deb.size for deb in missing), time.monotonic()
                count, size = console.format_count(len(missing), "package"), console.format_bytes(total)
                progress(f"downloading {count}, {size}, from {strip_url_credentials(self.mirror_url)}")
                for deb in missing:
                    deb.path.unlink(missing_ok=True)
                for suite, suite_debs in debs_by_suite.items():
                    names = [deb.name for deb in suite_debs if deb in missing]
                    result = self._run_apt("download", *names, directory=directory, suite=suite) if names else None
                    if result is not None and result.returncode:
                        raise _apt_error("Cannot download the packages", self.mirror_url, result.stderr)
                seconds = time.monotonic() - started
                progress(f"downloaded {size} in {seconds:.1f} s, {console.format_bytes(total / seconds)}/s")
        for deb in missing:
            if not deb.is_intact():
                raise PreconditionError(
                    f"Package {deb.path.name} does not match the signed index", hint=f"Delete {deb.path} and retry"
                )
        return debs

    def _read_index(self, names: Sequence[str], directory: Path, suite: str) -> list[Deb]:
        if suite and suite not in self.suites:
            raise PreconditionError(
                "A package is not in the index",
                hint=f"Choose {' or '.join(self.suites)}",
                details=(f"the suite {suite} was not read",),
            )
        # In another directory: apt omits what exists in the working directory.
        result = self._run_apt("--print-uris", "download", *names, directory=self.root, suite=suite)
        if result.returncode:
            raise _apt_error("A package is not in the index", self.mirror_url, result.stderr)
        matches = re.findall(r"(?m)^'[^']+' (\S+) (\d+) SHA256:([0-9a-f]{64})$", result.stdout)
        if len(matches) != len(set(names)):
            raise PreconditionError("The package index has packages without SHA256", hint="Use another mirror")
        return [Deb(*parse_deb_name(file), sha256, directory / file, int(size)) for file, size, sha256 in matches]

    def _write_sources(self, suite: str, security_suites: Collection[str]) -> Path:
        """Write the sources of one suite, or of all if it is empty, with those of their security suites to use."""
        suites = (suite,) if suite else self.suites
        keyring = find_keyring()
        common = [f"Components: {' '.join(self.components)}", f"Architectures: {host_architecture()}"]
        common += [f"Signed-By: {keyring}"] if keyring else []
        stable, rolling = ([name for name in suites if is_rolling(name) == state] for state in (False, True))
        stanzas = [["Types: deb", f"URIs: {self.mirror_url}", f"Suites: {' '.join(stable)}", *common]] if stable else []
        if rolling:
            # Their indexes expire after a week, which mirrors that are updated now and then miss.
            source = ["Types: deb", f"URIs: {self.mirror_url}", f"Suites: {' '.join(rolling)}", *common]
            stanzas.append([*source, f"Valid-Until-Min: {_ROLLING_VALIDITY_S}"])
        if used := [name for name in list_security_suites(suites) if name in security_suites]:
            stanzas.append(["Types: deb", f"URIs: {find_security_mirror()}", f"Suites: {' '.join(used)}", *common])
        path = self.root / f"{'-'.join((*suites, *self.components))}.sources"
        text = "\n".join(line for stanza in stanzas for line in (*stanza, ""))
        # If the file is newer than its cache, apt parses all lists again.
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)
        return path

    def _run_apt(
        self,
        *arguments: str,
        directory: Path | None = None,
        suite: str = "",
        security_suites: Collection[str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        sources = self._write_sources(suite, self.security_suites if security_suites is None else security_suites)
        settings = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::Lists": self.root / "lists",
            # The packages of this machine must not influence the selection.
            "Dir::State::status": "/dev/null",
            "Dir::Cache": self.root / "cache",
            # Container images turn this cache off to stay small, but without it every call parses all lists.
            "Dir::Cache::pkgcache": f"{sources.stem}.bin",
            "Dir::Cache::srcpkgcache": "",
        }
        options = [argument for key, value in settings.items() for argument in ("-o", f"{key}={value}")]
        command = ["apt-get", "-qq", *options, *arguments]
        return run_debian_tool(command, directory=directory, variables={"APT_CONFIG": str(self.root / "apt.conf")})

    def _lock(self) -> AbstractContextManager[int]:
        return file_lock(self.root / "lock", resource="the package workspace", timeout=_LOCK_TIMEOUT_S)


def _group_by_suite(packages: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of packages by the suite that they shall come from, `""` for any."""
    groups: dict[str, list[str]] = {}
    for package in packages:
        name, _, suite = package.partition("/")
        groups.setdefault(suite, []).append(name)
    return groups


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


def parse_deb_name(file: str) -> tuple[str, str]:
    """Return name and version of a package from its file name."""
    name, version, *_ = [*file.split("_", 2), "", ""]
    return name, unquote(version)


def run_with_security_suites(
    run: Callable[[tuple[str, ...]], subprocess.CompletedProcess[str]], security_suites: tuple[str, ...]
) -> tuple[subprocess.CompletedProcess[str], tuple[str, ...]]:
    """Run apt with security suites, and again without those that the mirror does not have or cannot send.

    Return the result and the suites that are left. An index that is there, but expired or not signed, stays an error.
    """
    result = run(security_suites)
    missing = find_missing_security_suites(result.stderr) & set(security_suites) if result.returncode else set()
    if not missing:
        return result, security_suites
    names = " and ".join(sorted(missing))
    console.warn(f"The security mirror does not send the index of {names}: packages come without its fixes")
    remaining = tuple(name for name in security_suites if name not in missing)
    return run(remaining), remaining


def find_missing_security_suites(apt_output: str) -> set[str]:
    """Return the security suites whose index apt could not fetch; a damaged one is not missing."""
    matches = [match for pattern in _MISSING_SECURITY_SUITE for match in pattern.finditer(apt_output)]
    return {match["suite"] for match in matches if not _DAMAGED.search(match[0])}


def _apt_error(message: str, mirror_url: str, output: str) -> PreconditionError:
    lines = tuple(strip_url_credentials(line) for line in output.splitlines() if line.startswith(("E:", "W:")))[-5:]
    if _UNREACHABLE.search(output):
        return PreconditionError(
            f"Package mirror {strip_url_credentials(mirror_url)} is not reachable",
            hint="Check the network, or use another mirror in apt's sources",
            details=lines,
        )
    if _EXPIRED.search(output):
        return PreconditionError(
            f"The package indexes of {strip_url_credentials(mirror_url)} have expired, or the clock is wrong",
            hint="Use a mirror that is updated in apt's sources, and check the clock",
            details=lines,
        )
    hint = find_apt_hint(output, "Check apt's messages, and that the mirror has it")
    return PreconditionError(message, hint=hint, details=lines)


def find_apt_hint(output: str, default: str) -> str:
    """Return what to do about the errors of apt; a mirror that is being updated has not all files of its index."""
    if _SYNCING.search(output):
        return "Try again in an hour, when the mirror has all files of its index, or use another in apt's sources"
    return default
