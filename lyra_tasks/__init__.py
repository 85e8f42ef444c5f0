"""Invoke tasks that build, test and package containers, from the developer's machine to the edge of production.

A project's `tasks.py` is two lines: `from lyra_tasks import namespace`, or with tasks of its own
`namespace = lyra_tasks.collection(mine, other)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lyra_tasks.version import __version__

if TYPE_CHECKING:
    from invoke.collection import Collection

__all__ = ["__version__", "collection", "namespace"]


def collection(*project_tasks: Any) -> Collection:
    """Return Lyra's tasks together with the project's own tasks, collections or modules."""
    from lyra_tasks.tasks.collection import create_collection

    return create_collection(*project_tasks)


def __getattr__(name: str) -> Any:
    """Create `namespace` on first use, so that importing a part of the package does not load Invoke."""
    if name == "namespace":
        return collection()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
