"""Writing what was planned: the configuration only after Lyra's own loader has taken it, nothing over what is there."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.config.discovery import display_path
from lyra_tasks.config.load import load_config_file
from lyra_tasks.errors import ConfigurationError, LyraError, PreconditionError
from lyra_tasks.files import sync_directory, sync_to_disk, write_file
from lyra_tasks.init.plan import InitPlan, PlannedFile
from lyra_tasks.init.project_files import CONFIG_FILE, TASKS_FILE


def write_init_files(plan: InitPlan, root: Path) -> tuple[str, ...]:
    """Write the files of a plan; returns their paths. With a configuration there already, nothing is written.

    A configuration that the loader refuses is not written, and what was added to ignore files is taken back.
    """
    if plan.has_configuration:
        return ()
    originals: dict[Path, bytes | None] = {}
    try:
        for file in sorted(plan.files, key=lambda planned_file: planned_file.path == CONFIG_FILE):
            if file.appended_lines:
                path = (root / file.path).resolve()  # a link stays one
                originals[path] = path.read_bytes() if path.exists() else None
                _rewrite(path, _append_text(originals[path] or b"", file.text))
            else:
                _write_new(root / file.path, file, is_configuration=file.path == CONFIG_FILE)
                originals[root / file.path] = None
    except (LyraError, OSError):
        for path, content in originals.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                _rewrite(path, content)
        raise
    return tuple(file.path for file in plan.files)


def _append_text(original: bytes, text: str) -> bytes:
    """What was there, byte for byte, and `text` behind it, its lines ended as the others are."""
    newline = b"\r\n" if b"\r\n" in original else b"\n"
    separator = b"" if not original or original.endswith(b"\n") else newline
    return original + separator + text.encode().replace(b"\n", newline)


def _rewrite(path: Path, content: bytes) -> None:
    write_file(path, content, stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644)


def _write_new(path: Path, file: PlannedFile, *, is_configuration: bool) -> None:
    """Write a file that must not be there, whole or not at all; the loader sees it before its name is taken."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".lyra-init.", suffix=path.suffix)
    candidate = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(file.text.encode())
            stream.flush()
            with suppress(PermissionError):  # FAT has no modes of its own
                os.fchmod(stream.fileno(), 0o644)
            sync_to_disk(stream.fileno())
        if is_configuration:
            _check_loadable(candidate)
        _link_into_place(path, candidate)
    except FileExistsError as error:
        raise PreconditionError(f"{path} is there by now", hint="nothing was written; look at it first") from error
    finally:
        candidate.unlink(missing_ok=True)
    sync_directory(path.parent)


def _link_into_place(path: Path, candidate: Path) -> None:
    """Give the file its name; FileExistsError where someone else was faster, which a rename alone would not see."""
    try:
        path.hardlink_to(candidate)
    except FileExistsError:
        raise
    except OSError:  # FAT knows one name per file
        if path.exists():
            raise FileExistsError(path) from None
        candidate.rename(path)


def _check_loadable(candidate: Path) -> None:
    try:
        load_config_file(candidate)
    except ConfigurationError as error:
        raise ConfigurationError(
            "what init would write is not a valid configuration, so nothing was written",
            hint="write .lyra.toml by hand; `init --dry-run` prints what it would have been",
            details=tuple(
                detail.replace(display_path(candidate), CONFIG_FILE) for detail in error.details or (error.message,)
            ),
        ) from error


_COLLECTION_HINT = (
    "to have the words in it: `from lyra_tasks import namespace`, or `namespace = lyra_tasks.collection(mine)`"
)


def print_init_plan(plan: InitPlan) -> None:
    """What would be written, whole."""
    if console.is_json_mode():
        return console.print_json(_to_json(plan, ()))
    for path in plan.existing:
        console.info(f"{path} is there already and would stay as it is")
    for file in plan.files:
        console.print(console.style(f"# {file.path}" + (", at its end" if file.appended_lines else ""), "bold"))
        console.print("\n".join(file.appended_lines) if file.appended_lines else file.text)
    _print_todos(plan)
    return None


def print_init_result(plan: InitPlan, paths: tuple[str, ...]) -> None:
    """What was written, what is open, and what to do next."""
    if console.is_json_mode():
        return console.print_json(_to_json(plan, paths))
    if plan.has_configuration:
        console.print(f"{CONFIG_FILE} is there already: nothing was written")
        console.print("to compare it with what init would write: `init --dry-run`; to start anew, move it away")
        return None
    appended = {file.path: file.appended_lines for file in plan.files}
    for path in paths:
        console.print(f"wrote {path}" + (f", with {' and '.join(appended[path])} in it" if appended[path] else ""))
    if TASKS_FILE in plan.existing:
        console.print(f"{TASKS_FILE} is yours and stays; {_COLLECTION_HINT}")
    _print_todos(plan)
    console.print("next: build test promote")
    return None


def _print_todos(plan: InitPlan) -> None:
    for note in plan.notes:
        console.info(note)
    for point in plan.todos:
        console.print(f"{CONFIG_FILE}:{point.line}: TODO: {point.text}")


def _to_json(plan: InitPlan, paths: tuple[str, ...]) -> dict[str, object]:
    return {
        "files": [
            {"path": file.path, "text": file.text, "adds": list(file.appended_lines), "written": file.path in paths}
            for file in plan.files
        ],
        "kept": list(plan.existing),
        "todo": [{"line": point.line, "text": point.text} for point in plan.todos],
        "notes": list(plan.notes),
    }
