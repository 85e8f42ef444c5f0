"""What a commit's message says, by the rules of Conventional Commits; every other message is read as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lyra_tasks.versions.git import SHORT_ID_LENGTH, run_git

_HEADER_PATTERN = re.compile(r"(?P<kind>[A-Za-z]+)(?:\((?P<scope>[^()]+)\))?(?P<bang>!)?: +(?P<subject>\S.*)")
_BREAKING_FOOTER_PATTERN = re.compile(r"^BREAKING[ -]CHANGE: +(?P<what>\S.*)", re.MULTILINE)


@dataclass(frozen=True)
class Commit:
    """One commit: its full id, and what its message says.

    `kind` is the type in lower case (`feat`, `fix`, …), empty where the message follows no convention; `breaking` is
    what breaks, empty if nothing does.
    """

    id: str
    type: str
    scope: str
    subject: str
    breaking_change: str

    @property
    def short_id(self) -> str:
        """The id as people read it."""
        return self.id[:SHORT_ID_LENGTH]

    @property
    def summary(self) -> str:
        """The first line, without its type."""
        return f"{self.scope}: {self.subject}" if self.scope else self.subject


def parse_commit(commit_id: str, message: str) -> Commit:
    """Read a commit's message."""
    header = message.strip().partition("\n")[0].strip()
    match = _HEADER_PATTERN.fullmatch(header)
    footer = _BREAKING_FOOTER_PATTERN.search(message)
    if match is None:
        return Commit(commit_id, "", "", header, footer["what"] if footer else "")
    breaking = footer["what"] if footer else match["subject"] if match["bang"] else ""
    return Commit(commit_id, match["kind"].lower(), match["scope"] or "", match["subject"], breaking)


def list_commits_since(root: Path, tag: str) -> tuple[Commit, ...]:
    """The commits that HEAD has and `tag` has not (all, if it is empty), newest first, without merges.

    A project in a folder of a larger repository has the commits that touched the folder.
    """
    revision_range = f"refs/tags/{tag}..HEAD" if tag else "HEAD"
    # at the top of a repository a limit would only hide the commits that change no file
    path_limit = ("--", ".") if run_git(root, "rev-parse", "--show-prefix").strip() else ()
    output = run_git(
        root,
        "-c", "log.showSignature=false",
        "-c", "i18n.logOutputEncoding=UTF-8",
        "log", "-z", "--no-merges", "--format=tformat:%H%n%B", revision_range, *path_limit,
    )  # fmt: skip
    entries = (entry.partition("\n") for entry in output.split("\0") if entry)
    return tuple(parse_commit(commit, _replace_undecodable(message)) for commit, _, message in entries)


def _replace_undecodable(message: str) -> str:
    """A message of another encoding, with what is no text replaced."""
    return message.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


_HEADINGS = {"feat": "Features", "fix": "Fixes", "perf": "Performance", "revert": "Reverts"}
_OTHER_HEADING = "Other changes"

_COMMIT_PATHS = {
    "github": "commit",
    "gitlab": "-/commit",
    "gitea": "commit",
    "forgejo": "commit",
    "bitbucket": "commits",
}
"""Where a commit is shown, by the software that a host's name says it runs."""


@dataclass(frozen=True)
class VersionChanges:
    """A version, the day of its commit (ISO 8601), the version before it, and the commits between, newest first.

    `previous` is empty for the first version; `source` is the address of the repository, or empty.
    """

    version: str
    date: str
    previous: str
    commits: tuple[Commit, ...]
    source_url: str = ""


def render_changelog_page(changes: VersionChanges, project: str) -> str:
    """The changes as a document of their own."""
    since = f" since {changes.previous}" if changes.previous else ""
    return f"# {project} {changes.version}: changes{since}\n\n{changes.date}\n\n{render_changes(changes)}"


def render_changelog_section(changes: VersionChanges) -> str:
    """The changes as one section of a project's changelog."""
    return f"## {changes.version} ({changes.date})\n\n{render_changes(changes)}"


def render_changes(changes: VersionChanges) -> str:
    """The changes by kind, what breaks first; every commit is named."""
    link = commit_url_prefix(changes.source_url)
    parts = []
    if breaking_commits := [commit for commit in changes.commits if commit.breaking_change]:
        parts.append(
            _render_list(
                "Breaking changes",
                [_render_commit(commit, commit.breaking_change, link) for commit in breaking_commits],
            )
        )
    for heading in (*_HEADINGS.values(), _OTHER_HEADING):
        commits = [commit for commit in changes.commits if _HEADINGS.get(commit.type, _OTHER_HEADING) == heading]
        if commits:
            parts.append(_render_list(heading, [_render_commit(commit, commit.subject, link) for commit in commits]))
    return "\n".join(parts) or "No changes.\n"


def add_changelog_section(existing: str, changes: VersionChanges) -> str:
    """A project's changelog with a new section above the older ones, below the title and what follows it."""
    header, marker, older_sections = f"\n{existing}".partition("\n## ")
    header = header.removeprefix("\n").rstrip("\n") or "# Changelog"
    return (
        "\n\n".join(
            part
            for part in (
                header,
                render_changelog_section(changes).rstrip("\n"),
                f"{marker}{older_sections}".strip("\n"),
            )
            if part
        )
        + "\n"
    )


def commit_url_prefix(source_url: str) -> str:
    """The address of a commit's page, up to its id, where the repository's host is of a known kind; else empty."""
    if "://" not in source_url and ":" in source_url:
        source_url = "ssh://" + source_url.replace(":", "/", 1)
    try:
        parts = urlsplit(source_url)
        host, port_number = parts.hostname or "", parts.port
    except ValueError:  # such as ssh://git@host:path, which git takes for a remote as long as nobody uses it
        return ""
    forge = next((label for label in host.split(".") if label in _COMMIT_PATHS), "")
    if parts.scheme not in {"https", "http", "ssh"} or not forge:
        return ""
    path = parts.path.rstrip("/").removesuffix(".git")
    # the port of ssh is not the one that pages are served on
    port = f":{port_number}" if port_number and parts.scheme != "ssh" else ""
    scheme = "https" if parts.scheme == "ssh" else parts.scheme
    return f"{scheme}://{host}{port}{path}/{_COMMIT_PATHS[forge]}/"


def _render_list(heading: str, lines: Sequence[str]) -> str:
    return "\n".join((f"### {heading}", "", *lines)) + "\n"


def _render_commit(commit: Commit, text: str, link: str) -> str:
    scope = f"**{commit.scope}:** " if commit.scope else ""
    reference = f"[{commit.short_id}]({link}{commit.id})" if link else commit.short_id
    return f"- {scope}{text} ({reference})"
