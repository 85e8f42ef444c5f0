"""What a rehearsal depends on, found out."""

from __future__ import annotations

import os
from pathlib import Path

from lyra_tasks.bundle import layout
from lyra_tasks.bundle.described import described
from lyra_tasks.bundle.read import bundle_of
from lyra_tasks.bundle.rehearsal.plan import RehearsalFacts
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import BundleError


def gather(work: Workspace, version: str) -> RehearsalFacts:
    """The facts of a rehearsal; UsageError where there is no such version."""
    bundle = bundle_of(work.bundles, version)
    known = described(bundle)
    example = bundle / layout.ENV_EXAMPLE
    if not example.is_file():
        raise BundleError(f"{example}: missing", hint="`verify` says what else is")
    share = work.config.resources.host_share
    proxima = work.config.proxima
    memory, cpus = int(_memory() * share), (os.cpu_count() or 1) * share
    return RehearsalFacts(
        bundle=bundle,
        manifest=known.manifest,
        example=example.read_text(),
        users={name: service["user"] for name, service in known.services.items()},
        commit=work.git.commit,
        memory=min(memory, proxima.memory or memory),
        cpus=min(cpus, proxima.cpus or cpus),
    )


def _memory() -> int:
    """Bytes of this machine's memory."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    return int(line.split()[1]) * 1024
