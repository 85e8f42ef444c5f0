"""The report as text: a pure function of documents, in which nothing from outside can act."""

from __future__ import annotations

from dataclasses import fields, replace
from html.parser import HTMLParser
from typing import Any

import pytest

from lyra_tasks.records.documents import ReportDocuments
from lyra_tasks.report.curves import WIDTH, draw_curve
from lyra_tasks.report.images import count_new_bytes, measure_images
from lyra_tasks.report.page import render_report
from lyra_tasks.report.timeline import build_timelines
from tests.report import samples

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202e\x1b[2J&amp;"
KEPT = {"schema", "at", "what", "outcome", "passed", "started_at", "created", "type"}


class Reader(HTMLParser):
    """Which elements and attributes a page has, and its text."""

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


def poisoned(value: Any, key: str = "") -> Any:
    """The same documents, with something hostile at the end of every free text, and in every name."""
    if isinstance(value, dict):
        return {name: poisoned(each, str(name)) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(poisoned(each, key) for each in value)
    return value + HOSTILE if isinstance(value, str) and key not in KEPT else value


def hostile(documents: ReportDocuments) -> ReportDocuments:
    return replace(documents, **{each.name: poisoned(getattr(documents, each.name)) for each in fields(documents)})


def test_nothing_from_outside_becomes_a_part_of_the_page() -> None:
    documents = samples.bundle(passed=False)
    clean, found = Reader(render_report(documents)), Reader(render_report(hostile(documents)))
    assert found.tags == clean.tags
    assert found.tags.isdisjoint({"script", "img", "iframe", "object", "link", "base", "form"})
    assert found.attributes == clean.attributes
    assert all(link.startswith("#") for link in found.links) and found.links
    assert "\u202e" not in found.text and "\x1b" not in found.text
    assert found.text.count("<script>alert(1)</script>") > 300, "it was put in, and is shown as what it is"


def test_the_same_documents_give_the_same_bytes() -> None:
    assert render_report(samples.bundle()) == render_report(samples.bundle())
    assert render_report(samples.bundle()) != render_report(samples.bundle(passed=False))


@pytest.mark.parametrize("passed", [True, False])
def test_the_verdict_comes_first(passed: bool) -> None:
    text = Reader(render_report(samples.bundle(passed=passed))).text
    verdict = text.index("Passed" if passed else "Failed")
    assert verdict < text.index("Checks passed")
    assert ("1 rule is not kept: image.setuid" in text) is not passed
    assert ("2 of 5 checks did not pass: the queue is emptied, metrics count the entry" in text) is not passed
    assert ("Ran out of memory and was killed: worker" in text) is not passed


def test_a_run_that_made_no_check_has_failed_and_has_a_page() -> None:
    tests = samples.run().tests
    none = ReportDocuments({**tests, "checks": [], "use": {}, "passed": False}, {"events": [], "services": {}}, {})
    text = Reader(render_report(none)).text
    assert "none was made" in text
    assert "No container was started" in text


def test_of_many_samples_the_peak_is_drawn_and_nothing_leaves_the_drawing() -> None:
    values = [(float(second), 10.0) for second in range(5000)]
    values[3333] = (3333.0, 99.0)
    drawn = draw_curve("memory", values, 100.0, [(0, 1, False), (1, 2, False), (2500, 3, True)], 5000, str)
    coordinates = [float(each.lstrip("ML")) for each in drawn.line.split()]
    assert len(coordinates) <= 600
    assert min(coordinates[1::2]) == drawn.peak[1] if drawn.peak else False
    assert max(coordinates[::2]) <= WIDTH
    assert [(mark.label, mark.is_error) for mark in drawn.marks] == [("1–2", False), ("3", True)]  # noqa: RUF001


def test_a_curve_above_its_limit_shows_both() -> None:
    drawn = draw_curve("CPU", [(0.0, 0.1), (1.0, 0.9)], 0.5, [], 1.0, str)
    assert drawn.peak is not None
    assert 0 < drawn.peak[1] < drawn.limit_y


@pytest.mark.parametrize("samples_seen", [[], [(0.0, 0.0)]])
def test_without_samples_there_is_still_a_limit_to_see(samples_seen: list[tuple[float, float]]) -> None:
    drawn = draw_curve("CPU", samples_seen, 0.5, [], 0.0, str)
    assert (drawn.line, drawn.area) == ("", "")
    assert drawn.limit_y < 50


def test_an_instant_has_the_log_line_of_that_moment_and_an_end_by_memory_is_told() -> None:
    web, worker = build_timelines(samples.run(passed=False))
    told = {each.description: each for each in worker.events}
    assert '"/jobs/238"' in told["ended: out of memory"].log_line
    assert told["check: the queue is emptied"].outcome == "failed"
    assert [each.number for each in web.events] == list(range(1, len(web.events) + 1))
    started = web.events[0]
    assert (started.description, started.seconds) == ("started", 0.0)
    assert '"/jobs/0"' in started.log_line, "the first that it printed"
    entry = next(each for each in web.events if each.description == "check: an entry is taken")
    assert '"/jobs/42"' in entry.log_line, "the first line since the check began"


def test_layers_are_compared_with_the_version_before() -> None:
    documents = samples.bundle()
    web, worker = measure_images(documents.manifest, documents.previous)
    assert [layer.is_known for layer in web.layers] == [True, False, False]
    assert (web.change, worker.change) == ("4.0 MB less than before", "an image that is new")
    assert [layer.is_known for layer in worker.layers] == [True, False, False], "a blob is the same in whichever image"
    assert count_new_bytes(documents.manifest, documents.previous) == (4 + 1 + 58 + 2) * samples.MEGABYTE
    (first, _) = measure_images(documents.manifest, {})
    assert first.change == ""
