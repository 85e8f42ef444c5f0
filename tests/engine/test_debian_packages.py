"""Debian packages from the machine's mirror, downloaded and unpacked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lyra_tasks.digests import file_sha256
from lyra_tasks.engine.debian import mirror
from lyra_tasks.engine.debian.mirror import find_mirror, host_codename
from lyra_tasks.engine.debian.packages import (
    AptWorkspace,
    find_apt_hint,
    find_missing_security_suites,
    unpack_debs,
)
from lyra_tasks.errors import PreconditionError

CACHE = Path(os.environ.get("LYRA_TEST_CACHE") or Path.home() / ".cache" / "lyra")


def silent(_: str) -> None:
    """Ignore progress messages."""


@pytest.fixture(scope="module")
def workspace() -> AptWorkspace:
    workspace = AptWorkspace(CACHE / "apt", (host_codename(),))
    workspace.update()
    return workspace


def test_package_matches_signed_index(workspace: AptWorkspace, tmp_path: Path) -> None:
    messages: list[str] = []
    directory = tmp_path / "odd, name: here"
    (deb,) = workspace.download([f"busybox-static/{host_codename()}"], directory, messages.append)
    assert deb.name == "busybox-static"
    assert file_sha256(deb.path) == deb.sha256
    assert deb.path.stat().st_size == deb.size
    assert "downloading 1 package, " in messages[0]
    unpack_debs([deb], tmp_path / "root")
    busybox = next((tmp_path / "root").glob("**/bin/busybox"))
    assert subprocess.run([busybox, "echo", "hello"], capture_output=True, check=True).stdout == b"hello\n"


def test_download_reuses_intact_files_only(workspace: AptWorkspace, tmp_path: Path) -> None:
    messages: list[str] = []
    packages = [f"netbase/{host_codename()}"]
    (deb,) = workspace.download(packages, tmp_path, messages.append)
    assert [message.split()[0] for message in messages] == ["downloading", "downloaded"]
    assert workspace.download(packages, tmp_path, messages.append) == [deb]
    assert len(messages) == 2
    deb.path.write_bytes(b"damaged")
    workspace.download(packages, tmp_path, messages.append)
    assert len(messages) == 4
    assert file_sha256(deb.path) == deb.sha256


@pytest.mark.thorough
def test_concurrent_downloads_do_not_conflict(tmp_path: Path) -> None:
    def download(number: int) -> str:
        workspace = AptWorkspace(CACHE / "apt", (host_codename(),))
        workspace.update()
        (deb,) = workspace.download([f"netbase/{host_codename()}"], tmp_path / str(number), silent)
        return deb.sha256

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(download, range(2)))) == 1


@pytest.mark.parametrize("package", ["no-such-package/{suite}", "netbase/no-such-suite"])
def test_missing_package_is_named(workspace: AptWorkspace, tmp_path: Path, package: str) -> None:
    with pytest.raises(PreconditionError, match="not in the index") as error:
        workspace.download([package.format(suite=host_codename())], tmp_path, silent)
    assert any("no-such" in line for line in error.value.details)


def test_unreachable_mirror_is_named_without_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lyra_tasks.engine.debian.packages.find_mirror", lambda: "http://user:hunter2@127.0.0.1:9/debian"
    )
    with pytest.raises(PreconditionError, match=r"127\.0\.0\.1:9") as error:
        AptWorkspace(tmp_path, (host_codename(),)).update()
    assert "hunter2" not in repr((error.value.message, error.value.hint, error.value.details))


def test_mirror_is_found_without_package_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = find_mirror().rstrip("/")
    monkeypatch.setattr(mirror, "_read_output", without_lists(mirror._read_output))
    monkeypatch.setattr(mirror, "_read_index_targets", mirror._read_index_targets.__wrapped__)
    assert find_mirror().rstrip("/") == expected


def without_lists(read_output: Callable[[list[str]], str]) -> Callable[[list[str]], str]:
    """Let the real apt run as on a machine without package lists."""
    return lambda command: read_output([*command, "-o", "Dir::State::Lists=/nonexistent"])


def test_missing_apt_is_reported_with_choices(tmp_path: Path) -> None:
    script = "from lyra_tasks.engine.debian.mirror import require_debian; require_debian()"
    environment = {"PATH": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert "apt-get, dpkg not found" in result.stderr


INSECURE = """\
Acquire::AllowInsecureRepositories "true";
Acquire::AllowWeakRepositories "true";
APT::Get::AllowUnauthenticated "true";
Acquire::Check-Valid-Until "false";
Acquire::https::Proxy "http://proxy.example:3128";
Acquire::https::CaInfo "/etc/ssl/own.pem";
APT::Update::Pre-Invoke { "touch HOOKED"; };
"""


@pytest.fixture
def insecure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let apt's own settings allow anything, and run a hook."""
    path = tmp_path / "insecure.conf"
    path.write_text(INSECURE.replace("HOOKED", str(tmp_path / "hooked")))
    monkeypatch.setenv("APT_CONFIG", str(path))
    return path


