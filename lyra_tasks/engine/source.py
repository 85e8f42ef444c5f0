"""Compare what images and bundles are made from with the commit that is checked out.

Git's index is not asked: many settings make it skip a file, and images are made from the files.
"""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Set
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from lyra_tasks.config.models import Configuration
from lyra_tasks.dockerfile.context import ContextEntry, ContextSnapshot, read_entry
from lyra_tasks.dockerfile.file_hashes import open_file_hashes
from lyra_tasks.dockerfile.input_hashes import read_ignore_patterns
from lyra_tasks.dockerfile.lock_file import LOCK_FILE_NAME
from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import quote_path
from lyra_tasks.versions.git import GitFacts, hash_changed_files
from lyra_tasks.versions.head import LocalFile, TreeEntry, compare_with_tree, list_parents, read_tree

SOURCE_RULE = "source.committed"
SOURCE_SCOPE = "source"


def add_source_changes(
    facts: GitFacts,
    config: Configuration,
    root: Path,
    config_files: Iterable[Path],
    outputs: Iterable[str],
    snapshots: Collection[ContextSnapshot],
) -> GitFacts:
    """Return the facts of a checkout with all that images and bundle take from it and HEAD does not hold.

    `snapshots` are those of the contexts of all images.
    """
    top, root = facts.top.resolve(), root.resolve()
    if not root.is_relative_to(top):
        raise PreconditionError(
            f"git takes {top} for the working tree of {root}",
            hint=f"Run `git -C {quote_path(root)} config --unset core.worktree`",
        )
    files = dict(_list_files(snapshots, _list_other_files(config, root, config_files), root, top))
    contexts = {_name_below(snapshot.context.resolve(), top) for snapshot in snapshots}
    tree = read_tree(top, facts.commit, contexts | {name for name in files if not _is_below(name, contexts)})
    differences = compare_with_tree(top, tree, files, _list_directories(snapshots, top), facts.changed_paths)
    generated = [_name_below(os.path.normpath(root / output), top) for output in outputs]
    changed = {
        name
        for name in (*differences.changed, *_list_missing(tree, files, snapshots, top))
        if not any(name == output or name.startswith(f"{output}/") for output in generated)
    }
    changed_paths = tuple(sorted({*facts.changed_paths, *changed}))
    accepts_uncommitted = has_source_deviation(config, datetime.date.today())
    hashed_paths = {*changed_paths, *(() if accepts_uncommitted else differences.uncommitted)}
    dirty_paths = {path.rstrip("/") for path in hashed_paths if not path.endswith(".git/")}
    known_hashes = {name: file.sha256 for name, file in files.items()}
    return replace(
        facts,
        changed_paths=changed_paths,
        uncommitted_inputs=differences.uncommitted,
        accepts_uncommitted=accepts_uncommitted,
        dirty_hash=hash_changed_files(top, dirty_paths, known_hashes)[:8] if hashed_paths else "",
    )


def has_source_deviation(config: Configuration, today: datetime.date) -> bool:
    """Return whether a deviation allows a release with inputs that git does not commit."""
    return any(
        deviation.rule == SOURCE_RULE and fnmatchcase(SOURCE_SCOPE, deviation.scope) and deviation.expires >= today
        for deviation in config.deviations
    )


def _list_other_files(config: Configuration, root: Path, config_files: Iterable[Path]) -> set[Path]:
    """Return the files beside the build contexts that images and bundle are made from."""
    paths = {*config_files, root / LOCK_FILE_NAME}
    paths |= {root / source for source in config.config_sources}
    paths |= {root / test.structure for test in config.tests if test.structure is not None}
    return {path for path in paths if path.exists()}


def _list_files(
    snapshots: Iterable[ContextSnapshot], other_files: Iterable[Path], root: Path, top: Path
) -> Iterator[tuple[str, LocalFile]]:
    """Yield files and links, those outside of the working tree included, by their path below it."""
    for snapshot in snapshots:
        prefix = str(snapshot.context.resolve())
        for name, entry in (*snapshot.entries.items(), *snapshot.build_files.items()):
            if not stat.S_ISDIR(entry.mode):
                path = os.path.normpath(os.path.join(prefix, name))  # noqa: PTH118  # for each file of a context
                yield _name_below(path, top), _to_local_file(Path(path), entry)
    file_hashes = open_file_hashes(root / ".lyra" / "hashes" / "source.json")
    for other in other_files:
        # a link is followed: both it and the file must be committed
        for member in {other.parent.resolve() / other.name, other.resolve()}:
            entry = read_entry(str(member), member.lstat(), file_hashes)
            yield _name_below(member, top), _to_local_file(member, entry)


def _to_local_file(path: Path, entry: ContextEntry) -> LocalFile:
    return LocalFile(path, entry.mode, entry.content.sha256, entry.content.git_id)


def _list_directories(snapshots: Iterable[ContextSnapshot], top: Path) -> Iterator[str]:
    for snapshot in snapshots:
        prefix = str(snapshot.context.resolve())
        for name, entry in snapshot.entries.items():
            if stat.S_ISDIR(entry.mode):
                yield _name_below(os.path.join(prefix, name), top)  # noqa: PTH118  # for each directory of a context


def _list_missing(
    tree: dict[str, TreeEntry], files: dict[str, LocalFile], snapshots: Iterable[ContextSnapshot], top: Path
) -> Iterator[str]:
    """Yield what the commit holds of the contexts, and the checkout does not."""
    for snapshot in snapshots:
        prefix = _name_below(snapshot.context.resolve(), top)
        matcher = read_ignore_patterns(snapshot.context, snapshot.dockerfile)
        for name in tree:
            if prefix != "." and not name.startswith(f"{prefix}/"):
                continue
            path = name if prefix == "." else name.removeprefix(f"{prefix}/")
            if name not in files and not matcher.matches(path):
                yield name


def _is_below(name: str, directories: Set[str]) -> bool:
    return "." in directories or not directories.isdisjoint(list_parents(name))


def _name_below(path: str | Path, top: Path) -> str:
    """Return an absolute path as seen from `top`, both without `..`."""
    prefix, text = f"{top}/", str(path)
    return text.removeprefix(prefix) if text.startswith(prefix) else os.path.relpath(text, top)
