"""Prepare a test while images are built: import what it needs, and compute what no image can change."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace


def preload_test(work: Workspace) -> None:
    """Do all of it; what is not ready when the test needs it is done then."""
    import lyra_tasks.checks.runner
    import lyra_tasks.checks.show  # noqa: F401
    from lyra_tasks.report.page import preload_template
    from lyra_tasks.rules.secrets import fingerprint_secrets, read_declared_secrets
    from lyra_tasks.rules.tokens import has_detect_secrets, load_detectors

    preload_template()
    with suppress(OSError):  # which the test reports
        fingerprint_secrets(read_declared_secrets(work.config, work.root), work.paths.project_id)
    if has_detect_secrets():
        load_detectors()