def test_unsigned_repository_is_refused_whatever_the_machine_allows(
    tmp_path: Path, insecure: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "mirror" / "dists" / "trixie" / "main" / f"binary-{mirror.host_architecture()}"
    index.mkdir(parents=True)
    (index / "Packages").write_text("")
    name = f"{index.parent.name}/{index.name}/Packages"
    (index.parents[1] / "Release").write_text(
        f"Codename: trixie\nDate: Mon, 01 Jan 2024 00:00:00 UTC\nComponents: main\n"
        f"SHA256:\n {file_sha256(index / 'Packages')} 0 {name}\n"
    )
    monkeypatch.setattr("lyra_tasks.engine.debian.packages.find_mirror", lambda: f"file://{tmp_path}/mirror")
    monkeypatch.setattr("lyra_tasks.engine.debian.mirror.find_security_mirror", lambda: "")
    with pytest.raises(PreconditionError, match="Cannot read the package index of trixie") as caught:
        AptWorkspace(tmp_path / "apt", ("trixie",)).update()
    assert any("is not signed" in line for line in caught.value.details), caught.value.details
    assert insecure.exists() and not (tmp_path / "hooked").exists()


def test_own_settings_replace_those_of_the_machine_but_reach_the_mirror_alike(
    tmp_path: Path, insecure: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = AptWorkspace(tmp_path / "apt", (host_codename(),))
    monkeypatch.setattr("lyra_tasks.engine.debian.packages.find_mirror", lambda: "http://127.0.0.1:9/debian")
    with pytest.raises(PreconditionError, match="not reachable"):
        workspace.update()
    dump = mirror.run_debian_tool(["apt-config", "dump"], variables={"APT_CONFIG": str(workspace.root / "apt.conf")})
    settings = dict(line.rstrip(";").split(" ", 1) for line in dump.stdout.splitlines())
    assert settings["Acquire::AllowInsecureRepositories"] == '"false"'
    assert settings["Acquire::Check-Valid-Until"] == '"true"'
    assert settings["APT::Get::AllowUnauthenticated"] == '"false"'
    assert settings["Acquire::https::Proxy"] == '"http://proxy.example:3128"'
    assert settings["Acquire::https::CaInfo"] == '"/etc/ssl/own.pem"'
    assert not any("Pre-Invoke" in name and value != '""' for name, value in settings.items())
    assert insecure.exists()


def test_security_suite_is_read(workspace: AptWorkspace) -> None:
    assert list((workspace.root / "lists").glob(f"*_dists_{host_codename()}-security_InRelease"))


def test_sources_are_those_that_apt_is_told_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "one.list").write_text(f"deb http://one.test/debian {host_codename()} main\n")
    (tmp_path / "parts" / "two.list").write_text(f"deb http://two.test/security {host_codename()}-security main\n")
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/one.list"; Dir::Etc::sourceparts "{tmp_path}/parts";'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    script = "from lyra_tasks.engine.debian import mirror; print(mirror.find_mirror(), mirror.find_security_mirror())"
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert output.split() == ["http://one.test/debian", "http://two.test/security"]


def test_mirror_that_is_being_updated_is_said() -> None:
    output = f"{FETCH}main/binary-i386/Packages.xz  File has unexpected size (1 != 2). Mirror sync in progress?"
    assert find_apt_hint(output, "Check").startswith("Try again in an hour")
    assert find_apt_hint("E: Unable to locate package nonsense", "Check") == "Check"


def test_suites_without_security_updates_are_known() -> None:
    suites = ("bookworm", "sid", "trixie", "noble-updates")
    assert mirror.list_security_suites(suites) == ("bookworm-security", "trixie-security")


FETCH = "E: Failed to fetch http://mirror.test/debian-security/dists/trixie-security/"


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        (f"{FETCH}InRelease  404  Not Found [IP: 127.0.0.1 80]", {"trixie-security"}),
        (f"{FETCH}main/binary-arm64/Packages  404  Not Found", {"trixie-security"}),
        (f"{FETCH}InRelease  Could not connect to mirror.test:80 (127.0.0.1)", {"trixie-security"}),
        ("E: The repository 'file:/m trixie-security Release' does not have a Release file.", {"trixie-security"}),
        (f"{FETCH}main/binary-amd64/Packages.xz  Hash Sum mismatch", set()),
        (f"{FETCH}main/binary-amd64/Packages.xz  File has unexpected size (1 != 2).", set()),
        (f"{FETCH}InRelease  Clearsigned file isn't valid, got 'NOSPLIT'", set()),
        ("E: The repository 'file:/m trixie-security InRelease' is not signed.", set()),
        (f"E: Release file for {FETCH[19:]}InRelease is expired (invalid since 3d).", set()),
        (FETCH.replace("-security/", "/") + "InRelease  404  Not Found", set()),
    ],
)
def test_missing_security_index_is_told_from_a_damaged_one(line: str, missing: set[str]) -> None:
    assert find_missing_security_suites(f"W: x\n{line}\nE: Some index files failed to download.") == missing


def test_engine_packages_come_without_a_missing_security_suite(
    workspace: AptWorkspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lyra_tasks.engine.debian.mirror.find_security_mirror", lambda: "http://127.0.0.1:9/security")
    monkeypatch.setattr("lyra_tasks.engine.debian.packages.find_security_mirror", lambda: "http://127.0.0.1:9/security")
    own = AptWorkspace(tmp_path / "apt", (host_codename(),))
    (own.root / "lists").mkdir(parents=True)
    for index in (workspace.root / "lists").glob(f"*_dists_{host_codename()}_*"):
        shutil.copy2(index, own.root / "lists")
    own.update()
    assert own.security_suites == ()
    assert f"does not send the index of {host_codename()}-security" in capsys.readouterr().err
    (deb,) = own.download([f"netbase/{host_codename()}"], tmp_path / "debs", silent)
    assert deb.is_intact()
    (sources,) = own.root.glob("*.sources")
    written = sources.stat().st_mtime_ns
    assert own.download([f"netbase/{host_codename()}"], tmp_path / "debs", silent) == [deb]
    assert sources.stat().st_mtime_ns == written, "apt parses all lists again if their sources are newer"
