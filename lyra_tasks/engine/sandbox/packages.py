"""The programs of a private engine: Debian packages that are unpacked into the cache, once per suite."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lyra_tasks.digests import sha256_hex
from lyra_tasks.engine.debian.mirror import host_codename, is_ubuntu
from lyra_tasks.engine.debian.packages import AptWorkspace, unpack_debs
from lyra_tasks.engine.debian.unpacked import (
    claim_directory,
    hash_tree,
    is_own_directory,
    is_unchanged,
    protect_tree,
)
from lyra_tasks.engine.sandbox.layout import StoreKind
from lyra_tasks.errors import EngineUnavailableError, PreconditionError, UsageError
from lyra_tasks.files import mark_used, write_file
from lyra_tasks.locks import file_lock

# Programs that need C libraries come from the oldest supported Debian, so that they run on all newer ones; the engine
# itself is written in Go. Libraries of apt, dpkg or systemd are left out: programs of a newer machine would load the
# older ones.
TOOLS_SUITE = "bookworm"
TOOLS = ("runc", "iptables", "iproute2", "slirp4netns")
LIBRARIES = (
    *("libxtables12", "libip4tc2", "libip6tc2", "libnftnl11", "libmnl0", "libnfnetlink0", "libnetfilter-conntrack3"),
    *("libdevmapper1.02.1", "libbsd0", "libslirp0"),
)
PROGRAMS = (
    "dockerd", "containerd", "containerd-shim-runc-v2", "docker-proxy", "tini-static", "runc", "ip", "slirp4netns",
)  # fmt: skip
FILTER_PROGRAMS = tuple(f"{table}{verb}" for table in ("iptables", "ip6tables") for verb in ("", "-save", "-restore"))
PLUGINS = ("docker-buildx", "docker-compose")
NO_ENGINE_HINT = (
    "Start Docker and name it in [engine] context, run this command as root, or use a machine with Debian or Ubuntu"
)
_ENGINE_VERSIONS = {"bookworm": (20, 10), "trixie": (26, 1)}  # ascending
NEWEST_SUITE = "sid"
_CONTENTS_FILE = "contents.json"
_LOCK_TIMEOUT_S = 1200.0  # another run may be downloading


@dataclass(frozen=True)
class EngineRecipe:
    """The packages of one suite's engine, their suites and components, and its image stores, preferred one first."""

    packages: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    stores: tuple[StoreKind, ...]


