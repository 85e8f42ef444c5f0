"""Write the planned files without overwriting any, and show the plan and the result."""

from __future__ import annotations

import stat
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.compose.locate import find_repository
from lyra_tasks.config.load import CONFIG_FILE_NAME, list_todos, load_config_file
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.files import display_path, write_file
from lyra_tasks.results.configuration import InitFile, InitResult
from lyra_tasks.scaffold.project_files import TASKS_FILE
from lyra_tasks.versions.git import read_head

_PROBLEM_PREFIX = "this must be settled first: "
_COLLECTION_HINT = "add the tasks with `from lyra_tasks import namespace` or `namespace = lyra_tasks.collection(mine)`"


def write_init_files(plan: InitResult, root: Path) -> InitResult:
    """Write the planned files and return them as they are now, or the plan if a configuration exists already.

    If a file cannot be written, all changes are undone.
    """
    if CONFIG_FILE_NAME in plan.existing:
        return plan
    files: list[InitFile] = []
    with ExitStack() as undo:
        for file in reversed(plan.files):  # the configuration is the last one, since its problems depend on the others
            path = (root / file.path).resolve()  # keep a symbolic link
            text = file.text + (_describe_problems(file.text, path) if file.path == CONFIG_FILE_NAME else "")
            if file.appended_lines and path.is_file():
                original, mode = path.read_bytes(), stat.S_IMODE(path.stat().st_mode)
                write_file(path, _append_text(original, text), mode)
                undo.callback(write_file, path, original, mode)
            else:
                _write_new(path, text)
                undo.callback(path.unlink)
            files.insert(0, replace(file, text=text, written=True))
        undo.pop_all()
    return replace(plan, files=tuple(files), todos=list_todos(files[0].text))


def _write_new(path: Path, text: str) -> None:
    """Write a file at once, as a whole; raise PreconditionError if there is one by now."""
    try:
        write_file(path, text.encode(), new=True)
    except FileExistsError as error:
        raise PreconditionError(
            f"{path} was created in the meantime", hint="Check it, then run `init` again"
        ) from error


def _append_text(original: bytes, text: str) -> bytes:
    """Append a text with the line endings of the original, whose bytes are kept."""
    newline = b"\r\n" if b"\r\n" in original else b"\n"
    separator = b"" if not original or original.endswith(b"\n") else newline
    return original + separator + text.encode().replace(b"\n", newline)


def _describe_problems(text: str, path: Path) -> str:
    """Return a TODO for each problem of a configuration, for its end, where no line number changes."""
    try:
        error = load_config_file(path, text=text).error
    except ConfigurationError as failure:
        error = failure
    if error is None:
        return ""
    details = (detail.replace(f"{display_path(path)}:", "line ") for detail in error.details or (error.message,))
    return "\n" + "".join(f"# TODO: {_PROBLEM_PREFIX}{' '.join(detail.split())}\n" for detail in details)


def show_init_plan(plan: InitResult) -> InitResult:
    """Show the files that would be written."""
    if console.print_result(plan):
        return plan
    for path in plan.existing:
        console.info(f"{path} already exists and would be kept")
    for file in plan.files:
        console.print(console.style(f"# {file.path}" + (" (appended)" if file.appended_lines else ""), "bold"))
        console.print_verbatim("\n".join(file.appended_lines) if file.appended_lines else file.text)
    _print_todos(plan)
    return plan


def show_init_result(result: InitResult, root: Path) -> InitResult:
    """Show the files that were written, the TODOs and the next command."""
    if console.print_result(result):
        return result
    if CONFIG_FILE_NAME in result.existing:
        console.print(f"{CONFIG_FILE_NAME} already exists; nothing was written")
        console.print("compare it with the output of `init --dry-run`, or move it away and run `init` again")
        return result
    for file in result.files:
        lines = f", with {' and '.join(file.appended_lines)} in it" if file.appended_lines else ""
        console.print(f"wrote {file.path}{lines}")
    if TASKS_FILE in result.existing:
        console.print(f"{TASKS_FILE} already exists and was kept; {_COLLECTION_HINT}")
    _print_todos(result)
    console.print(f"next: {_describe_next_step(result, root)}")
    return result


def _describe_next_step(result: InitResult, root: Path) -> str:
    if any(todo.text.startswith(_PROBLEM_PREFIX) for todo in result.todos):
        return f"settle what {CONFIG_FILE_NAME} says at its end; `config.show` lists what is left"
    try:
        read_head(root)
    except PreconditionError:
        repository = "" if find_repository(root) else "git init && "
        return f"`{repository}git add --all && git commit --message init`, then `build test promote`"
    return "`build test promote`"


def _print_todos(result: InitResult) -> None:
    for note in result.notes:
        console.info(note)
    for todo in result.todos:
        console.print(f"{CONFIG_FILE_NAME}:{todo.line}: TODO: {todo.text}")
