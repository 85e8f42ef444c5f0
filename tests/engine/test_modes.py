"""The modes of everything that a run writes, which do not depend on the umask."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Project
from tests.faults import run_through

_RUN = re.compile(r"\d{8}t\d{6}-[0-9a-f]{7}")
_UNIQUE = re.compile(r"[0-9a-f]{8,}|\+g[0-9a-f]{7}|_g[0-9a-f]{7}|tiny\d+|\d{4,}")


def read_modes(project: Project) -> dict[str, str]:
    """Return the modes of bundles, logs and state by path, with what differs from run to run left out."""
    modes = {}
    for top in (project.root / "promotion", project.root / ".lyra", project.state):
        for path in (top, *top.rglob("*")):
            name = _UNIQUE.sub("ID", _RUN.sub("RUN", str(path.relative_to(project.root.parent))))
            modes[name] = stat.filemode(path.lstat().st_mode)
    return modes


def test_bundles_logs_and_state_have_the_same_modes_under_any_umask(make_tiny: Callable[[], Project]) -> None:
    modes = []
    for umask in ("077", "000", "022"):
        project = make_tiny()
        prefix = ["sh", "-c", f'umask {umask}; exec "$@"', "sh"]
        outcome = run_through(project, prefix, "build", "test", "promote")
        modes.append(read_modes(project))
        project.clean()
        assert outcome.code == 0, outcome.text
    assert modes[0] == modes[1] == modes[2]
    bundle = {name: mode for name, mode in modes[0].items() if "promotion/" in name and "/." not in name}
    assert set(bundle.values()) == {"drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x"}
    assert [Path(name).name for name, mode in bundle.items() if mode == "-rwxr-xr-x"] == ["receive.sh"]
