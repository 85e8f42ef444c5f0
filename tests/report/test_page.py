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
UNTOUCHED = {"schema", "at", "outcome", "passed", "started_at", "created", "type"}


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
    (first, _) = measure_images(documents.manifest, {})
    assert first.change == ""
