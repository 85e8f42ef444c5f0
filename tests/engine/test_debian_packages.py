"""Packages from the machine's own mirror, without installing any."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lyra_tasks.engine.debian import mirror as machine
from lyra_tasks.engine.debian.packages import AptWorkspace, file_sha256, find_mirror, host_codename, unpack_debs
from lyra_tasks.errors import PreconditionError

CACHE = Path(os.environ.get("LYRA_TEST_CACHE") or Path.home() / ".cache" / "lyra")


def silent(_: str) -> None:
    """No progress in tests."""


@pytest.fixture(scope="module")
def workspace() -> AptWorkspace:
    made = AptWorkspace(CACHE / "apt", (host_codename(),))
    made.update()
    return made


def test_a_package_is_what_the_signed_index_says(workspace: AptWorkspace, tmp_path: Path) -> None:
    said: list[str] = []
    folder = tmp_path / "odd, name: here"
    (deb,) = workspace.download([f"busybox-static/{host_codename()}"], folder, said.append)
    assert deb.name == "busybox-static"
    assert file_sha256(deb.path) == deb.sha256
    assert deb.path.stat().st_size == deb.size
    assert "downloading 1 packages" in said[0]
    unpack_debs([deb], tmp_path / "root")
    busybox = next((tmp_path / "root").glob("**/bin/busybox"))
    assert subprocess.run([busybox, "echo", "hello"], capture_output=True, check=True).stdout == b"hello\n"


def test_what_is_there_is_not_downloaded_again_and_what_is_damaged_is(workspace: AptWorkspace, tmp_path: Path) -> None:
    said: list[str] = []
    wanted = [f"netbase/{host_codename()}"]
    (deb,) = workspace.download(wanted, tmp_path, said.append)
    assert workspace.download(wanted, tmp_path, said.append) == [deb]
    assert len(said) == 1
    deb.path.write_bytes(b"damaged")
    workspace.download(wanted, tmp_path, said.append)
    assert len(said) == 2
    assert file_sha256(deb.path) == deb.sha256


def test_two_downloads_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    def work(number: int) -> str:
        workspace = AptWorkspace(CACHE / "apt", (host_codename(),))
        workspace.update()
        (deb,) = workspace.download([f"netbase/{host_codename()}"], tmp_path / str(number), silent)
        return deb.sha256

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(work, range(2)))) == 1


@pytest.mark.parametrize("package", ["no-such-package/{suite}", "netbase/no-such-suite"])
def test_what_the_mirror_lacks_is_named(workspace: AptWorkspace, tmp_path: Path, package: str) -> None:
    with pytest.raises(PreconditionError, match="not in the index") as fault:
        workspace.download([package.format(suite=host_codename())], tmp_path, silent)
    assert any("no-such" in line for line in fault.value.details)


def test_a_mirror_that_cannot_be_reached_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lyra_tasks.engine.debian.packages.mirror", lambda: "http://user:hunter2@127.0.0.1:9/debian")
    with pytest.raises(PreconditionError, match=r"127\.0\.0\.1:9") as fault:
        AptWorkspace(tmp_path, (host_codename(),)).update()
    assert "hunter2" not in repr((fault.value.message, fault.value.hint, fault.value.details))


def test_the_mirror_is_found_in_the_sources_where_apt_has_no_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    known = find_mirror().rstrip("/")
    monkeypatch.setattr(machine, "_call", no_targets(machine._run_tool))
    assert find_mirror().rstrip("/") == known


def no_targets(call: Callable[[list[str]], str]) -> Callable[[list[str]], str]:
    """`indextargets` as on a machine with empty lists; the real apt answers, for a folder without any."""
    return lambda command: call([*command, "-o", "Dir::State::Lists=/nonexistent"])


def test_without_apt_the_fault_names_the_choices(tmp_path: Path) -> None:
    script = "from lyra_tasks.engine.debian.packages import require_debian; require_debian()"
    environment = {"PATH": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert "has no apt-get and no dpkg" in result.stderr
