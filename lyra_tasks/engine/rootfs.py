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
from lyra_tasks.config.lock import LockedRootfs
from lyra_tasks.config.models import Rootfs
from lyra_tasks.config.text import public
from lyra_tasks.engine.debian import KEYRINGS, AptWorkspace, sha256_of, unpack
from lyra_tasks.engine.mirror import apt_environment, host_codename, is_ubuntu, mirror, platform_of
from lyra_tasks.engine.mirror import architecture as own_architecture
from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import sync, write_file
from lyra_tasks.run import locked as holding

TAR = "rootfs.tar"
_FACTS = "facts.json"
_LOCK_WAIT = 900.0  # seconds; as long as another run needs for the same root

# What maintainer scripts call, so that `custom` can configure any package and a Dockerfile can RUN.
_CONFIGURABLE = (
    "base-files", "base-passwd", "coreutils", "dash", "debianutils", "diffutils", "dpkg", "findutils", "grep",
    "libc-bin", "mawk", "perl-base", "sed", "tar",
)  # fmt: skip

# From bookworm on /bin, /sbin and /lib are links; `extract` runs no script that would make them.
_LINKS = 'for name in bin sbin lib lib64; do mkdir -p "$1/usr/$name" && ln -s "usr/$name" "$1/$name"; done'

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
class MadeRootfs:
    """A root file system in the cache: `context` is a folder with `rootfs.tar`, fit to be a build context."""

    context: Path
    facts: LockedRootfs

    @property
    def tar(self) -> Path:
        """The root file system as a tar archive."""
        return self.context / TAR


def make(
    spec: Rootfs,
    *,
    cache: Path,
    locked: LockedRootfs | None = None,
    architecture: str = "",
    places: tuple[str, ...] = (),
) -> MadeRootfs:
    """The root file system that `spec` asks for, from the cache or made now (10 to 30 s, needs the mirror).

    With `locked` it is exactly that one, without any network if the cache has it; PreconditionError if the mirror gives
    another one now. Without, it is what the mirror gives now. The machine's own `architecture` is the default;
    `places` are those that ask for it.
    """
    if locked and (found := _cached(cache, locked.sha256)):
        return found
    architecture = architecture or (locked.architecture if locked else own_architecture())
    if spec.variant != "extract" and architecture != own_architecture():
        raise PreconditionError(
            f"packages for {platform_of(architecture)} are not set up on a machine of another platform",
            hint='give this `rootfs` the variant "extract", which only unpacks them; or the base an `archive`',
            details=places,
        )
    with holding(cache / "rootfs" / "lock", what="the cache of root file systems", wait=_LOCK_WAIT):
        made = _make(spec, cache, locked, architecture)
    if locked and made.facts.sha256 != locked.sha256:
        raise PreconditionError(
            f"the lock pins a {spec.suite} root file system {locked.sha256[:12]}, "
            f"the mirror now gives {made.facts.sha256[:12]}",
            hint="run `bases.update` to move to it, or take the old one over from a machine that has it",
            details=_differences(locked, made.facts),
        )
    return made


def _make(spec: Rootfs, cache: Path, locked: LockedRootfs | None, architecture: str) -> MadeRootfs:
    components = ("main", "universe") if is_ubuntu() else ("main",)
    workspace = AptWorkspace(cache / "apt", [host_codename(), spec.suite], components=components)
    workspace.update()
    release = _release(workspace, spec.suite)
    epoch = locked.source_date_epoch if locked else _release_date(release)
    tools, version = _tools(workspace, cache / "rootfs")
    asked = [spec.suite, spec.variant, sorted(set(spec.packages)), epoch, version, hashlib.sha256(release).hexdigest()]
    asked += [] if architecture == own_architecture() else [architecture]
    state = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    known = cache / "rootfs" / "states" / state
    if known.exists() and (found := _cached(cache, known.read_text())):
        return found
    console.note(f"making a {spec.suite} root file system for {architecture} with {', '.join(spec.packages)}")
    made = _run(spec, cache / "rootfs", tools, {"mmdebstrap": version}, epoch, architecture)
    known.parent.mkdir(exist_ok=True)
    known.write_text(made.facts.sha256)
    return made


