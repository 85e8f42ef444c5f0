"""What the machine says about itself: its release, its architecture, and the mirror its own apt uses."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from lyra_tasks.errors import PreconditionError
from lyra_tasks.redaction import strip_url_credentials

APT_DIRECTORY = Path("/etc/apt")
# Debian's names, and what images call the same platform
_PLATFORMS = {"i386": "linux/386", "armhf": "linux/arm/v7", "armel": "linux/arm/v5", "ppc64el": "linux/ppc64le"}


def require_debian() -> None:
    """Raise PreconditionError unless this machine has apt and dpkg."""
    missing = [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]
    if missing:
        raise PreconditionError(
            f"this machine has no {' and no '.join(missing)}: Debian packages cannot be used here",
            hint="use a machine with Debian or Ubuntu, or one where Docker runs ([engine] context names it)",
        )


def host_codename() -> str:
    """The release this machine runs, as its archive calls it: `bookworm`, `noble`."""
    release = _read_os_release()
    codename = release.get("UBUNTU_CODENAME") or release.get("VERSION_CODENAME", "")
    if not codename:
        raise PreconditionError("/etc/os-release names no release", hint="use a machine with Debian or Ubuntu")
    return codename


def is_ubuntu() -> bool:
    """Whether the machine's mirror is an Ubuntu one, which carries no Debian suite."""
    release = _read_os_release()
    return release.get("ID") == "ubuntu" or "UBUNTU_CODENAME" in release


def host_architecture() -> str:
    """The machine's architecture as dpkg calls it: `amd64`, `arm64`."""
    return _run_tool(["dpkg", "--print-architecture"]).strip()


def to_docker_platform(architecture: str) -> str:
    """The platform that an architecture of Debian's is."""
    return _PLATFORMS.get(architecture, f"linux/{architecture}")


def to_debian_architecture(platform: str) -> str:
    """The architecture of Debian's that a platform is."""
    names = {docker_platform: debian_name for debian_name, docker_platform in _PLATFORMS.items()}
    return names.get(platform) or platform.split("/")[1]


def find_mirror() -> str:
    """Where the machine's own apt gets its own release from. PreconditionError if its sources do not say."""
    require_debian()
    codename = host_codename()
    fields = "$(CODENAME)|$(SUITE)|$(COMPONENT)|$(REPO_URI)"
    for line in _run_tool(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"]).splitlines():
        target, suite, component, uri = line.split("|", 3)
        if target == codename and component == "main" and "-" not in suite:
            return uri
    # Without lists (a fresh container image) apt knows no targets yet.
    uri = find_mirror_in_sources(_read_sources(), codename)
    if not uri:
        raise PreconditionError(
            f"apt's sources name no mirror for {codename}", hint="add one to /etc/apt/sources.list.d and try again"
        )
    return uri


def find_mirror_in_sources(texts: Iterable[str], codename: str) -> str:
    """The first URI that carries `codename`'s `main` in one-line or deb822 sources, or an empty string."""
    for text in texts:
        for uri, suites, components in (*_parse_one_line_sources(text), *_parse_deb822_sources(text)):
            if uri and codename in suites.split() and "main" in components.split():
                return uri
    return ""


def _parse_one_line_sources(text: str) -> Iterator[tuple[str, str, str]]:
    for match in re.finditer(r"(?m)^[ \t]*deb[ \t]+(?:\[[^\]]*\][ \t]+)?(\S+)[ \t]+(\S+)[ \t]+([^#\n]*)", text):
        yield match[1], match[2], match[3]


def _parse_deb822_sources(text: str) -> Iterator[tuple[str, str, str]]:
    for stanza in re.split(r"\n\s*\n", text):
        fields = {match[1].lower(): match[2].strip() for match in re.finditer(r"(?m)^([A-Za-z-]+):(.*)$", stanza)}
        if (
            fields.get("enabled", "yes").lower() not in {"no", "false", "0"}
            and "deb" in fields.get("types", "").split()
        ):
            yield fields.get("uris", "").split(" ")[0], fields.get("suites", ""), fields.get("components", "")


def _read_sources() -> list[str]:
    files = [APT_DIRECTORY / "sources.list", *sorted((APT_DIRECTORY / "sources.list.d").glob("*.list"))]
    files += sorted((APT_DIRECTORY / "sources.list.d").glob("*.sources"))
    return [path.read_text(errors="replace") for path in files if path.is_file()]


def _read_os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _run_tool(command: list[str]) -> str:
    result = subprocess.run(command, env=apt_environment(), capture_output=True, text=True, check=False)
    if result.returncode:
        raise PreconditionError(
            f"{command[0]} does not work on this machine",
            hint="run it by hand and repair what it says",
            details=tuple(strip_url_credentials(line) for line in result.stderr.splitlines()[-5:]),
        )
    return result.stdout


def apt_environment() -> dict[str, str]:
    """The environment for apt and dpkg: their messages in English, no questions."""
    return {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
