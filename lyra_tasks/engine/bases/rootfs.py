"""Root file systems built from Debian packages: the same packages give the same bytes on every machine.

They are built by mmdebstrap, which is downloaded from the machine's mirror and not installed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.config.models import Rootfs
from lyra_tasks.digests import file_sha256, sha256_hex
from lyra_tasks.dockerfile.lock_file import LockedRootfs
from lyra_tasks.documents import translate_failures
from lyra_tasks.engine.bases.rootfs_cache import ROOTFS_TAR, BuiltRootfs, find_kept_rootfs, keep_rootfs
from lyra_tasks.engine.bases.rootfs_tar import PACKAGE_LIST, finish_tar
from lyra_tasks.engine.debian.mirror import (
    host_architecture,
    host_codename,
    is_ubuntu,
    list_one_line_sources,
    list_security_suites,
    read_access_settings,
    run_debian_tool,
    run_isolated_tool,
    to_docker_platform,
)
from lyra_tasks.engine.debian.namespaces import require_user_namespaces
from lyra_tasks.engine.debian.packages import (
    AptWorkspace,
    find_apt_hint,
    parse_deb_name,
    run_with_security_suites,
    unpack_debs,
)
from lyra_tasks.engine.debian.unpacked import claim_directory, is_protected, protect_tree
from lyra_tasks.errors import PreconditionError
from lyra_tasks.locks import file_lock, private_directory
from lyra_tasks.redaction import strip_url_credentials

_LOCK_TIMEOUT_S = 900.0  # another run may be building the same root file system

# Programs that maintainer scripts call: with them `custom` can configure any package, and a Dockerfile can RUN.
_SCRIPT_DEPENDENCIES = (
    "base-files", "base-passwd", "coreutils", "dash", "debianutils", "diffutils", "dpkg", "findutils", "grep",
    "libc-bin", "mawk", "perl-base", "sed", "tar",
)  # fmt: skip

# Since bookworm /bin, /sbin and /lib are links; `extract` runs no script that would create them.
_CREATE_LINKS = 'for name in bin sbin lib lib64; do mkdir -p "$1/usr/$name" && ln -s "usr/$name" "$1/$name"; done'

# Licences stay. Traces of this machine, of its mirror and of the build are removed, and directories that only older
# versions of mmdebstrap make where the packages bring what they need.
_STRIP = """\
cd "$1"
[ ! -d usr/share/doc ] || find usr/share/doc ! -type d ! -name copyright -delete
[ ! -d usr/share/doc ] || find usr/share/doc -depth -type d -empty -delete
rm -rf usr/share/info usr/share/lintian usr/share/locale usr/share/man var/log/*
rm -f var/cache/debconf/*-old var/lib/dpkg/*-old
if grep -qsx /bin var/lib/dpkg/info/base-files.list; then
    for name in lib32 libo32 libx32; do [ ! -L $name ] || ! rmdir usr/$name || rm $name; done
fi
rm -f etc/hostname etc/resolv.conf etc/apt/sources.list etc/apt/apt.conf.d/99mmdebstrap etc/dpkg/dpkg.cfg.d/99mmdebstrap
"""
# Mounts and processes of their own, so that none outlive the build.
_OWN_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
_LIST_INSTALLED = 'dpkg-query --admindir="$1/var/lib/dpkg" --show --showformat="\\${Package}=\\${Version}\\n"'
_LIST_EXTRACTED = 'ls "$1/var/cache/apt/archives"'


def build_rootfs(
    spec: Rootfs,
    *,
    cache: Path,
    pin: LockedRootfs | None = None,
    architecture: str = "",
    locations: tuple[str, ...] = (),
) -> BuiltRootfs:
    """Return a root file system from the cache, or build it in 10 to 30 s from the packages of the mirror.

    With `pin`, it is exactly the pinned one, and the network is not used if it is cached. `architecture` defaults to
    the machine's own. `locations` name the FROM instructions in messages.
    """
    if pin and (cached := find_kept_rootfs(cache, pin.sha256)):
        return cached
    architecture = architecture or (pin.architecture if pin else host_architecture())
    if spec.variant != "extract" and architecture != host_architecture():
        raise PreconditionError(
            f"Cannot set up packages for {to_docker_platform(architecture)} on a machine of another platform",
            hint='Set `variant = "extract"` for this `rootfs`, or use an `archive` for the base',
            details=locations,
        )
    with file_lock(cache / "rootfs" / "lock", resource="the cache of root file systems", timeout=_LOCK_TIMEOUT_S):
        built = _build_or_reuse(spec, cache, pin, architecture)
    if pin and built.pin.sha256 != pin.sha256:
        raise PreconditionError(
            f"Locked {spec.suite} root file system {pin.sha256[:12]} is not available: "
            f"the mirror now has {built.pin.sha256[:12]}",
            hint="Run `lock.update` to use the new one, or copy the old one from the cache of another machine",
            details=_list_changes(pin, built.pin),
        )
    return built


def _build_or_reuse(spec: Rootfs, cache: Path, pin: LockedRootfs | None, architecture: str) -> BuiltRootfs:
    components = ("main", "universe") if is_ubuntu() else ("main",)
    workspace = AptWorkspace(cache / "apt", [host_codename(), spec.suite], components=components)
    workspace.update()
    security_suites = tuple(name for name in list_security_suites([spec.suite]) if name in workspace.security_suites)
    release = b"".join(_read_release_file(workspace, suite) for suite in (spec.suite, *security_suites))
    epoch = pin.source_date_epoch if pin else _parse_release_date(release)
    tools, version = _fetch_mmdebstrap(workspace, cache / "rootfs")
    recipe = [spec.suite, spec.variant, sorted(set(spec.packages)), epoch, version, sha256_hex(release)]
    recipe += [] if architecture == host_architecture() else [architecture]
    state = sha256_hex(json.dumps(recipe).encode())
    state_path = cache / "rootfs" / "states" / state
    if state_path.exists() and (cached := find_kept_rootfs(cache, state_path.read_text())):
        return cached
    console.info(f"building a {spec.suite} root file system for {architecture} with {', '.join(spec.packages)}")
    built = _build(spec, cache / "rootfs", tools, version, epoch, architecture, security_suites)
    state_path.parent.mkdir(exist_ok=True)
    state_path.write_text(built.pin.sha256)
    return built


def _build(
    spec: Rootfs,
    directory: Path,
    tools: Path,
    version: str,
    epoch: int,
    architecture: str,
    security_suites: tuple[str, ...],
) -> BuiltRootfs:
    # A killed run may have left the directory, but no mounts: those are in its own namespace.
    staging = directory / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    (staging / "context").mkdir(parents=True)
    staging.chmod(0o755)
    tar = staging / "context" / ROOTFS_TAR
    if os.geteuid() != 0:
        require_user_namespaces()
    try:
        with _work_directory(staging) as work:
            _run_mmdebstrap(spec, work, tar, tools, epoch, architecture, security_suites)
        packages = finish_tar(tar, epoch)
        pin = LockedRootfs(
            suite=spec.suite,
            variant=spec.variant,
            packages=tuple(spec.packages),
            architecture=architecture,
            sha256=file_sha256(tar),
            source_date_epoch=epoch,
            resolved=tuple(_package_versions(packages)),
            tools={"mmdebstrap": version},
        )
        return keep_rootfs(staging / "context", directory / pin.sha256, pin)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _work_directory(staging: Path) -> Iterator[Path]:
    """Yield a directory that other users can read; in a user namespace, mmdebstrap is one, and homes are closed."""
    if os.geteuid() != 0:
        with private_directory("rootfs", is_large=True) as work:
            work.chmod(0o755)
            yield work
        return
    work = staging / "tmp"
    work.mkdir()
    work.chmod(0o755)
    yield work


def _run_mmdebstrap(
    spec: Rootfs,
    work: Path,
    tar: Path,
    tools: Path,
    epoch: int,
    architecture: str,
    security_suites: tuple[str, ...],
) -> None:
    apt_conf = work / "apt.conf"
    # mmdebstrap does not read the machine's settings. As the user _apt, where that user can reach the directory, apt
    # would leave its number behind.
    apt_conf.write_text('Acquire::Languages "none";\nAPT::Sandbox::User "root";\n' + read_access_settings())
    is_root, is_extract = os.geteuid() == 0, spec.variant == "extract"
    include = {*spec.packages, *(_SCRIPT_DEPENDENCIES if spec.variant == "custom" else ())}
    merged_usr_hooks = work / "merged-usr"
    shutil.copytree(tools / "usr/share/mmdebstrap/hooks/merged-usr", merged_usr_hooks)
    last_hook = "extract" if is_extract else "customize"
    listing = f'{_LIST_EXTRACTED if is_extract else _LIST_INSTALLED} >"$1/{PACKAGE_LIST}"'
    command = [
        *(_OWN_NAMESPACES if is_root else ()),
        "perl",
        str(tools / "usr/bin/mmdebstrap"),
        f"--mode={'root' if is_root else 'unshare'}",
        f"--variant={spec.variant}",
        f"--architectures={architecture}",
        f"--include={','.join(sorted(include))}",
        f"--aptopt={apt_conf}",
        "--dpkgopt=force-unsafe-io",
        *([f"--setup-hook={_CREATE_LINKS}"] if is_extract else [f"--hook-dir={merged_usr_hooks}"]),
        f"--{last_hook}-hook={listing}",
        f"--{last_hook}-hook={_STRIP}",
        "--skip=output/dev",
        spec.suite,
        str(tar),
    ]
    variables = {"SOURCE_DATE_EPOCH": str(epoch), "TMPDIR": str(work)}
    modules = [*tools.glob("usr/share/perl/5.*"), *tools.glob("usr/lib/*/perl/5.*")]
    if modules:
        variables["PERL5LIB"] = ":".join(map(str, modules))
    result, _ = run_with_security_suites(  # a mirror may not have them for every architecture
        lambda suites: run_isolated_tool([*command, *list_one_line_sources(spec.suite, suites)], variables),
        security_suites,
    )
    if result.returncode:
        lines = result.stderr.splitlines()
        errors = [line for line in lines if line.startswith(("E:", "dpkg: error"))] or lines
        raise PreconditionError(
            f"Cannot build a {spec.suite} root file system from {', '.join(spec.packages)}",
            hint=find_apt_hint(result.stderr, "Check the package names, and that the mirror has the suite"),
            details=tuple(strip_url_credentials(line)[:300] for line in errors[-5:]),
        )


