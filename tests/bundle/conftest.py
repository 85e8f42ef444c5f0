"""The shells that `receive.sh` is tested with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(params=["dash", "busybox sh"])
def shell(request: pytest.FixtureRequest, busybox: Path) -> list[str]:
    """Return the command that runs a script."""
    return [str(shutil.which("dash"))] if request.param == "dash" else [str(busybox / "busybox"), "sh"]