def _run(
    spec: Rootfs, folder: Path, tools: Path, versions: dict[str, str], epoch: int, architecture: str
) -> MadeRootfs:
    # What a killed run left; its mounts were its own and ended with it.
    staging = folder / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    (staging / "context").mkdir(parents=True)
    (staging / "tmp").mkdir()
    staging.chmod(0o755)
    tar, packages = staging / "context" / TAR, staging / "packages"
    try:
        _mmdebstrap(spec, staging, tools, tar, packages, epoch, architecture)
        _add_dev(tar, epoch)
        facts = LockedRootfs(
            suite=spec.suite,
            variant=spec.variant,
            packages=tuple(spec.packages),
            architecture=architecture,
            sha256=sha256_of(tar),
            source_date_epoch=epoch,
            resolved=tuple(_resolved(packages.read_text().splitlines())),
            tools=versions,
        )
        return _kept(staging, folder / facts.sha256, facts)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _mmdebstrap(
    spec: Rootfs, staging: Path, tools: Path, tar: Path, packages: Path, epoch: int, architecture: str
) -> None:
    apt = staging / "apt.conf"
    apt.write_text('Acquire::Check-Valid-Until "false";\nAcquire::Languages "none";\n' + _proxies())
    extract = spec.variant == "extract"
    include = {*spec.packages, *(_CONFIGURABLE if spec.variant == "custom" else ())}
    merged = tools / "usr/share/mmdebstrap/hooks/merged-usr"
    last = "extract" if extract else "customize"
    listing = f"{_LIST_EXTRACTED if extract else _LIST_INSTALLED} >'{packages}'"
    command = [
        *_namespaces(),
        "perl",
        str(tools / "usr/bin/mmdebstrap"),
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        f"--variant={spec.variant}",
        f"--architectures={architecture}",
        f"--include={','.join(sorted(include))}",
        f"--aptopt={apt}",
        "--dpkgopt=force-unsafe-io",
        *([f"--setup-hook={_LINKS}"] if extract else [f"--hook-dir={merged}"]),
        f"--{last}-hook={listing}",
        f"--{last}-hook={_STRIP}",
        "--skip=output/dev",
        spec.suite,
        str(tar),
        _source(spec.suite),
    ]
    environment = {**apt_environment(), "SOURCE_DATE_EPOCH": str(epoch), "TMPDIR": str(staging / "tmp")}
    environment["PATH"] = f"{environment.get('PATH', '')}:/usr/sbin:/sbin"
    modules = [*tools.glob("usr/share/perl/5.*"), *tools.glob("usr/lib/*/perl/5.*")]
    if modules:
        environment["PERL5LIB"] = ":".join(map(str, modules))
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = [public(line)[:300] for line in result.stderr.splitlines() if line.startswith(("E:", "dpkg: error"))]
        raise PreconditionError(
            f"a {spec.suite} root file system could not be made of {', '.join(spec.packages)}",
            hint="check the names of the packages, and that the mirror carries the suite",
            details=tuple(lines[-5:]),
        )


def _add_dev(tar: Path, epoch: int) -> None:
    """An empty /dev, as in any image: device nodes are the engine's, but without the folder it would add one itself."""
    with tarfile.open(tar, "a") as archive:
        entry = tarfile.TarInfo("./dev")
        entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, epoch
        archive.addfile(entry)


def _namespaces() -> list[str]:
    """Own mounts and processes for root: whatever ends the making, no mount stays and no process runs on."""
    if os.geteuid() != 0:
        return []
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]


def _source(suite: str) -> str:
    keyring = next((path for path in KEYRINGS if path.exists()), None)
    options = f"[signed-by={keyring}] " if keyring else ""
    return f"deb {options}{mirror()} {suite} main"


