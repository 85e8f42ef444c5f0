"""The report in a real browser: no console output, no requests, readable on phones and with screen readers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lyra_tasks.report.page import render_report
from tests.report import samples
from tests.report.browser import Page, axe, browsing, chromium

pytestmark = pytest.mark.slow

VIOLATIONS = """axe.run(document, {resultTypes: ['violations']}).then(result => result.violations.map(
  item => item.id + ': ' + item.nodes.slice(0, 3).map(node => node.html.slice(0, 200)).join(' | ')))"""
OVERFLOW = """[...document.querySelectorAll('body *')].filter(
  item => item.getBoundingClientRect().right > WIDTH + 1 && !item.closest('thead')).map(
  item => item.outerHTML.slice(0, 120))"""
UNFOLD = "document.querySelectorAll('details').forEach(item => { item.open = true })"


@pytest.fixture(scope="module")
def browser(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A headless browser; if it is not available, the tests fail: skipping would leave the page untested."""
    with browsing(chromium(cache), tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def accessibility(cache: Path) -> str:
    return axe(cache)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A complete report of a bundle, with short package lists."""
    documents = samples.bundle(passed=False)
    for sbom in documents.sboms.values():
        del sbom["components"][8:]
    file = tmp_path / "report.html"
    file.write_text(render_report(documents), encoding="utf-8")
    return file


def test_browser_detects_bad_page(browser: Page, accessibility: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<title>bad</title><script>console.error('oh')</script><img src='http://example.org/x.png'>"
        "<p style='width: 900px; color: #bbb'>too wide and too pale</p>"
    )
    del browser.said[:], browser.asked[:]
    browser.look(bad, width=360)
    assert any("oh" in line for line in browser.said)
    assert "http://example.org/x.png" in browser.asked
    assert browser.run(OVERFLOW.replace("WIDTH", "360"))
    browser.run(accessibility)
    rules = {violation.partition(":")[0] for violation in browser.run(VIOLATIONS)}
    assert {"image-alt", "color-contrast", "html-has-lang"} <= rules


@pytest.mark.parametrize(("width", "dark"), [(360, False), (360, True), (1280, False), (1280, True)])
def test_report_is_silent_offline_and_accessible(
    browser: Page, accessibility: str, report: Path, width: int, dark: bool
) -> None:
    del browser.said[:], browser.asked[:]
    browser.look(report, width=width, dark=dark)
    browser.run(UNFOLD)
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, paper.removeprefix("rgb(").removesuffix(")").split(","))) < 100 or not dark
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(OVERFLOW.replace("WIDTH", str(width))) == []
    if dark == (width == 360):
        browser.run(accessibility)
        assert browser.run(VIOLATIONS) == []
    assert browser.said == []
    assert browser.asked == [report.as_uri()]


def test_printed_report_is_short_and_needs_no_unfolding(browser: Page, report: Path, tmp_path: Path) -> None:
    browser.look(report, width=1280)
    folded = browser.run("document.querySelectorAll('details:not([open])').length")
    assert folded > 2
    height = "document.documentElement.scrollHeight"
    browser.media("print")
    printed = browser.run(height)
    browser.run(UNFOLD)
    assert browser.run(height) == printed, "unfolding adds nothing"
    assert browser.run("document.querySelector('#resources p').innerText").endswith("start of the first container.")
    left_of_text = "document.querySelector('.failures h2').getBoundingClientRect().left"
    assert browser.run(f"{left_of_text} - document.querySelector('.failures').getBoundingClientRect().left") > 8
    browser.media("")
    data = browser.printed()
    assert data.startswith(b"%PDF") and 2 < data.count(b"/Type /Page\n") <= 6