def _fetch_mmdebstrap(workspace: AptWorkspace, directory: Path) -> tuple[Path, str]:
    """Download and unpack mmdebstrap; return its directory and version."""
    claim_directory(directory)
    names = ["mmdebstrap", *_missing_perl_packages()]
    debs = workspace.download([f"{name}/{host_codename()}" for name in names], directory / "debs")
    version = next(deb.version for deb in debs if deb.name == "mmdebstrap")
    tools = directory / f"mmdebstrap-{version}"
    if not is_protected(tools):
        shutil.rmtree(tools, ignore_errors=True)
        staging = directory / "staging-tools"
        shutil.rmtree(staging, ignore_errors=True)
        unpack_debs(debs, staging)
        protect_tree(staging)
        staging.rename(tools)
    return tools, version


def _missing_perl_packages() -> list[str]:
    """Return the packages with perl's standard modules if the machine, like most containers, has only `perl-base`."""
    script = 'printf "%vd", $^V; exit !eval "require English; require Pod::Usage; require Time::HiRes"'
    result = run_debian_tool(["perl", "-e", script])
    series = ".".join(result.stdout.split(".")[:2])
    return [f"perl-modules-{series}", f"libperl{series}"] if result.returncode else []


def _read_release_file(workspace: AptWorkspace, suite: str) -> bytes:
    """Return the signed index of the suite, which names all package lists by hash and so identifies their state."""
    lists = workspace.root / "lists"
    release_files = [*lists.glob(f"*_dists_{suite}_InRelease"), *lists.glob(f"*_dists_{suite}_Release")]
    if not release_files:
        raise PreconditionError(f"The mirror has no index of {suite}", hint="Choose a suite of the mirror")
    return release_files[0].read_bytes()


