"""The Debian or Ubuntu machine: its release, its architecture, the mirror of its apt and the keys for it."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.errors import PreconditionError
from lyra_tasks.processes import create_environment, run_captured
from lyra_tasks.redaction import strip_url_credentials

_KEYRINGS = tuple(
    Path(f"/usr/share/keyrings/{name}")
    for name in ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp", "ubuntu-archive-keyring.gpg")
)
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROXY_VARIABLES = frozenset({"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"})
_ROLLING_SUITES = frozenset({"sid", "unstable", "experimental", "testing"})
_CERTIFICATE_SETTINGS = ("::cainfo", "::capath", "::sslcert", "::sslkey")
_SUITE_CLASSES = ("stable", "testing", "unstable", "sid", "oldstable")
_ARCHIVE_NAMES = frozenset({"debian", "debian-security", "ubuntu", "ubuntu-ports"})
_NO_WORDS = frozenset({"no", "false", "without", "off", "disable", "0"})  # as apt reads them
_DEB822_FIELD = re.compile(r"(?m)^([A-Za-z-]+):((?:.*)(?:\n[ \t]+.*)*)")
_ONE_LINE_SOURCE = re.compile(r"(?m)^[ \t]*deb[ \t]+(?:\[[^\]]*\][ \t]+)?(\S+)[ \t]+(\S+)[ \t]+([^#\n]*)")
# Debian's architectures and Docker's platforms, where the names differ.
_PLATFORMS = {"i386": "linux/386", "armhf": "linux/arm/v7", "armel": "linux/arm/v5", "ppc64el": "linux/ppc64le"}


def require_debian() -> None:
    """Raise PreconditionError if this machine has no apt or dpkg."""
    missing = [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]
    if missing:
        raise PreconditionError(
            f"Cannot use Debian packages: {', '.join(missing)} not found",
            hint="Use a machine with Debian or Ubuntu, or name a running Docker engine in [engine] context",
        )


def host_codename() -> str:
    """Return the codename of this machine's release, such as `bookworm` or `noble`."""
    release = _read_os_release()
    codename = release.get("UBUNTU_CODENAME") or release.get("VERSION_CODENAME", "")
    if not codename:
        raise PreconditionError("/etc/os-release names no release", hint="Use a machine with Debian or Ubuntu")
    return codename


def is_ubuntu() -> bool:
    """Return whether the machine runs Ubuntu, whose mirrors have no Debian suites."""
    release = _read_os_release()
    return release.get("ID") == "ubuntu" or "UBUNTU_CODENAME" in release


def host_architecture() -> str:
    """Return the machine's architecture as dpkg names it: `amd64`, `arm64`."""
    return _read_output(["dpkg", "--print-architecture"]).strip()


def to_docker_platform(architecture: str) -> str:
    """Return Docker's platform for a Debian architecture."""
    return _PLATFORMS.get(architecture, f"linux/{architecture}")


def to_debian_architecture(platform: str) -> str:
    """Return Debian's architecture for a Docker platform."""
    names = {docker_platform: debian_name for debian_name, docker_platform in _PLATFORMS.items()}
    return names.get(platform) or platform.split("/")[1]


def find_mirror() -> str:
    """Return the URI from which the machine's apt gets its own release, or raise PreconditionError."""
    require_debian()
    codename = host_codename()
    if not (uri := _find_suite_uri(codename)):
        raise PreconditionError(
            f"apt's sources name no mirror for {codename}", hint="Add one to /etc/apt/sources.list.d"
        )
    return uri


@cache
def find_security_mirror() -> str:
    """Return the URI from which the machine's apt gets security updates; warn and return "" if there is none."""
    require_debian()
    uri = _find_suite_uri(f"{host_codename()}-security")
    if not uri:
        console.warn("apt's sources name no security suite: packages of engines and bases come without its fixes")
    return uri


def is_rolling(suite: str) -> bool:
    """Return whether a suite is always in development, without security updates of its own."""
    return suite in _ROLLING_SUITES


def list_security_suites(suites: Iterable[str]) -> tuple[str, ...]:
    """Return the security suites of suites; rolling ones and suites of updates have none, and all without a mirror."""
    if not find_security_mirror():
        return ()
    return tuple(f"{suite}-security" for suite in suites if not is_rolling(suite) and "-" not in suite)


def _find_suite_uri(wanted_suite: str) -> str:
    """Return the URI from which apt gets the `main` of a suite, or ""."""
    matches = []
    for line in _read_index_targets().splitlines():
        codename, suite, release, component, uri = line.split("|", 4)
        is_same = wanted_suite == codename and ("-" not in suite or wanted_suite.endswith("-security"))
        if component == "main" and (is_same or wanted_suite == release):
            matches.append(uri)
    # A fresh container image has no package lists, and then apt knows no index targets.
    return _choose_archive(matches) or find_mirror_in_sources(_read_sources(), wanted_suite)


