"""Give a builder the build contexts that were hashed.

BuildKit keeps a copy of every local context by the base name of its directory, and takes a file for unchanged whose
size and time did not change. So each context has a name of its own, a link. Its last part, the generation, moves as
soon as a file has another content than the builder may hold for the same size and time.
"""

from __future__ import annotations

import json
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lyra_tasks.config.models import Image
from lyra_tasks.digests import sha256_hex
from lyra_tasks.dockerfile.context import (
    ContextSnapshot,
    display_name,
    format_names,
    list_touched,
)
from lyra_tasks.dockerfile.input_hashes import find_ignore_file, list_own_files, scan_again, scan_directory
from lyra_tasks.errors import LyraError, StaleError
from lyra_tasks.files import display_path
from lyra_tasks.records.contexts import SentContext, SentContextStore

ContextKey = tuple[str, str]
"""The context and the Dockerfile of a bake target."""

_MAX_NAME_LENGTH = 100
_MAX_OLD_FILES = 1000


@dataclass(frozen=True)
class BuildSources:
    """The build contexts of a project as they were hashed when a build was planned.

    `state` and `project_id` are those of the checkout, `cache` is for the hashes of large files of other contexts.
    """

    state: Path
    project_id: str
    cache: Path
    snapshots: Mapping[ContextKey, ContextSnapshot] = field(default_factory=dict)


def context_key(root: str, image: Image) -> ContextKey:
    """Return context and Dockerfile of an image as a bake definition names them."""
    context = f"{root}/{image.context}"
    return context, f"{context}/{image.dockerfile}"


def escape_bake_definition(definition: str) -> str:
    """Return a bake definition in JSON in which `${` and `%{` are plain text, not the beginning of an expression."""
    return definition.replace("${", "$${").replace("%{", "%%{")


@contextmanager
def name_contexts(definition: Path, builder: str, sources: BuildSources | None) -> Iterator[Path]:
    """Yield a copy of a bake definition with names for its contexts, for one build with this builder.

    Raises StaleError at the end if a context changed since it was hashed, unless the build failed. Without `sources`
    every context gets a name that was never used, and is sent as a whole.
    """
    document = json.loads(definition.read_text())
    directory = Path(tempfile.mkdtemp(prefix=".contexts-", dir=definition.parent))
    contexts: dict[ContextKey, _NamedContext] = {}
    try:
        for target in document["target"].values():
            key = (_unescape(target.get("context", "")), _unescape(target.get("dockerfile", "")))
            if Path(key[0]).is_absolute():
                contexts.setdefault(key, _create_context(key, builder, sources))
                target["context"] = escape_bake_definition(str(directory / contexts[key].name))
                if key[1]:
                    dockerfile = _copy_dockerfile(Path(key[1]), contexts[key].snapshot.context, directory)
                    target["dockerfile"] = escape_bake_definition(str(dockerfile))
        for context in contexts.values():
            (directory / context.name).symlink_to(context.snapshot.context)
        copy = directory / definition.name
        copy.touch(mode=0o600)
        copy.write_text(json.dumps(document))
        try:
            yield copy
        except LyraError:
            for context in contexts.values():
                context.finish()
            raise
        names = [name for context in contexts.values() for name in context.finish()]
        if names:
            raise StaleError(f"{format_names(dict.fromkeys(names))} changed during the build", hint="Run `build` again")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _copy_dockerfile(dockerfile: Path, context: Path, directory: Path) -> Path:
    """Copy a Dockerfile, with an ignore file beside it that also excludes Lyra's own files from the context.

    The builder keeps a copy of it, too, by the name of its directory, which is that of both contents.
    """
    content = dockerfile.read_bytes()
    ignore_file = find_ignore_file(context, dockerfile)
    ignored = (ignore_file.read_bytes() if ignore_file is not None else b"") + b"\n"
    ignored += "".join(f"{pattern}\n" for pattern in list_own_files(context)).encode()
    copy = directory / f"lyra-{sha256_hex(content + bytes(1) + ignored)[:24]}" / dockerfile.name
    copy.parent.mkdir(exist_ok=True)
    copy.write_bytes(content)
    copy.with_name(f"{copy.name}.dockerignore").write_bytes(ignored)
    return copy


