"""Parse commit messages (Conventional Commits) and render changelogs from them as Markdown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from lyra_tasks.console.markup import escape_markdown
from lyra_tasks.versions.git import SHORT_ID_LENGTH, run_git

_HEADER_PATTERN = re.compile(r"(?P<type>[A-Za-z]+)(?:\((?P<scope>[^()]+)\))?(?P<bang>!)?: +(?P<subject>\S.*)")
_BREAKING_FOOTER_PATTERN = re.compile(r"^BREAKING[ -]CHANGE: +(?P<description>\S.*)", re.MULTILINE)

_HEADINGS = {"feat": "Features", "fix": "Fixes", "perf": "Performance", "revert": "Reverts"}
_OTHER_HEADING = "Other changes"

# path of commit pages, by the forge named in the host name
_COMMIT_PATHS = {
    "github": "commit",
    "gitlab": "-/commit",
    "gitea": "commit",
    "forgejo": "commit",
    "bitbucket": "commits",
}


@dataclass(frozen=True)
class Commit:
    """A commit and the parts of its message; `type` is empty if the message does not follow the convention."""

    id: str
    type: str
    scope: str
    subject: str
    breaking_change: str

    @property
    def short_id(self) -> str:
        """Return the abbreviated id."""
        return self.id[:SHORT_ID_LENGTH]

    @property
    def summary(self) -> str:
        """Return the first line of the message without its type."""
        return f"{self.scope}: {self.subject}" if self.scope else self.subject


def parse_commit(commit_id: str, message: str) -> Commit:
    """Parse the message of a commit; a message without a known header is the subject as it is."""
    header = message.strip().partition("\n")[0].strip()
    match = _HEADER_PATTERN.fullmatch(header)
    footer = _BREAKING_FOOTER_PATTERN.search(message)
    if match is None:
        return Commit(commit_id, "", "", header, footer["description"] if footer else "")
    breaking = footer["description"] if footer else match["subject"] if match["bang"] else ""
    return Commit(commit_id, match["type"].lower(), match["scope"] or "", match["subject"], breaking)


def list_commits_since(root: Path, tag: str) -> tuple[Commit, ...]:
    """Return the commits of the project since `tag` (all if it is empty), newest first, without merges."""
    revision_range = f"refs/tags/{tag}..HEAD" if tag else "HEAD"
    # at the top of a repository a path limit would only hide empty commits
    path_limit = ("--", ".") if run_git(root, "rev-parse", "--show-prefix").strip() else ()
    output = run_git(
        root,
        "-c", "log.showSignature=false",
        "-c", "i18n.logOutputEncoding=UTF-8",
        "log", "-z", "--no-merges", "--format=tformat:%H%n%B", revision_range, *path_limit,
    )  # fmt: skip
    valid_output = output.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    entries = (entry.partition("\n") for entry in valid_output.split("\0") if entry)
    return tuple(parse_commit(commit_id, message) for commit_id, _, message in entries)


@dataclass(frozen=True)
class VersionChanges:
    """The commits between two versions, newest first; `date` is that of the version's commit, as ISO 8601."""

    version: str
    date: str
    previous: str
    commits: tuple[Commit, ...]
    source_url: str = ""


def render_changelog_page(changes: VersionChanges, project: str) -> str:
    """Render the changes as a page of their own."""
    since = f" since {escape_markdown(changes.previous)}" if changes.previous else ""
    title = f"{escape_markdown(project)} {escape_markdown(changes.version)}"
    return f"# {title}: changes{since}\n\n{changes.date}\n\n{render_changes(changes)}"


def render_changes(changes: VersionChanges) -> str:
    """Render the changes grouped by type, breaking changes first."""
    link = commit_url_prefix(changes.source_url)
    lines: dict[str, list[str]] = {heading: [] for heading in ("Breaking changes", *_HEADINGS.values(), _OTHER_HEADING)}
    for commit in changes.commits:
        if commit.breaking_change:
            lines["Breaking changes"].append(_render_commit(commit, commit.breaking_change, link))
        lines[_HEADINGS.get(commit.type, _OTHER_HEADING)].append(_render_commit(commit, commit.subject, link))
    sections = ["\n".join((f"### {heading}", "", *items)) + "\n" for heading, items in lines.items() if items]
    return "\n".join(sections) or "No changes.\n"


def add_changelog_section(existing: str, changes: VersionChanges) -> str:
    """Insert a section into a project's changelog, below its introduction and above older sections."""
    header, marker, older_sections = f"\n{existing}".partition("\n## ")
    header = header.removeprefix("\n").rstrip("\n") or "# Changelog"
    section = f"## {changes.version} ({changes.date})\n\n{render_changes(changes)}".rstrip("\n")
    parts = (header, section, f"{marker}{older_sections}".strip("\n"))
    return "\n\n".join(part for part in parts if part) + "\n"


def commit_url_prefix(source_url: str) -> str:
    """Return the URL of a commit page without the commit id; empty for an unknown forge."""
    if "://" not in source_url and ":" in source_url:
        source_url = "ssh://" + source_url.replace(":", "/", 1)
    try:
        parts = urlsplit(source_url)
        host, port_number = parts.hostname or "", parts.port
    except ValueError:  # e.g. ssh://git@host:path, which git accepts until the remote is used
        return ""
    forge = next((label for label in host.split(".") if label in _COMMIT_PATHS), "")
    if parts.scheme not in {"https", "http", "ssh"} or not forge:
        return ""
    path = parts.path.rstrip("/").removesuffix(".git")
    # an SSH port says nothing about the web server's
    port = f":{port_number}" if port_number and parts.scheme != "ssh" else ""
    scheme = "https" if parts.scheme == "ssh" else parts.scheme
    return f"{scheme}://{host}{port}{quote(path, safe='/%~@:')}/{_COMMIT_PATHS[forge]}/"


def _render_commit(commit: Commit, text: str, link: str) -> str:
    scope = f"**{escape_markdown(commit.scope)}:** " if commit.scope else ""
    reference = f"[{commit.short_id}]({link}{commit.id})" if link else commit.short_id
    return f"- {scope}{escape_markdown(text)} ({reference})"
