"""Imports between packages point one way, and only the right packages import Invoke and Docker."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lyra_tasks"
CONTRACTS = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
LAYERS = [layer.replace(":", "|").split("|") for layer in reversed(CONTRACTS[0]["layers"])]
LEVEL = {package.strip(): level for level, packages in enumerate(LAYERS) for package in packages}
LOADED_BY_PYTEST = "pytest_plugin"
HEAVY = {
    "docker", "python_on_whales", "requests", "rich", "jinja2", "yaml", "isal", "cyclonedx", "packageurl", "spdx_tools",
}  # fmt: skip
LOADED_FOR_SBOMS = {f"bundle/content/{name}.py" for name in ("sbom", "spdx", "syft")} | {"images/package_list.py"}
"""Modules that are imported on first use, or in a process of their own."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def imports(path: Path, *, top_level_only: bool = False) -> tuple[str, ...]:
    """Return the dotted names that a module imports; with `top_level_only`, those executed when it is loaded."""
    return tuple(_read_imports(path, top_level_only=top_level_only))


def _read_imports(path: Path, *, top_level_only: bool) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def package_of(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "lyra_tasks" and parts[1] in LEVEL else None


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_only_from_lower_packages(path: Path) -> None:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts[0] == "__init__":  # the public API, above everything
        return
    own = LEVEL[parts[0]]
    for dotted in imports(path):
        package = package_of(dotted)
        if package is not None and package != parts[0]:
            assert LEVEL[package] < own or own == 0, f"{path.name} imports {dotted}"


def test_only_tasks_import_invoke() -> None:
    assert importers({"invoke"}) <= {"tasks", "__init__.py"}
    assert "tasks" in importers({"invoke"})


def test_only_engine_imports_docker() -> None:
    assert importers({"docker"}) == {"engine"}
    assert importers({"python_on_whales"}) == {"compose", "engine"}


def importers(libraries: set[str]) -> set[str]:
    """Return the packages that import one of these libraries anywhere."""
    return {
        path.relative_to(PACKAGE).parts[0]
        for path in modules()
        for name in imports(path)
        if name.split(".")[0] in libraries
    }


def test_heavy_libraries_are_imported_lazily() -> None:
    heavy = HEAVY | {".".join(("lyra_tasks", *Path(name).with_suffix("").parts)) for name in LOADED_FOR_SBOMS}
    early = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in modules()
        if path.relative_to(PACKAGE).parts[0] != LOADED_BY_PYTEST
        and path.relative_to(PACKAGE).as_posix() not in LOADED_FOR_SBOMS
        for name in imports(path, top_level_only=True)
        if any(name == module or name.startswith(f"{module}.") for module in heavy)
    ]
    assert early == []
