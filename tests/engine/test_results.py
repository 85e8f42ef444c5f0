"""What tasks return to Python code is what they print with `--json`, on a real engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import Project

CALL = """
import json
from invoke.context import Context
from lyra_tasks import results, tasks

calls = {calls!r}
returned = [getattr(tasks, name)(Context(), quiet=True, **arguments) for name, arguments in calls]
print(json.dumps([results.to_document(result) for result in returned]))
"""
CALLS: list[tuple[str, dict[str, object], tuple[str, ...]]] = [
    ("status", {}, ("status",)),
    ("build", {}, ("build",)),
    ("build", {"dry_run": True}, ("build", "--dry-run")),
    ("test", {}, ("test",)),
    ("test", {"dry_run": True}, ("test", "--dry-run")),
    ("promote", {}, ("promote",)),
    ("promote", {"dry_run": True}, ("promote", "--dry-run")),
    ("release_version", {}, ("release.version",)),
    ("release_list", {}, ("release.list",)),
    ("bundle_list", {}, ("bundle.list",)),
    ("verify", {}, ("verify",)),
    ("diff", {"before": "1.0.0", "after": "1.1.0"}, ("diff", "1.0.0", "1.1.0")),
    (
        "bundle_pack",
        {"version": "1.0.0", "to": ".", "dry_run": True},
        ("bundle.pack", "1.0.0", "--to", ".", "--dry-run"),
    ),
    ("bundle_rehearse", {"version": "1.0.0", "dry_run": True}, ("bundle.rehearse", "1.0.0", "--dry-run")),
    ("explain", {}, ("explain",)),
    ("doctor", {}, ("doctor",)),
    ("stats", {}, ("stats",)),
    ("engine_status", {}, ("engine.status",)),
    ("lock_show", {}, ("lock.show",)),
    ("clean", {"dry_run": True}, ("clean", "--dry-run")),
]
"""A task, its arguments, and the command line that does the same."""
VOLATILE = re.compile(
    r"\d{8}t\d{6}-[0-9a-f]+|\d{4}-\d\d-\d\dT[0-9:.+Z]+|\d+(\.\d+)? (GiB|MiB|KiB|B|s)\b|\b\d+ (?=[a-z])|(?<=: )\d+(?=,)"
)


@pytest.fixture(scope="module")
def released(make_tiny: Callable[[], Project]) -> Iterator[Project]:
    """Return the tiny project with two promoted versions of different content."""
    project = make_tiny()
    project.git("tag", "v1.0.0")
    assert project.lyra("build", "test", "promote", "--quiet").code == 0
    (project.root / "app" / "www" / "more.html").write_text("<p>more</p>")
    project.commit()
    project.git("tag", "v1.1.0")
    outcome = project.lyra("build", "test", "promote", "--quiet")
    assert outcome.code == 0, outcome.text
    yield project
    project.clean()


def printed(project: Project, *arguments: str) -> Any:
    """Return the document that the program prints."""
    outcome = project.lyra(*arguments, "--json")
    assert outcome.code == 0, outcome.text
    return json.loads(outcome.out)


def returned(project: Project, *calls: tuple[str, dict[str, object]]) -> Any:
    """Return the documents of what tasks return to a program of the user."""
    return json.loads(run(project, CALL.format(calls=list(calls))))


def run(project: Project, code: str) -> str:
    """Return the output of a program of the user."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.root,
        env=project.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def stable(value: Any) -> Any:
    """Return a document without times, sizes and ids of runs, which differ from run to run."""
    if isinstance(value, dict):
        return {stable(key): stable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [stable(item) for item in value]
    if isinstance(value, str):
        return VOLATILE.sub("…", value)
    return 0 if isinstance(value, int | float) and not isinstance(value, bool) else value


@pytest.fixture(scope="module")
def documents(released: Project) -> list[tuple[Any, Any]]:
    """Return what the program has printed for each of the calls, and what one program of the user got from all.

    It prints them in reverse order: `status`, which shows the latest runs, is printed last and returned first.
    """
    prints = [printed(released, *options) for _, _, options in reversed(CALLS)][::-1]
    results = returned(released, *((name, arguments) for name, arguments, _ in CALLS))
    return list(zip(prints, results, strict=True))


@pytest.mark.parametrize("number", range(len(CALLS)), ids=[" ".join(options) for _, _, options in CALLS])
def test_task_returns_what_it_prints(documents: list[tuple[Any, Any]], number: int) -> None:
    document, result = documents[number]
    assert stable(result) == stable(document)
    assert document


def test_history_returns_what_it_prints(released: Project) -> None:
    """Runs that only show something are in the journal, but not in the list."""
    document = printed(released, "history")
    run_id = document[0]["id"]
    entries = printed(released, "history", "--run", run_id)
    check = printed(released, "history", "--check")
    calls: list[tuple[str, dict[str, object]]] = [
        ("history", {"check": True}), ("history", {}), ("history", {"run": run_id}),
    ]  # fmt: skip
    assert returned(released, *calls) == [check | {"entries": check["entries"] + 2}, document, entries]


def test_clean_returns_what_it_prints(released: Project) -> None:
    document = printed(released, "clean")
    assert document["removed"]
    assert released.lyra("build", "--quiet").code == 0
    removed = {(item["kind"], item["name"]) for item in document["removed"]}
    (report,) = returned(released, ("clean", {}))
    assert {(item["kind"], item["name"]) for item in report["removed"]} <= removed
    assert report["removed"]
    assert report.keys() == document.keys()
    assert report["before"].keys() == document["before"].keys()


def test_removed_is_nothing_in_dry_run(released: Project) -> None:
    code = (
        "from invoke.context import Context\nfrom lyra_tasks.tasks import build, clean\n"
        "print(clean(Context(), dry_run=True).removed, build(Context(), dry_run=True).images)"
    )
    assert run(released, code).endswith("() {}\n")