class EngineContents(BaseModel):
    """The content of `contents.json`: sha256 of an unpacked engine's packages, and of all their files, by name."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    schema_version: Literal[2] = 2
    suite: str
    packages: dict[str, str]
    files: dict[str, str]


def resolve_suite(suite: str) -> str:
    """Return the suite that this machine can install: on Ubuntu always its own release, which excludes bookworm."""
    if not is_ubuntu():
        return suite
    if suite == "bookworm":
        raise PreconditionError("Ubuntu's mirrors have no bookworm engine", hint="Use a machine with Debian")
    return host_codename()


def select_recipe(suite: str, *, ubuntu: bool = False) -> EngineRecipe:
    """Return the packages of a Debian suite's or Ubuntu release's engine, or raise UsageError for an unknown suite."""
    return _create_ubuntu_recipe(suite) if ubuntu else _create_debian_recipe(suite)


def _create_debian_recipe(suite: str) -> EngineRecipe:
    plugins, sid_plugins = (tuple(f"{plugin}/{suite}" for plugin in PLUGINS) for suite in ("trixie", "sid"))
    programs = {
        # Bookworm has neither buildx nor Compose 2; those of trixie also work with its engine.
        "bookworm": ("docker.io/bookworm", "containerd/bookworm", "tini/bookworm", *plugins),
        "trixie": ("docker.io/trixie", "containerd/trixie", "tini/trixie", "docker-cli/trixie", *plugins),
        "sid": ("docker.io/sid", "containerd/sid", "tini-static/sid", "docker-cli/sid", *sid_plugins),
    }
    if suite not in programs:
        raise UsageError(f"Unknown suite {suite!r} for the private engine", hint=f"Choose {', '.join(programs)}")
    tools = (f"{name}/{TOOLS_SUITE}" for name in (*TOOLS, *LIBRARIES, "libbpf1", "libelf1", "libglib2.0-0"))
    packages = (*programs[suite], *tools)
    return EngineRecipe(
        packages=packages,
        suites=tuple(sorted({package.split("/")[1] for package in packages})),
        components=("main",),
        stores=("graph",) if suite == "bookworm" else ("containerd", "graph"),
    )


def _create_ubuntu_recipe(release: str) -> EngineRecipe:
    programs = ("docker.io", "containerd", "tini", "docker-buildx", "docker-compose-v2")
    jammy = ("libbpf0", "libelf1", "libglib2.0-0")
    release_libraries = jammy if release == "jammy" else ("libbpf1", "libelf1t64", "libglib2.0-0t64")
    nftables_libraries = ("libnftables1", "libjansson4")  # the engines of Ubuntu use nftables directly
    return EngineRecipe(
        packages=(*programs, *TOOLS, *LIBRARIES, *release_libraries, *nftables_libraries),
        suites=(release, f"{release}-updates"),
        components=("main", "universe"),
        stores=("containerd", "graph"),
    )


def fetch_engine(cache: Path, suite: str, progress: Callable[[str], None]) -> Path:
    """Return the directory with the engine of `suite`; download (about 90 MiB) and unpack (400 MiB) it if needed.

    It contains `root` (the packages), `bin` (for the daemon's PATH), `cli` (only the docker command), `lib`, `xtables`,
    `cli-plugins` and `contents.json`. It is replaced if it was changed, or if others could change it.
    """
    recipe = select_recipe(suite, ubuntu=is_ubuntu())
    # An older Lyra may have unpacked other packages, or knew less of them.
    version = EngineContents.model_fields["schema_version"].default
    digest = sha256_hex(" ".join((*recipe.packages, f"contents-{version}")).encode())
    final = cache.absolute() / "engines" / f"{suite}-{digest[:8]}"
    if _is_intact(cache, final):
        mark_used(final.with_suffix(".lock"))
        return final
    missing = [tool for tool in ("apt-get", "dpkg", "unshare") if shutil.which(tool) is None]
    if missing:
        raise EngineUnavailableError(
            f"Cannot install a private engine from Debian packages: {', '.join(missing)} not found",
            hint=NO_ENGINE_HINT,
        )
    with file_lock(final.with_suffix(".lock"), resource=f"the download of the {suite} engine", timeout=_LOCK_TIMEOUT_S):
        if _is_intact(cache, final):
            return final
        staging, changed = final.with_suffix(".new"), final.with_suffix(".changed")
        for directory in (staging, changed):
            shutil.rmtree(directory, ignore_errors=True)
        if final.exists():
            progress(f"The unpacked {suite} engine was changed, or others could change it: unpacking it again")
            final.rename(changed)  # an engine may be running from it
        for directory in (cache, final.parent):
            claim_directory(directory)
        workspace = AptWorkspace(cache / "apt", recipe.suites, components=recipe.components)
        workspace.update()
        debs = workspace.download(recipe.packages, staging / "debs", progress)
        unpack_debs(debs, staging / "root")
        shutil.rmtree(staging / "debs")
        _link_programs(staging)
        protect_tree(staging)
        packages = {deb.path.name: deb.sha256 for deb in debs}
        contents = EngineContents(suite=suite, packages=packages, files=hash_tree(staging))
        write_file(staging / _CONTENTS_FILE, (contents.model_dump_json(indent=2) + "\n").encode())
        staging.rename(final)
    return final


def _is_intact(cache: Path, directory: Path) -> bool:
    """Return whether an unpacked engine is what was verified, and nobody else could change it."""
    for parent in (cache, directory.parent):
        if parent.is_dir() and not is_own_directory(parent):
            return False
    try:
        contents = EngineContents.model_validate_json((directory / _CONTENTS_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return is_unchanged(directory, contents.files, directory / _CONTENTS_FILE)


def _link_programs(directory: Path) -> None:
    """Link programs and libraries into a few flat directories, as no package script ran."""
    root = directory / "root"
    programs = {path.name: path for name in ("bin", "sbin", "usr/bin", "usr/sbin") for path in (root / name).glob("*")}
    aliases = {f"bin/{name}": "xtables-nft-multi" for name in FILTER_PROGRAMS} | {"bin/docker-init": "tini-static"}
    for link, name in {**{f"bin/{name}": name for name in PROGRAMS}, **aliases, "cli/docker": "docker"}.items():
        if name not in programs:
            raise PreconditionError(
                f"The packages do not contain {name}", hint="Choose another suite in [engine] suite"
            )
        _link(directory / link, programs[name])
    for plugin in PLUGINS:
        _link(directory / "cli-plugins" / plugin, root / "usr/libexec/docker/cli-plugins" / plugin)
    for library in (*root.glob("lib/*-linux-gnu*/*.so*"), *root.glob("usr/lib/*-linux-gnu*/*.so*")):
        _link(directory / "lib" / library.name, library)
    _link(directory / "xtables", next(root.glob("usr/lib/*-linux-gnu*/xtables")))


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent))


def find_suite_for_version(version: tuple[int, ...]) -> str:
    """Return the suite with the oldest engine that is at least `version`, or else the one with the newest engine."""
    return next((suite for suite, newest in _ENGINE_VERSIONS.items() if newest >= version[:2]), NEWEST_SUITE)