def _unescape(text: str) -> str:
    return text.replace("$${", "${").replace("%%{", "%{")


@dataclass(frozen=True)
class _NamedContext:
    """A context that is sent to a builder under a name; `store` is where that is recorded."""

    key: str
    name: str
    build: str
    snapshot: ContextSnapshot
    store: SentContextStore | None
    cache: Path | None = None

    def finish(self) -> tuple[str, ...]:
        """Compare the context with what was hashed; return the paths that changed, and record which copy to trust."""
        try:
            touched = list_touched(self.snapshot, scan_again(self.snapshot, self.cache))
        except (OSError, LyraError):
            touched = (".",)
        if self.store is not None:
            with self.store.edit() as sent_contexts:
                sent = sent_contexts.get(self.key)
                if sent is not None and self.build in sent.pending:
                    pending = {build: stamp for build, stamp in sent.pending.items() if build != self.build}
                    sent_contexts[self.key] = sent.model_copy(update={"pending": pending})
                    if touched:
                        del sent_contexts[self.key]
        return tuple(display_path(self.snapshot.context / name) for name in touched)


def _create_context(key: ContextKey, builder: str, sources: BuildSources | None) -> _NamedContext:
    context, build = Path(key[0]), secrets.token_hex(8)
    dockerfile = Path(key[1]) if key[1] else None
    snapshot = sources.snapshots.get(key) if sources is not None else None
    if snapshot is None:
        snapshot = scan_directory(context, dockerfile, sources.cache if sources is not None else None)
    if sources is None:
        return _NamedContext("", f"lyra-{build}", build, snapshot, None)
    store, record_key = SentContextStore(sources.state, builder), "\0".join(key)
    with store.edit() as sent_contexts:
        sent = _add_build(sent_contexts.get(record_key), snapshot, build)
        sent_contexts[record_key] = sent
    name = f"{sources.project_id}-{context.name}"[:_MAX_NAME_LENGTH]
    return _NamedContext(record_key, f"{name}-{sent.generation}", build, snapshot, store, sources.cache)


def _add_build(sent: SentContext | None, snapshot: ContextSnapshot, build: str) -> SentContext:
    """Return the record for a build that sends a snapshot, with a new generation where the builder would be misled."""
    files = _list_files(snapshot)
    if sent is None or _is_misleading(sent, files, snapshot.stamp):
        sent = SentContext(generation=secrets.token_hex(6), pending={}, files={})
    merged = {name: {**sent.files.get(name, {}), **versions} for name, versions in files.items()}
    return sent.model_copy(
        update={"pending": {**sent.pending, build: snapshot.stamp}, "files": {**sent.files, **merged}}
    )


def _is_misleading(sent: SentContext, files: Mapping[str, Mapping[str, str]], stamp: str) -> bool:
    """Return whether the builder may hold another content of a file with the same size and time.

    That is known of builds that have ended; of others, only if nothing has changed since they began.
    """
    if any(other_stamp != stamp for other_stamp in sent.pending.values()):
        return True
    if sum(map(len, sent.files.values())) > 4 * len(files) + _MAX_OLD_FILES:
        return True
    return any(
        sent.files[name].get(version, digest) != digest
        for name, versions in files.items()
        if name in sent.files
        for version, digest in versions.items()
    )


def _list_files(snapshot: ContextSnapshot) -> dict[str, dict[str, str]]:
    """Return what the builder may mistake: the content of a file of the same size and time, the mode of a directory."""
    entries = {display_name(name, entry): entry for name, entry in snapshot.entries.items()}
    entries |= {f"./{name}": entry for name, entry in snapshot.build_files.items()}
    files = {}
    for name, entry in entries.items():
        if stat.S_ISREG(entry.mode):
            files[name] = {f"{entry.size} {entry.mtime_ns}": entry.content.sha256}
        elif stat.S_ISDIR(entry.mode):
            files[name] = {"directory": f"{entry.mode:o}"}
    # only compared: a name may hold what must not be recorded
    return {sha256_hex(name.encode("utf-8", "surrogateescape"))[:32]: versions for name, versions in files.items()}
