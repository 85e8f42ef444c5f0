"""Root file systems made of Debian packages: the same bytes from the same packages, on every machine.

mmdebstrap does the work. It is fetched from the machine's own mirror, nothing is installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote

from lyra_tasks import console
from lyra_tasks.config.models import Rootfs
from lyra_tasks.dockerfile.lock_file import LockedRootfs
from lyra_tasks.engine.debian.mirror import apt_environment, find_mirror, host_codename, is_ubuntu, to_docker_platform
from lyra_tasks.engine.debian.mirror import host_architecture as own_architecture
from lyra_tasks.engine.debian.packages import KEYRINGS, AptWorkspace, file_sha256, unpack_debs
from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import sync_to_disk, write_file
from lyra_tasks.locks import file_lock as holding
from lyra_tasks.redaction import strip_url_credentials

ROOTFS_TAR = "rootfs.tar"
_PIN_FILE = "facts.json"
_LOCK_TIMEOUT_S = 900.0  # seconds; as long as another run needs for the same root

# What maintainer scripts call, so that `custom` can configure any package and a Dockerfile can RUN.
_SCRIPT_DEPENDENCIES = (
    "base-files", "base-passwd", "coreutils", "dash", "debianutils", "diffutils", "dpkg", "findutils", "grep",
    "libc-bin", "mawk", "perl-base", "sed", "tar",
)  # fmt: skip

# From bookworm on /bin, /sbin and /lib are links; `extract` runs no script that would make them.
_CREATE_LINKS = 'for name in bin sbin lib lib64; do mkdir -p "$1/usr/$name" && ln -s "usr/$name" "$1/$name"; done'

# Licences stay. The names of this machine and of its mirror go, and what only the making needed.
_STRIP = """\
cd "$1"
[ ! -d usr/share/doc ] || find usr/share/doc ! -type d ! -name copyright -delete
[ ! -d usr/share/doc ] || find usr/share/doc -depth -type d -empty -delete
rm -rf usr/share/info usr/share/lintian usr/share/locale usr/share/man var/log/*
rm -f var/cache/debconf/*-old var/lib/dpkg/*-old
rm -f etc/hostname etc/resolv.conf etc/apt/sources.list etc/apt/apt.conf.d/99mmdebstrap etc/dpkg/dpkg.cfg.d/99mmdebstrap
"""
_LIST_INSTALLED = 'dpkg-query --admindir="$1/var/lib/dpkg" --show --showformat="\\${Package}=\\${Version}\\n"'
_LIST_EXTRACTED = 'ls "$1/var/cache/apt/archives"'


@dataclass(frozen=True)
class BuiltRootfs:
    """A root file system in the cache: `context` is a folder with `rootfs.tar`, fit to be a build context."""

    context: Path
    pin: LockedRootfs

    @property
    def tar(self) -> Path:
        """The root file system as a tar archive."""
        return self.context / ROOTFS_TAR


def build_rootfs(
    spec: Rootfs,
    *,
    cache: Path,
    pin: LockedRootfs | None = None,
    architecture: str = "",
    locations: tuple[str, ...] = (),
) -> BuiltRootfs:
    """The root file system that `spec` asks for, from the cache or made now (10 to 30 s, needs the mirror).

    With `locked` it is exactly that one, without any network if the cache has it; PreconditionError if the mirror gives
    another one now. Without, it is what the mirror gives now. The machine's own `architecture` is the default;
    `places` are those that ask for it.
    """
    if pin and (cached := _find_cached(cache, pin.sha256)):
        return cached
    architecture = architecture or (pin.architecture if pin else own_architecture())
    if spec.variant != "extract" and architecture != own_architecture():
        raise PreconditionError(
            f"packages for {to_docker_platform(architecture)} are not set up on a machine of another platform",
            hint='give this `rootfs` the variant "extract", which only unpacks them; or the base an `archive`',
            details=locations,
        )
    with holding(cache / "rootfs" / "lock", resource="the cache of root file systems", timeout=_LOCK_TIMEOUT_S):
        built = _build_or_reuse(spec, cache, pin, architecture)
    if pin and built.pin.sha256 != pin.sha256:
        raise PreconditionError(
            f"the lock pins a {spec.suite} root file system {pin.sha256[:12]}, "
            f"the mirror now gives {built.pin.sha256[:12]}",
            hint="run `bases.update` to move to it, or take the old one over from a machine that has it",
            details=_list_changes(pin, built.pin),
        )
    return built


def _build_or_reuse(spec: Rootfs, cache: Path, pin: LockedRootfs | None, architecture: str) -> BuiltRootfs:
    components = ("main", "universe") if is_ubuntu() else ("main",)
    workspace = AptWorkspace(cache / "apt", [host_codename(), spec.suite], components=components)
    workspace.update()
    release = _read_release_file(workspace, spec.suite)
    epoch = pin.source_date_epoch if pin else _parse_release_date(release)
    tools, version = _fetch_mmdebstrap(workspace, cache / "rootfs")
    recipe = [spec.suite, spec.variant, sorted(set(spec.packages)), epoch, version, hashlib.sha256(release).hexdigest()]
    recipe += [] if architecture == own_architecture() else [architecture]
    state = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()
    state_path = cache / "rootfs" / "states" / state
    if state_path.exists() and (cached := _find_cached(cache, state_path.read_text())):
        return cached
    console.info(f"making a {spec.suite} root file system for {architecture} with {', '.join(spec.packages)}")
    built = _build(spec, cache / "rootfs", tools, {"mmdebstrap": version}, epoch, architecture)
    state_path.parent.mkdir(exist_ok=True)
    state_path.write_text(built.pin.sha256)
    return built


def _build(
    spec: Rootfs, directory: Path, tools: Path, versions: dict[str, str], epoch: int, architecture: str
) -> BuiltRootfs:
    # What a killed run left; its mounts were its own and ended with it.
    staging = directory / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    (staging / "context").mkdir(parents=True)
    (staging / "tmp").mkdir()
    staging.chmod(0o755)
    tar, packages = staging / "context" / ROOTFS_TAR, staging / "packages"
    try:
        _run_mmdebstrap(spec, staging, tools, tar, packages, epoch, architecture)
        _add_dev_directory(tar, epoch)
        pin = LockedRootfs(
            suite=spec.suite,
            variant=spec.variant,
            packages=tuple(spec.packages),
            architecture=architecture,
            sha256=file_sha256(tar),
            source_date_epoch=epoch,
            resolved=tuple(_package_versions(packages.read_text().splitlines())),
            tools=versions,
        )
        return _move_to_cache(staging, directory / pin.sha256, pin)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _run_mmdebstrap(
    spec: Rootfs, staging: Path, tools: Path, tar: Path, packages: Path, epoch: int, architecture: str
) -> None:
    apt_conf = staging / "apt.conf"
    apt_conf.write_text('Acquire::Check-Valid-Until "false";\nAcquire::Languages "none";\n' + _read_proxy_settings())
    is_extract = spec.variant == "extract"
    include = {*spec.packages, *(_SCRIPT_DEPENDENCIES if spec.variant == "custom" else ())}
    merged_usr_hooks = tools / "usr/share/mmdebstrap/hooks/merged-usr"
    last_hook = "extract" if is_extract else "customize"
    listing = f"{_LIST_EXTRACTED if is_extract else _LIST_INSTALLED} >'{packages}'"
    command = [
        *_unshare_command(),
        "perl",
        str(tools / "usr/bin/mmdebstrap"),
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
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
        _apt_source(spec.suite),
    ]
    environment = {**apt_environment(), "SOURCE_DATE_EPOCH": str(epoch), "TMPDIR": str(staging / "tmp")}
    environment["PATH"] = f"{environment.get('PATH', '')}:/usr/sbin:/sbin"
    modules = [*tools.glob("usr/share/perl/5.*"), *tools.glob("usr/lib/*/perl/5.*")]
    if modules:
        environment["PERL5LIB"] = ":".join(map(str, modules))
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        errors = [
            strip_url_credentials(line)[:300]
            for line in result.stderr.splitlines()
            if line.startswith(("E:", "dpkg: error"))
        ]
        raise PreconditionError(
            f"a {spec.suite} root file system could not be made of {', '.join(spec.packages)}",
            hint="check the names of the packages, and that the mirror carries the suite",
            details=tuple(errors[-5:]),
        )


