"""What `init` says."""

from __future__ import annotations

from lyra_tasks import console
from lyra_tasks.setup.facts import CONFIGURATION, TASKS
from lyra_tasks.setup.plan import InitPlan

_ADD_WORDS = "to have the words in it: `from lyra_tasks import namespace`, or `namespace = lyra_tasks.collection(mine)`"


def planned(plan: InitPlan) -> None:
    """What would be written, whole."""
    if console.is_json():
        return console.document(_document(plan, ()))
    for path in plan.kept:
        console.note(f"{path} is there already and would stay as it is")
    for file in plan.files:
        console.say(console.style(f"# {file.path}" + (", at its end" if file.adds else ""), "bold"))
        console.say("\n".join(file.adds) if file.adds else file.text)
    _left(plan)
    return None


def written(plan: InitPlan, paths: tuple[str, ...]) -> None:
    """What was written, what is open, and what to do next."""
    if console.is_json():
        return console.document(_document(plan, paths))
    if plan.configured:
        console.say(f"{CONFIGURATION} is there already: nothing was written")
        console.say("to compare it with what init would write: `init --dry-run`; to start anew, move it away")
        return None
    added = {file.path: file.adds for file in plan.files}
    for path in paths:
        console.say(f"wrote {path}" + (f", with {' and '.join(added[path])} in it" if added[path] else ""))
    if TASKS in plan.kept:
        console.say(f"{TASKS} is yours and stays; {_ADD_WORDS}")
    _left(plan)
    console.say("next: build test promote")
    return None


def _left(plan: InitPlan) -> None:
    for note in plan.notes:
        console.note(note)
    for point in plan.todos:
        console.say(f"{CONFIGURATION}:{point.line}: TODO: {point.text}")


def _document(plan: InitPlan, paths: tuple[str, ...]) -> dict[str, object]:
    return {
        "files": [
            {"path": file.path, "text": file.text, "adds": list(file.adds), "written": file.path in paths}
            for file in plan.files
        ],
        "kept": list(plan.kept),
        "todo": [{"line": point.line, "text": point.text} for point in plan.todos],
        "notes": list(plan.notes),
    }
