"""Write the planned files without overwriting any, and show the plan and the result."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.config.load import CONFIG_FILE_NAME, list_todos, load_config_file
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.files import display_path, sync_directory, write_file
from lyra_tasks.results.configuration import InitFile, InitResult
from lyra_tasks.scaffold.plan import InitPlan
from lyra_tasks.scaffold.project_files import TASKS_FILE


def write_init_files(plan: InitPlan, root: Path) -> tuple[str, ...]:
    """Write the planned files and return their paths, or nothing if a configuration exists already.

    If the configuration is not valid or a file cannot be written, all changes are undone.
    """
    if plan.has_configuration:
        return ()
    originals: dict[Path, bytes | None] = {}
    try:
        for file in sorted(plan.files, key=lambda planned_file: planned_file.path == CONFIG_FILE_NAME):
            if file.appended_lines:
                path = (root / file.path).resolve()  # keep a symbolic link
                originals[path] = path.read_bytes() if path.exists() else None
                _rewrite(path, _append_text(originals[path] or b"", file.text))
            else:
                _write_new(root / file.path, file.text)
                originals[root / file.path] = None
    except BaseException:
        for path, content in originals.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                _rewrite(path, content)
        raise
    return tuple(file.path for file in plan.files)


def _append_text(original: bytes, text: str) -> bytes:
    """Append a text with the line endings of the original, whose bytes are kept."""
    newline = b"\r\n" if b"\r\n" in original else b"\n"
    separator = b"" if not original or original.endswith(b"\n") else newline
    return original + separator + text.encode().replace(b"\n", newline)


def _rewrite(path: Path, content: bytes) -> None:
    write_file(path, content, stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644)


def _write_new(path: Path, text: str) -> None:
    """Write a file that must not exist, atomically; a configuration is validated first."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".lyra-init.", suffix=path.suffix)
    os.close(descriptor)
    candidate = Path(name)
    try:
        write_file(candidate, text.encode())
        if path.name == CONFIG_FILE_NAME and (problems := _list_problems(candidate)):
            write_file(candidate, _add_todos(text, problems).encode())
        _link_into_place(path, candidate)
    except FileExistsError as error:
        raise PreconditionError(
            f"{path} was created in the meantime", hint="Check it, then run `init` again"
        ) from error
    finally:
        candidate.unlink(missing_ok=True)
    sync_directory(path.parent)


def _link_into_place(path: Path, candidate: Path) -> None:
    """Give the file its final name; raise FileExistsError if it exists, which a rename alone would not detect."""
    try:
        path.hardlink_to(candidate)
    except FileExistsError:
        raise
    except OSError:  # FAT has no hard links
        if path.exists():
            raise FileExistsError(path) from None
        candidate.rename(path)


def _list_problems(candidate: Path) -> tuple[str, ...]:
    """Return what a configuration needs before it can be used."""
    try:
        error = load_config_file(candidate).error
    except ConfigurationError as failure:
        error = failure
    if error is None:
        return ()
    details = error.details or (error.message,)
    return tuple(detail.replace(f"{display_path(candidate)}:", "line ") for detail in details)


def _add_todos(text: str, problems: Sequence[str]) -> str:
    """Return the text with a TODO for each problem at its end, where no line number changes."""
    lines = [f"# TODO: {_PROBLEM_PREFIX}{' '.join(problem.split())}" for problem in problems]
    return text + "\n" + "\n".join(lines) + "\n"


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