def _add_dev_directory(tar: Path, epoch: int) -> None:
    """An empty /dev, as in any image: device nodes are the engine's, but without the folder it would add one itself."""
    with tarfile.open(tar, "a") as archive:
        entry = tarfile.TarInfo("./dev")
        entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, epoch
        archive.addfile(entry)


def _unshare_command() -> list[str]:
    """Own mounts and processes for root: whatever ends the making, no mount stays and no process runs on."""
    if os.geteuid() != 0:
        return []
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]


def _apt_source(suite: str) -> str:
    keyring = next((path for path in KEYRINGS if path.exists()), None)
    options = f"[signed-by={keyring}] " if keyring else ""
    return f"deb {options}{find_mirror()} {suite} main"


def _read_proxy_settings() -> str:
    """The machine's proxy settings: mmdebstrap does not read them."""
    result = subprocess.run(
        ["apt-config", "dump", "Acquire"], env=apt_environment(), capture_output=True, text=True, check=False
    )
    return "".join(f"{line}\n" for line in result.stdout.splitlines() if "proxy" in line.partition(" ")[0].lower())


def _fetch_mmdebstrap(workspace: AptWorkspace, directory: Path) -> tuple[Path, str]:
    """Where mmdebstrap is unpacked, and its version."""
    names = ["mmdebstrap", *_missing_perl_packages()]
    debs = workspace.download([f"{name}/{host_codename()}" for name in names], directory / "debs")
    version = next(deb.version for deb in debs if deb.name == "mmdebstrap")
    tools = directory / f"mmdebstrap-{version}"
    if not tools.exists():
        staging = directory / "staging-tools"
        shutil.rmtree(staging, ignore_errors=True)
        unpack_debs(debs, staging)
        staging.rename(tools)
    return tools, version


