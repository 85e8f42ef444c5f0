"""The rooms depend on each other in one direction, and only the right ones know Invoke and Docker."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lyra_tasks"
STEPS = {"build", "lab", "release", "bundle", "cleanup", "overview", "setup", "report"}
FLOORS = [
    {"run", "console", "files", "errors"},
    {"config"},
    {"records"},
    {"engine"},
    {"images"},
    {"rules"},
    STEPS,
    {"tasks"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
HEAVY = {"docker", "python_on_whales", "requests", "rich", "jinja2", "yaml", "isal"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """The dotted names a module imports; what stands under `if TYPE_CHECKING` counts only when all are asked for."""
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def room_of(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "lyra_tasks" and parts[1] in LEVEL else None


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_own_room_and_from_below(path: Path) -> None:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts[0] == "__init__":
        return
    own = LEVEL[parts[0]]
    for dotted in imports(path):
        room = room_of(dotted)
        if room is not None and room != parts[0]:
            assert LEVEL[room] < own or own == 0, f"{path.name} imports {dotted}"


def test_only_the_front_door_knows_invoke() -> None:
    found = {path.relative_to(PACKAGE).parts[0] for path in modules() for name in imports(path) if name == "invoke"}
    found |= {
        path.relative_to(PACKAGE).parts[0] for path in modules() for name in imports(path) if name.startswith("invoke.")
    }
    assert found <= {"tasks", "__init__.py"}
    assert "tasks" in found


def test_only_the_engine_room_knows_docker() -> None:
    found = {
        path.relative_to(PACKAGE).parts[0]
        for path in modules()
        for name in imports(path)
        if name.split(".")[0] in {"docker", "python_on_whales"}
    }
    assert found == {"engine"}


def test_heavy_libraries_are_imported_where_they_are_used_and_not_before() -> None:
    early = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in modules()
        for name in imports(path, top_level_only=True)
        if name.split(".")[0] in HEAVY
    ]
    assert early == []
