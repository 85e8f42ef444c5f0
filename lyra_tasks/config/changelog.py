"""What changed between two versions, as Markdown: one section for a tag's message, a bundle, a project's own file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from lyra_tasks.config.commits import Commit

_HEADINGS = {"feat": "Features", "fix": "Fixes", "perf": "Performance", "revert": "Reverts"}
_OTHER = "Other changes"

_COMMIT_PAGES = {
    "github": "commit",
    "gitlab": "-/commit",
    "gitea": "commit",
    "forgejo": "commit",
    "bitbucket": "commits",
}
"""Where a commit is shown, by the software that a host's name says it runs."""


@dataclass(frozen=True)
class Changes:
    """A version, the day of its commit (ISO 8601), the version before it, and the commits between, newest first.

    `previous` is empty for the first version; `source` is the address of the repository, or empty.
    """

    version: str
    day: str
    previous: str
    commits: tuple[Commit, ...]
    source: str = ""


def page(changes: Changes, project: str) -> str:
    """The changes as a document of their own."""
    since = f" since {changes.previous}" if changes.previous else ""
    return f"# {project} {changes.version}: changes{since}\n\n{changes.day}\n\n{body(changes)}"


def section(changes: Changes) -> str:
    """The changes as one section of a project's changelog."""
    return f"## {changes.version} ({changes.day})\n\n{body(changes)}"


def body(changes: Changes) -> str:
    """The changes by kind, what breaks first; every commit is named."""
    link = commit_link(changes.source)
    parts = []
    if breaking := [each for each in changes.commits if each.breaking]:
        parts.append(_list("Breaking changes", [_line(each, each.breaking, link) for each in breaking]))
    for heading in (*_HEADINGS.values(), _OTHER):
        commits = [each for each in changes.commits if _HEADINGS.get(each.kind, _OTHER) == heading]
        if commits:
            parts.append(_list(heading, [_line(each, each.subject, link) for each in commits]))
    return "\n".join(parts) or "No changes.\n"


def merged(existing: str, changes: Changes) -> str:
    """A project's changelog with a new section above the older ones, below the title and what follows it."""
    head, mark, older = f"\n{existing}".partition("\n## ")
    head = head.removeprefix("\n").rstrip("\n") or "# Changelog"
    return (
        "\n\n".join(part for part in (head, section(changes).rstrip("\n"), f"{mark}{older}".strip("\n")) if part) + "\n"
    )


def commit_link(source: str) -> str:
    """The address of a commit's page, up to its id, where the repository's host is of a known kind; else empty."""
    if "://" not in source and ":" in source:
        source = "ssh://" + source.replace(":", "/", 1)
    try:
        parts = urlsplit(source)
        host, number = parts.hostname or "", parts.port
    except ValueError:  # such as ssh://git@host:path, which git takes for a remote as long as nobody uses it
        return ""
    kind = next((label for label in host.split(".") if label in _COMMIT_PAGES), "")
    if parts.scheme not in {"https", "http", "ssh"} or not kind:
        return ""
    path = parts.path.rstrip("/").removesuffix(".git")
    # the port of ssh is not the one that pages are served on
    port = f":{number}" if number and parts.scheme != "ssh" else ""
    scheme = "https" if parts.scheme == "ssh" else parts.scheme
    return f"{scheme}://{host}{port}{path}/{_COMMIT_PAGES[kind]}/"


def _list(heading: str, lines: Sequence[str]) -> str:
    return "\n".join((f"### {heading}", "", *lines)) + "\n"


def _line(commit: Commit, text: str, link: str) -> str:
    scope = f"**{commit.scope}:** " if commit.scope else ""
    shown = f"[{commit.short}]({link}{commit.id})" if link else commit.short
    return f"- {scope}{text} ({shown})"