def _missing_perl_packages() -> list[str]:
    """The packages with perl's standard modules, where the machine has no more than `perl-base`, as containers do."""
    script = 'printf "%vd", $^V; exit !eval "require English; require Pod::Usage; require Time::HiRes"'
    result = subprocess.run(["perl", "-e", script], env=apt_environment(), capture_output=True, text=True, check=False)
    series = ".".join(result.stdout.split(".")[:2])
    return [f"perl-modules-{series}", f"libperl{series}"] if result.returncode else []


def _read_release_file(workspace: AptWorkspace, suite: str) -> bytes:
    """The signed index of the suite: it names every package list by hash, so it is the state of the mirror."""
    lists = workspace.root / "lists"
    release_files = [*lists.glob(f"*_dists_{suite}_InRelease"), *lists.glob(f"*_dists_{suite}_Release")]
    if not release_files:
        raise PreconditionError(f"the mirror has no index of {suite}", hint="name a suite that the mirror carries")
    return release_files[0].read_bytes()


def _parse_release_date(release: bytes) -> int:
    """When the mirror's index was signed: nothing in its packages is newer, so clamping to it changes what is new."""
    for line in release.decode(errors="replace").splitlines():
        if line.startswith("Date:"):
            return int(parsedate_to_datetime(line.removeprefix("Date:").strip()).timestamp())
    return int(datetime(2020, 1, 1, tzinfo=UTC).timestamp())


def _package_versions(lines: Iterable[str]) -> Iterable[str]:
    """`name=version` of `dpkg-query`'s lines or of package file names."""
    for line in lines:
        if line.endswith(".deb"):
            name, version, _ = line.split("_", 2)
            yield f"{name}={unquote(version)}"
        elif "=" in line:
            yield line


def _move_to_cache(staging: Path, directory: Path, pin: LockedRootfs) -> BuiltRootfs:
    """Move a finished root into the cache; the facts come first, so that what is there is whole, whatever ends this."""
    write_file(directory.with_suffix(f".{_PIN_FILE}"), (pin.model_dump_json(indent=2) + "\n").encode())
    if not directory.exists():
        with (staging / "context" / ROOTFS_TAR).open("rb") as tar:
            sync_to_disk(tar.fileno())
            os.fchmod(tar.fileno(), 0o444)
        (staging / "context").rename(directory)
    return BuiltRootfs(directory, pin)


def _find_cached(cache: Path, sha256: str) -> BuiltRootfs | None:
    directory = cache / "rootfs" / sha256
    try:
        pin = LockedRootfs.model_validate_json(directory.with_suffix(f".{_PIN_FILE}").read_text())
    except (FileNotFoundError, ValueError):
        return None  # there is none, or it is damaged and made anew
    return BuiltRootfs(directory, pin) if (directory / ROOTFS_TAR).is_file() else None


def _list_changes(old: LockedRootfs, new: LockedRootfs) -> tuple[str, ...]:
    """What changed between two roots, one line per package and tool."""
    old_versions = dict(entry.split("=", 1) for entry in old.resolved) | old.tools
    new_versions = dict(entry.split("=", 1) for entry in new.resolved) | new.tools
    names = sorted(
        name for name in old_versions.keys() | new_versions.keys() if old_versions.get(name) != new_versions.get(name)
    )
    return tuple(
        f"{name}: {old_versions.get(name, 'absent')} -> {new_versions.get(name, 'absent')}" for name in names[:20]
    )
