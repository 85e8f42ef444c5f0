"""What a commit's message says, by the rules of Conventional Commits; every other message is read as it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.config.git import SHORT, git

_HEADER = re.compile(r"(?P<kind>[A-Za-z]+)(?:\((?P<scope>[^()]+)\))?(?P<bang>!)?: +(?P<subject>\S.*)")
_FOOTER = re.compile(r"^BREAKING[ -]CHANGE: +(?P<what>\S.*)", re.MULTILINE)


@dataclass(frozen=True)
class Commit:
    """One commit: its full id, and what its message says.

    `kind` is the type in lower case (`feat`, `fix`, …), empty where the message follows no convention; `breaking` is
    what breaks, empty if nothing does.
    """

    id: str
    kind: str
    scope: str
    subject: str
    breaking: str

    @property
    def short(self) -> str:
        """The id as people read it."""
        return self.id[:SHORT]

    @property
    def text(self) -> str:
        """The first line, without its type."""
        return f"{self.scope}: {self.subject}" if self.scope else self.subject


def read(commit: str, message: str) -> Commit:
    """Read a commit's message."""
    header = message.strip().partition("\n")[0].strip()
    found = _HEADER.fullmatch(header)
    footer = _FOOTER.search(message)
    if found is None:
        return Commit(commit, "", "", header, footer["what"] if footer else "")
    breaking = footer["what"] if footer else found["subject"] if found["bang"] else ""
    return Commit(commit, found["kind"].lower(), found["scope"] or "", found["subject"], breaking)


def commits_since(root: Path, tag: str) -> tuple[Commit, ...]:
    """The commits that HEAD has and `tag` has not (all, if it is empty), newest first, without merges.

    A project in a folder of a larger repository has the commits that touched the folder.
    """
    span = f"refs/tags/{tag}..HEAD" if tag else "HEAD"
    # at the top of a repository a limit would only hide the commits that change no file
    limit = ("--", ".") if git(root, "rev-parse", "--show-prefix").strip() else ()
    answer = git(
        root,
        "-c", "log.showSignature=false",
        "-c", "i18n.logOutputEncoding=UTF-8",
        "log", "-z", "--no-merges", "--format=tformat:%H%n%B", span, *limit,
    )  # fmt: skip
    entries = (entry.partition("\n") for entry in answer.split("\0") if entry)
    return tuple(read(commit, _readable(message)) for commit, _, message in entries)


def _readable(message: str) -> str:
    """A message of another encoding, with what is no text replaced."""
    return message.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
