"""Invoke tasks that build, test and package containers, from the developer's machine to the edge of production.

A project's `tasks.py` is one line, `from lyra_tasks import namespace`, or with tasks of its own
`namespace = lyra_tasks.collection(mine, other)`. The tasks themselves, to call from Python, are in `lyra_tasks.tasks`,
their results in `lyra_tasks.results`. Nothing else is a promise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lyra_tasks.version import __version__

if TYPE_CHECKING:  # importing the package takes next to no time, as the program does before it handles Ctrl-C
    from collections.abc import Iterable
    from pathlib import Path
    from types import ModuleType
    from typing import Any

    from invoke.collection import Collection
    from invoke.tasks import Task

    namespace: Collection

__all__ = ["__version__", "collection", "namespace"]


def collection(
    *own: Task[Any] | Collection | ModuleType,
    only: Iterable[str] = (),
    replace: Iterable[str] = (),
    config: str | Path = "",
) -> Collection:
    """Return Lyra's tasks together with the project's own.

    Args:
        own: Tasks, collections or modules of the project.
        only: Names of the tasks and collections of Lyra's to include, such as `["build", "bundle"]`; default: all.
        replace: Names of those that an own task or collection of the same name replaces.
        config: The `.lyra.toml` that the tasks are about, relative to the calling file. By default it is found upwards
            from the working directory. Several projects in one repository have a collection each.

    Raises:
        invoke.exceptions.Exit: A name is unknown, or taken by one of Lyra's tasks; has message and exit code 2.
    """
    import sys
    from pathlib import Path

    from lyra_tasks.tasks.collection import create_collection

    directory = Path(str(sys._getframe(1).f_globals.get("__file__", ""))).parent
    config_file = (directory / config).absolute() if config else None
    return create_collection(own, only=only, replace=replace, config=config_file)


if not TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name: str) -> Any:
        """Create `namespace` on first use, so that importing a part of the package does not load Invoke."""
        if name == "namespace":
            return collection()
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
