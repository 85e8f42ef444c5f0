"""The report as a pure function of documents, with all values escaped."""

from __future__ import annotations

from dataclasses import fields, replace
from html.parser import HTMLParser
from typing import Any

import pytest

from lyra_tasks.records.documents import ReportDocuments
from lyra_tasks.report.images import count_new_bytes, measure_images
from lyra_tasks.report.page import render_report
from lyra_tasks.report.timeline import WIDTH, build_timelines, draw_curve
from tests.report import samples

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202e\x1b[2J&amp;"
UNTOUCHED = {"schema", "at", "outcome", "passed", "started_at", "created", "type", "severity"}


class Reader(HTMLParser):
    """Elements, attributes, links and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in {"href", "src", "action", "xlink:href"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def poison(value: Any, key: str = "") -> Any:
    """Return the documents with hostile text appended to every string that is free text."""
    if isinstance(value, dict):
        is_event = "at" in value  # its kind is an enumeration
        return {name: item if is_event and name == "kind" else poison(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(poison(item, key) for item in value)
    return value + HOSTILE if isinstance(value, str) and key not in UNTOUCHED else value


def poison_documents(documents: ReportDocuments) -> ReportDocuments:
    return replace(documents, **{field.name: poison(getattr(documents, field.name)) for field in fields(documents)})


def test_report_escapes_hostile_values() -> None:
    documents = samples.bundle(passed=False)
    clean, poisoned = Reader(render_report(documents)), Reader(render_report(poison_documents(documents)))
    assert poisoned.tags == clean.tags
    assert poisoned.tags.isdisjoint({"script", "img", "iframe", "object", "link", "base", "form"})
    assert poisoned.attributes == clean.attributes
    assert all(link.startswith("#") for link in poisoned.links) and poisoned.links
    assert "\u202e" not in poisoned.text and "\x1b" not in poisoned.text
    assert poisoned.text.count("<script>alert(1)</script>") > 300, "it is shown as text"


def test_report_is_reproducible() -> None:
    assert render_report(samples.bundle()) == render_report(samples.bundle())
    assert render_report(samples.bundle()) != render_report(samples.bundle(passed=False))


@pytest.mark.parametrize("passed", [True, False])
def test_report_begins_with_result(passed: bool) -> None:
    text = Reader(render_report(samples.bundle(passed=passed))).text
    result = text.index("Passed" if passed else "Failed")
    assert result < text.index("Checks passed")
    assert ("1 rule is violated: image.setuid" in text) is not passed
    assert ("2 of 5 checks failed: the queue is emptied, metrics count the entry" in text) is not passed
    assert ("Ran out of memory and was killed: worker" in text) is not passed


def test_report_shows_failures_first_with_their_log_lines() -> None:
    text = Reader(render_report(samples.run(passed=False))).text
    failures = text[text.index("What failed") : text.index("Checks passed")]
    for part in ('Asked of worker: GET / answers 200, the body contains "hello"', "status 500, expected 200", "no room",
                 "connection refused", "image.setuid", "/usr/bin/su has mode 4755"):  # fmt: skip
        assert part in failures
    assert "What failed" not in Reader(render_report(samples.run())).text


def test_report_says_who_signs_and_what_changed() -> None:
    text = Reader(render_report(samples.bundle())).text
    head = text[: text.index("Checks passed")]
    assert "releases@example.org" in head and "cccccccccccc" in head
    changes = head[head.index("What changed since 1.2.0") :]
    assert "24 differences" in changes and "default 'hi'" in changes
    assert changes.count("web: deb ") == 12 and "8 more in packages" in changes
    first = replace(samples.bundle(), previous={"version": "", "images": []}, provenance={})
    text = Reader(render_report(first)).text
    assert "No earlier bundle to compare with" in text and "nobody" in text


def test_report_marks_new_and_changed_settings() -> None:
    text = Reader(render_report(samples.bundle())).text
    settings = text[text.index("Marked is what is new or changed since 1.2.0") :]
    assert "GREETING changed" in settings and "worker new" in settings
    assert "Removed since 1.2.0: volumes web: old" in settings


def test_report_marks_how_a_service_runs_differently() -> None:
    documents = samples.bundle()
    for section, name, before, after in (
        ("services", "web: user", "root", "10001:10001"),
        ("limits", "web: memory + tmpfs", "64.0 MiB", "72.0 MiB"),
        ("limits", "web: tmpfs /tmp", None, "1.0 MiB"),
        ("limits", "worker: pids", None, "64"),
    ):
        documents.previous["changes"].append({"section": section, "name": name, "before": before, "after": after})
    text = " ".join(Reader(render_report(documents)).text.split())
    assert text.count("changed: ") == 1, "worker is new"
    assert "64 processes, with egress; needs cache. changed: user, memory + tmpfs, tmpfs /tmp Env" in text


def test_report_says_each_check_and_how_checks_ran() -> None:
    run = samples.run()
    stage = {**run.tests["checks"][0], "name": "lint", "kind": "stage", "service": "", "group": "static"}
    other = {**run.tests["checks"][0], "group": "slow"}
    text = Reader(render_report(run)).text
    assert text.count('GET / answers 200, the body contains "hello"') == 5
    assert "one after the other." in text and "groups" not in text
    grouped = replace(run, tests={**run.tests, "checks": [*run.tests["checks"], stage, other]})
    text = Reader(render_report(grouped)).text
    assert "within each group" in text and "static: lint" in text and "checks of images, without any service" in text


def test_report_lists_vulnerabilities_gravest_first() -> None:
    text = Reader(render_report(samples.bundle())).text
    section = text[text.rindex("Known vulnerabilities") :]
    assert "grype 0.92.2 in data of 2026-11-22 06:00:00 UTC" in section
    assert section.index("CVE-2026-0002") < section.index("CVE-2026-0000") < section.index("CVE-2026-0001")
    assert "web, worker" in section and "33 more are in evidence/vulnerabilities.json" in section
    assert "1 vulnerabilities without a severity not judged" in text
    document: dict[str, Any] = {
        "source": None,
        "problem": "not scanned: grype is not installed",
        "fail_on": "high",
        "images": {},
    }
    unscanned = Reader(render_report(replace(samples.bundle(), vulnerabilities=document))).text
    assert unscanned.index("not scanned: grype is not installed") < unscanned.index("Checks passed")


def test_report_of_run_without_checks_shows_failure() -> None:
    tests = samples.run().tests
    none = ReportDocuments({**tests, "checks": [], "usage": {}, "passed": False}, {"events": [], "services": {}}, {})
    text = Reader(render_report(none)).text
    assert "no check was run" in text
    assert "No container was started" in text


def test_curve_of_many_samples_keeps_peak_and_bounds() -> None:
    values = [(float(second), 10.0) for second in range(5000)]
    values[3333] = (3333.0, 99.0)
    drawn = draw_curve("memory", values, 100.0, [(0, 1, False), (1, 2, False), (2500, 3, True)], 5000, str)
    coordinates = [float(number.lstrip("ML")) for number in drawn.line.split()]
    assert len(coordinates) <= 600
    assert min(coordinates[1::2]) == drawn.peak[1] if drawn.peak else False
    assert max(coordinates[::2]) <= WIDTH
    assert [(mark.label, mark.is_error) for mark in drawn.marks] == [("1–2", False), ("3", True)]  # noqa: RUF001


def test_curve_above_limit_shows_both() -> None:
    drawn = draw_curve("CPU", [(0.0, 0.1), (1.0, 0.9)], 0.5, [], 1.0, str)
    assert drawn.peak is not None
    assert 0 < drawn.peak[1] < drawn.limit_y


@pytest.mark.parametrize("values", [[], [(0.0, 0.0)]])
def test_curve_without_samples_shows_limit(values: list[tuple[float, float]]) -> None:
    drawn = draw_curve("CPU", values, 0.5, [], 0.0, str)
    assert (drawn.line, drawn.area) == ("", "")
    assert drawn.limit_y < 50


def test_timeline_events_have_their_log_line() -> None:
    web, worker = build_timelines(samples.run(passed=False))
    events = {event.description: event for event in worker.events}
    assert '"/jobs/238"' in events["exited: out of memory"].log_line
    assert events["check: the queue is emptied"].outcome == "failed"
    assert list(web.events) == sorted(web.events, key=lambda event: event.seconds)
    started = web.events[0]
    assert (started.description, started.seconds) == ("started", 0.0)
    assert '"/jobs/0"' in started.log_line, "the first line of the service"
    entry = next(event for event in web.events if event.description == "check: an entry is taken")
    assert '"/jobs/42"' in entry.log_line, "the first line since the start of the check"


def test_layers_are_compared_with_previous_version() -> None:
    documents = samples.bundle()
    web, worker = measure_images(documents.manifest, documents.previous)
    assert [layer.is_known for layer in web.layers] == [True, False, False]
    assert (web.change, worker.change) == ("3.8 MiB smaller than before", "new image")
    assert [layer.is_known for layer in worker.layers] == [True, False, False], "a layer is known from any image"
    assert count_new_bytes(documents.manifest, documents.previous) == (4 + 1 + 58 + 2) * samples.MEGABYTE
    assert web.layer_sizes == ("29.6 MiB", "3.8 MiB new", "976.6 KiB new")
    (first, _) = measure_images(documents.manifest, {})
    assert first.change == ""