def _proxies() -> str:
    """The machine's proxy settings: mmdebstrap does not read them."""
    result = subprocess.run(
        ["apt-config", "dump", "Acquire"], env=apt_environment(), capture_output=True, text=True, check=False
    )
    return "".join(f"{line}\n" for line in result.stdout.splitlines() if "proxy" in line.partition(" ")[0].lower())


def _tools(workspace: AptWorkspace, folder: Path) -> tuple[Path, str]:
    """Where mmdebstrap is unpacked, and its version."""
    names = ["mmdebstrap", *_missing_perl()]
    debs = workspace.download([f"{name}/{host_codename()}" for name in names], folder / "debs")
    version = next(deb.version for deb in debs if deb.name == "mmdebstrap")
    tools = folder / f"mmdebstrap-{version}"
    if not tools.exists():
        staged = folder / "staging-tools"
        shutil.rmtree(staged, ignore_errors=True)
        unpack(debs, staged)
        staged.rename(tools)
    return tools, version


def _missing_perl() -> list[str]:
    """The packages with perl's standard modules, where the machine has no more than `perl-base`, as containers do."""
    script = 'printf "%vd", $^V; exit !eval "require English; require Pod::Usage; require Time::HiRes"'
    result = subprocess.run(["perl", "-e", script], env=apt_environment(), capture_output=True, text=True, check=False)
    series = ".".join(result.stdout.split(".")[:2])
    return [f"perl-modules-{series}", f"libperl{series}"] if result.returncode else []


def _release(workspace: AptWorkspace, suite: str) -> bytes:
    """The signed index of the suite: it names every package list by hash, so it is the state of the mirror."""
    lists = workspace.root / "lists"
    found = [*lists.glob(f"*_dists_{suite}_InRelease"), *lists.glob(f"*_dists_{suite}_Release")]
    if not found:
        raise PreconditionError(f"the mirror has no index of {suite}", hint="name a suite that the mirror carries")
    return found[0].read_bytes()


def _release_date(release: bytes) -> int:
    """When the mirror's index was signed: nothing in its packages is newer, so clamping to it changes what is new."""
    for line in release.decode(errors="replace").splitlines():
        if line.startswith("Date:"):
            return int(parsedate_to_datetime(line.removeprefix("Date:").strip()).timestamp())
    return int(datetime(2020, 1, 1, tzinfo=UTC).timestamp())


def _resolved(lines: Iterable[str]) -> Iterable[str]:
    """`name=version` of `dpkg-query`'s lines or of package file names."""
    for line in lines:
        if line.endswith(".deb"):
            name, version, _ = line.split("_", 2)
            yield f"{name}={unquote(version)}"
        elif "=" in line:
            yield line


def _kept(staging: Path, folder: Path, facts: LockedRootfs) -> MadeRootfs:
    """Move a finished root into the cache; the facts come first, so that what is there is whole, whatever ends this."""
    write_file(folder.with_suffix(f".{_FACTS}"), (facts.model_dump_json(indent=2) + "\n").encode())
    if not folder.exists():
        with (staging / "context" / TAR).open("rb") as tar:
            sync(tar.fileno())
            os.fchmod(tar.fileno(), 0o444)
        (staging / "context").rename(folder)
    return MadeRootfs(folder, facts)


def _cached(cache: Path, sha256: str) -> MadeRootfs | None:
    folder = cache / "rootfs" / sha256
    try:
        facts = LockedRootfs.model_validate_json(folder.with_suffix(f".{_FACTS}").read_text())
    except (FileNotFoundError, ValueError):
        return None  # there is none, or it is damaged and made anew
    return MadeRootfs(folder, facts) if (folder / TAR).is_file() else None


def _differences(old: LockedRootfs, new: LockedRootfs) -> tuple[str, ...]:
    """What changed between two roots, one line per package and tool."""
    before = dict(each.split("=", 1) for each in old.resolved) | old.tools
    after = dict(each.split("=", 1) for each in new.resolved) | new.tools
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return tuple(f"{name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}" for name in names[:20])
