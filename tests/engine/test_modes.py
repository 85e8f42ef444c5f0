"""The modes of everything that a run writes, which do not depend on the umask."""

from __future__ import annotations

import stat
from pathlib import Path

from tests.conftest import Project
from tests.faults import run_through


def read_modes(project: Project, *tops: Path) -> dict[str, str]:
    """Return the modes of all files and directories by path."""
    paths = [path for top in tops for path in (top, *top.rglob("*"))]
    return {str(path.relative_to(project.root.parent)): stat.filemode(path.lstat().st_mode) for path in paths}


def test_bundles_logs_and_state_have_the_same_modes_under_any_umask(tiny: Project) -> None:
    """Run under a umask that leaves its own mark on each mode: what it applies to is 0640 or 0751."""
    prefix = ["sh", "-c", 'umask 026; exec "$@"', "sh"]
    outcome = run_through(tiny, prefix, "build", "test", "promote")
    assert outcome.code == 0, outcome.text
    modes = read_modes(tiny, tiny.root / "promotion", tiny.root / ".lyra", tiny.state)
    meant = {"drwxr-xr-x", "drwx------", "-rw-r--r--", "-rw-------", "-r--------", "-rwxr-xr-x"}
    assert {name: mode for name, mode in modes.items() if mode not in meant} == {}
    (bundle,) = tiny.bundles()
    promoted = read_modes(tiny, bundle)
    assert set(promoted.values()) == {"drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x"}
    assert [Path(name).name for name, mode in promoted.items() if mode == "-rwxr-xr-x"] == ["receive.sh"]
