"""A private Docker engine of one project, unpacked from Debian packages. Imports the engine's `debian` only."""

from __future__ import annotations

from lyra_tasks.engine.sandbox.layout import (
    Sandbox,
    StoreKind,
    count_data_directories,
    find_sandbox,
    find_sandbox_at,
    has_sandbox_data,
    has_sandbox_record,
    limit_log,
    read_engine_ids,
    run_in_sandbox_network,
)
from lyra_tasks.engine.sandbox.obstacles import find_obstacle
from lyra_tasks.engine.sandbox.start import launch_sandbox
from lyra_tasks.engine.sandbox.stop import StopReport, require_clean_stop, shut_down_sandbox
from lyra_tasks.engine.sandbox.stray import StraySandbox, find_stray_sandbox, list_stray_sandboxes

__all__ = [
    "Sandbox",
    "StopReport",
    "StoreKind",
    "StraySandbox",
    "count_data_directories",
    "find_obstacle",
    "find_sandbox",
    "find_sandbox_at",
    "find_stray_sandbox",
    "has_sandbox_data",
    "has_sandbox_record",
    "launch_sandbox",
    "limit_log",
    "list_stray_sandboxes",
    "read_engine_ids",
    "require_clean_stop",
    "run_in_sandbox_network",
    "shut_down_sandbox",
]