def _parse_release_date(release: bytes) -> int:
    """Return when the last of the indexes was signed, in seconds since 1970: no file of their packages is newer."""
    texts = re.findall(r"(?m)^Date:(.*)$", release.decode(errors="replace"))
    with translate_failures(lambda problem: PreconditionError(f"The mirror's index has no valid date: {problem}")):
        dates = [parsedate_to_datetime(text.strip()) for text in texts] or [datetime(2020, 1, 1, tzinfo=UTC)]
        return max(0, *(int(date.timestamp()) for date in dates))


def _package_versions(lines: Iterable[str]) -> Iterable[str]:
    """Yield `name=version` from the output of `dpkg-query` or from package file names."""
    for line in lines:
        if line.endswith(".deb"):
            yield "=".join(parse_deb_name(line))
        elif "=" in line:
            yield line


def _list_changes(old: LockedRootfs, new: LockedRootfs) -> tuple[str, ...]:
    """List the packages and tools whose versions differ, at most 20."""
    old_versions = dict(entry.split("=", 1) for entry in old.resolved) | old.tools
    new_versions = dict(entry.split("=", 1) for entry in new.resolved) | new.tools
    changes = [
        f"{name}: {old_versions.get(name, 'absent')} -> {new_versions.get(name, 'absent')}"
        for name in sorted(old_versions.keys() | new_versions.keys())
        if old_versions.get(name) != new_versions.get(name)
    ]
    return tuple(changes[:20])
