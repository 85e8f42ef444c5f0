"""Import the program with all that it imports on first use, for the process that `forked.py` forks."""

from __future__ import annotations

import gc
import pkgutil
from collections.abc import Iterator
from importlib import import_module

from pydantic import BaseModel

import lyra_tasks

_LIBRARIES = (
    "cyclonedx.output.json",
    "docker",
    "e2b_dockerfile_utils",
    "invoke",
    "isal.igzip_threaded",
    "jinja2",
    "pathspec",
    "python_on_whales",
    "rich.console",
    "rich.live",
    "rich.table",
    "spdx_tools.spdx.jsonschema.document_converter",
    "unittest.mock",
)

for module in pkgutil.walk_packages(lyra_tasks.__path__, "lyra_tasks."):
    if not module.name.startswith("lyra_tasks.pytest_plugin") and not module.name.endswith("__main__"):
        import_module(module.name)
for library in _LIBRARIES:
    import_module(library)


def _list_subclasses(parent: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for child in parent.__subclasses__():
        yield child
        yield from _list_subclasses(child)


# what every client would do by itself
for model in _list_subclasses(BaseModel):
    if model.__module__.startswith("lyra_tasks."):
        model.model_rebuild()
gc.freeze()