@cache
def _read_index_targets() -> str:
    """Return codename, suite, release, component and URI of each package index of apt, a line each."""
    fields = "$(CODENAME)|$(SUITE)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)"
    return _read_output(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"])


def _read_sources() -> list[str]:
    # Not always below /etc/apt: apt reads what APT_CONFIG names
    setting = _read_output(
        ["apt-config", "shell", "FILE", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"]
    )
    places = dict(word.split("=", 1) for word in shlex.split(setting))
    parts = Path(places["PARTS"])
    files = [Path(places["FILE"]), *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]
    return [path.read_text(errors="replace") for path in files if path.is_file()]


def find_mirror_in_sources(texts: Iterable[str], wanted_suite: str) -> str:
    """Return the URI of a suite's `main` in one-line or deb822 sources, or "".

    A suite may be named by its class: a machine with `forky` in /etc/os-release follows `testing`, or `sid`.
    """
    sources = [source for text in texts for source in _parse_sources(text) if "main" in source.components]
    matches = [source.uri for source in sources if wanted_suite in source.suites]
    if not matches:
        _, _, part = wanted_suite.partition("-")
        classes = {f"{name}-{part}" if part else name for name in _SUITE_CLASSES}
        # others name their suites `stable`, too, but not their archives `debian`
        matches = [source.uri for source in sources if classes & source.suites and _is_archive(source.uri)]
    return _choose_archive(matches)


def _choose_archive(uris: list[str]) -> str:
    """Return the first URI that looks like one of Debian's or Ubuntu's archives, else the first."""
    return next(filter(_is_archive, uris), uris[0] if uris else "")


def _is_archive(uri: str) -> bool:
    return uri.rstrip("/").rpartition("/")[2].removesuffix(".list") in _ARCHIVE_NAMES


@dataclass(frozen=True)
class _Source:
    uri: str
    suites: frozenset[str]
    components: frozenset[str]


def _parse_sources(text: str) -> Iterator[_Source]:
    for match in _ONE_LINE_SOURCE.finditer(text):
        yield _Source(match[1], frozenset({match[2]}), frozenset(match[3].split()))
    for stanza in re.split(r"\n[ \t]*(?:\n[ \t]*)+", re.sub(r"(?m)^#.*\n?", "", text)):
        # the lines of a value that begin with a blank belong to it
        fields = {match[1].lower(): match[2] for match in _DEB822_FIELD.finditer(stanza)}
        is_enabled = fields.get("enabled", "yes").strip().lower() not in _NO_WORDS
        if is_enabled and "deb" in fields.get("types", "").split():
            suites, components = (frozenset(fields.get(key, "").split()) for key in ("suites", "components"))
            for uri in fields.get("uris", "").split():
                yield _Source(uri, suites, components)


def _read_os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _read_output(command: list[str]) -> str:
    result = run_debian_tool(command)
    if result.returncode:
        raise PreconditionError(
            f"{command[0]} failed",
            hint=f"Run `{' '.join(command[:2])}` and fix what it reports",
            details=tuple(strip_url_credentials(line) for line in result.stderr.splitlines()[-5:]),
        )
    return result.stdout


def read_access_settings() -> str:
    """Return how the machine's apt reaches mirrors (proxies, certificates), as lines for an apt.conf."""
    result = run_debian_tool(["apt-config", "dump", "Acquire"])
    names = ((line, line.partition(" ")[0].lower()) for line in result.stdout.splitlines())
    return "".join(f"{line}\n" for line, name in names if "proxy" in name or name.endswith(_CERTIFICATE_SETTINGS))


def run_debian_tool(
    command: list[str], *, directory: Path | None = None, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run apt, dpkg or a program that calls them, with English messages and without questions."""
    environment = create_environment({"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **(variables or {})})
    return run_captured(command, environment=environment, directory=directory)


def run_isolated_tool(command: list[str], variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program whose result must not depend on the user's environment: only proxies are inherited, and no umask.

    Scripts of packages behave differently with variables such as `PYTHONDONTWRITEBYTECODE`.
    """
    proxies = {name: value for name, value in os.environ.items() if name.lower() in _PROXY_VARIABLES}
    fixed = {"PATH": _SYSTEM_PATH, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    return run_captured(command, environment={**proxies, **fixed, **variables}, directory="/", umask=0o022)


def find_keyring() -> Path | None:
    """Return the file with the keys of the machine's distribution."""
    return next((path for path in _KEYRINGS if path.exists()), None)


def list_one_line_sources(suite: str, security_suites: Iterable[str]) -> list[str]:
    """Return a suite and security suites as lines for a sources.list."""
    keyring = find_keyring()
    options = f"[signed-by={keyring}] " if keyring else ""
    security = [f"deb {options}{find_security_mirror()} {name} main" for name in security_suites]
    return [f"deb {options}{find_mirror()} {suite} main", *security]
