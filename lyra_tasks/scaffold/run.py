"""Write the planned files without overwriting any, and show the plan and the result."""

from __future__ import annotations

import stat
import tempfile
from dataclasses import replace
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.config.load import CONFIG_FILE_NAME, list_todos, load_config_file
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.files import display_path, write_file
from lyra_tasks.results.configuration import InitFile, InitResult
from lyra_tasks.scaffold.plan import InitPlan
from lyra_tasks.scaffold.project_files import TASKS_FILE


def write_init_files(plan: InitPlan, root: Path) -> tuple[str, ...]:
    """Write the planned files and return their paths, or nothing if a configuration exists already.

    If a file cannot be written, all changes are undone.
    """
    if plan.has_configuration:
        return ()
    originals: dict[Path, bytes | None] = {}
    try:
        for file in sorted(plan.files, key=lambda planned_file: planned_file.path == CONFIG_FILE_NAME):
            path = (root / file.path).resolve() if file.appended_lines else root / file.path  # keep a symbolic link
            original = path.read_bytes() if file.appended_lines and path.exists() else None
            text = _add_problems(file.text, path) if file.path == CONFIG_FILE_NAME else file.text
            if original is None:
                _write_new(path, text.encode())
            else:
                _rewrite(path, _append_text(original, text))
            originals[path] = original
    except BaseException:
        for path, content in originals.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                _rewrite(path, content)
        raise
    return tuple(file.path for file in plan.files)


def _write_new(path: Path, content: bytes) -> None:
    """Write a file at once, as a whole; raise PreconditionError if there is one by now."""
    try:
        write_file(path, content, new=True)
    except FileExistsError as error:
        raise PreconditionError(
            f"{path} was created in the meantime", hint="Check it, then run `init` again"
        ) from error


def _append_text(original: bytes, text: str) -> bytes:
    """Append a text with the line endings of the original, whose bytes are kept."""
    newline = b"\r\n" if b"\r\n" in original else b"\n"
    separator = b"" if not original or original.endswith(b"\n") else newline
    return original + separator + text.encode().replace(b"\n", newline)


def _rewrite(path: Path, content: bytes) -> None:
    write_file(path, content, stat.S_IMODE(path.stat().st_mode))


def _add_problems(text: str, path: Path) -> str:
    """Return the text of a configuration with a TODO for each problem at its end, where no line number changes."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".lyra-init.", suffix=path.suffix) as file:
        file.write(text.encode())
        file.flush()
        candidate = Path(file.name)
        try:
            error = load_config_file(candidate).error
        except ConfigurationError as failure:
            error = failure
    if error is None:
        return text
    details = (detail.replace(f"{display_path(candidate)}:", "line ") for detail in error.details or (error.message,))
    return "\n".join([text, *(f"# TODO: {_PROBLEM_PREFIX}{' '.join(detail.split())}" for detail in details), ""])


def read_todos(plan: InitPlan, root: Path) -> InitPlan:
    """Return the plan with the TODOs of the configuration as it was written."""
    file = root / CONFIG_FILE_NAME
    return plan if plan.has_configuration else replace(plan, todos=list_todos(file.read_text(encoding="utf-8")))


_PROBLEM_PREFIX = "this must be settled first: "
_COLLECTION_HINT = "add the tasks with `from lyra_tasks import namespace` or `namespace = lyra_tasks.collection(mine)`"


def show_init_plan(plan: InitPlan) -> InitResult:
    """Show the files that would be written."""
    result = _build_result(plan, ())
    if console.print_result(result):
        return result
    for path in plan.existing:
        console.info(f"{path} already exists and would be kept")
    for file in plan.files:
        console.print(console.style(f"# {file.path}" + (" (appended)" if file.appended_lines else ""), "bold"))
        console.print_verbatim("\n".join(file.appended_lines) if file.appended_lines else file.text)
    _print_todos(plan)
    return result


def show_init_result(plan: InitPlan, paths: tuple[str, ...]) -> InitResult:
    """Show the files that were written, the TODOs and the next command."""
    result = _build_result(plan, paths)
    if console.print_result(result):
        return result
    if plan.has_configuration:
        console.print(f"{CONFIG_FILE_NAME} already exists; nothing was written")
        console.print("compare it with the output of `init --dry-run`, or move it away and run `init` again")
        return result
    appended = {file.path: file.appended_lines for file in plan.files}
    for path in paths:
        console.print(f"wrote {path}" + (f", with {' and '.join(appended[path])} in it" if appended[path] else ""))
    if TASKS_FILE in plan.existing:
        console.print(f"{TASKS_FILE} already exists and was kept; {_COLLECTION_HINT}")
    _print_todos(plan)
    console.print(f"next: {_describe_next_step(plan)}")
    return result


def _describe_next_step(plan: InitPlan) -> str:
    if any(todo.text.startswith(_PROBLEM_PREFIX) for todo in plan.todos):
        return f"settle what {CONFIG_FILE_NAME} says at its end; `config.show` lists what is left"
    if not plan.is_in_git:
        return "`git init && git add --all && git commit --message init`, then `build test promote`"
    return "`build test promote`"


def _print_todos(plan: InitPlan) -> None:
    for note in plan.notes:
        console.info(note)
    for todo in plan.todos:
        console.print(f"{CONFIG_FILE_NAME}:{todo.line}: TODO: {todo.text}")


def _build_result(plan: InitPlan, paths: tuple[str, ...]) -> InitResult:
    files = (InitFile(file.path, file.text, file.appended_lines, file.path in paths) for file in plan.files)
    return InitResult(tuple(files), plan.existing, plan.todos, plan.notes)
