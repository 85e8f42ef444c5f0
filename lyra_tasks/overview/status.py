"""status: what is built, tested, promoted or stale, what runs and what is left, as a value; and the next sensible word.

What is shown depends on the files as they are now and on what the engine says; without an engine, on the files alone.
"""

from __future__ import annotations

import datetime
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lyra_tasks import console

_EXPIRY_WARNING_DAYS = 30
"""Days before its end from which on a deviation is pointed at."""


@dataclass(frozen=True)
class ImageRow:
    """One image: its last build (empty before the first), and why it is not current, or nothing."""

    name: str
    version: str
    commit: str
    dirty: bool
    built_at: str
    size: int
    digest: str
    problem: str


@dataclass(frozen=True)
class TestStatus:
    """The last verdict over the set as it is; `rules` counts the results of the rules by outcome.

    `refused` is what stands against a promotion although it passed, or nothing.
    """

    passed: bool
    run: str
    started_at: str
    check_count: int
    failed: tuple[str, ...]
    rule_outcomes: dict[str, int]
    promotion_refusal: str = ""

    __test__ = False


@dataclass(frozen=True)
class DeviationRow:
    """A deviation, and how many days it still holds; below zero: it has ended."""

    rule: str
    scope: str
    owner: str
    expires: datetime.date
    days_left: int

    @property
    def expires_soon(self) -> bool:
        """Whether somebody should look at it now."""
        return self.days_left < _EXPIRY_WARNING_DAYS


@dataclass(frozen=True)
class LabService:
    """A container of a lab: its state in the engine's word, ports by name, use now (None where it does not run)."""

    name: str
    state: str
    ports: dict[str, str]
    memory: int | None
    memory_limit: int
    cpu: float | None
    cpu_limit: float


@dataclass(frozen=True)
class LabRow:
    """A lab that runs: `kind` is `development`, `test` while its process is at work, or `kept running`."""

    run: str
    kind: str
    services: tuple[LabService, ...]


@dataclass(frozen=True)
class RunRow:
    """A run of the journal: what was typed, when, how its words ended (word, exit code, seconds)."""

    run: str
    started_at: str
    command: str
    tasks: tuple[tuple[str, int, float], ...]


@dataclass(frozen=True)
class BundleRow:
    """A version that was promoted, and the set that it holds."""

    version: str
    set_digest: str


@dataclass(frozen=True)
class Status:
    """Everything that `status` shows. `engine` says what it is, or why there is none; `unknown` what was not asked."""

    project: str
    version: str
    branch: str
    commit: str
    dirty: bool
    engine: str
    has_engine: bool
    images: tuple[ImageRow, ...]
    test: TestStatus | None
    unknown_reason: str
    promoted_version: str
    newest_version: str
    deviations: tuple[DeviationRow, ...]
    labs: tuple[LabRow, ...]
    leftovers: tuple[str, ...]
    runs: tuple[RunRow, ...]
    next_command: str
    next_reason: str


def deviation_rows(
    deviations: Sequence[tuple[str, str, str, datetime.date]], today: datetime.date
) -> list[DeviationRow]:
    """Deviations (rule, scope, owner, end), the one that ends first at the top."""
    rows = [DeviationRow(*deviation, days_left=(deviation[3] - today).days) for deviation in deviations]
    return sorted(rows, key=lambda row: (row.expires, row.rule, row.scope))


def suggest_next_step(
    images: Sequence[ImageRow],
    test: TestStatus | None,
    promoted_version: str,
    deviations: Sequence[DeviationRow],
    leftovers: Sequence[str],
    *,
    dirty: bool,
) -> tuple[str, str]:
    """The word to type next, and why; the word is empty where something has to be mended by hand first."""
    expired = next((row for row in deviations if row.days_left < 0), None)
    stale_images = [image for image in images if image.problem]
    if not images:
        return "", "there is no image in the configuration: write an [images.NAME] table"
    if expired is not None:
        return "", f"the deviation from {expired.rule} for {expired.scope} has ended: keep the rule, or renew it"
    if leftovers:
        return "clean", "a run that was killed has left something behind"
    if stale_images:
        return "build", f"{stale_images[0].name} {stale_images[0].problem}"
    if test is None:
        return "test", "this set has not been tested"
    if not test.passed:
        return "", f"mend what failed ({', '.join(test.failed) or 'no check was made'}), then `build test`"
    if test.promotion_refusal and not promoted_version:
        return "", f"`promote` would refuse {test.promotion_refusal}: write a [[deviations]] entry, then `test promote`"
    if not promoted_version:
        return "promote", "this set has passed, and is in no bundle"
    if dirty:
        return "", f"all is done for these files: {promoted_version}; commit them before a release"
    return "", f"all is done for this commit: {promoted_version}"


_LABEL_WIDTH = 11
_MAX_LEFTOVERS = 6


def print_status(status: Status) -> None:
    """The screen, or with `--json` everything that it is made of."""
    if console.is_json_mode():
        return console.print_json(status_document(status))
    for line in status_lines(status, console.terminal_width()):
        console.print(line)
    return None


def status_document(status: Status) -> dict[str, Any]:
    """The status as plain JSON."""
    document = asdict(status)
    for row, deviation in zip(document["deviations"], status.deviations, strict=True):
        row |= {"expires": deviation.expires.isoformat(), "ends_soon": deviation.expires_soon}
    for run in document["runs"]:
        run["words"] = [{"word": task, "exit_code": code, "seconds": seconds} for task, code, seconds in run["words"]]
    return {"schema": "lyra.status/1", **document}


def status_lines(status: Status, width: int) -> list[str]:
    """The lines for a terminal of this width."""
    lines: list[str] = []
    rows = list(_status_rows(status))
    column = max(_LABEL_WIDTH, *(len(label) + 2 for label, _ in rows))
    for label, text in rows:
        style = ("bold",) if label == "next" else ("dim",)
        folded = textwrap.wrap(text, max(width - column, 30), break_on_hyphens=False) or [""]
        for number, part in enumerate(folded):
            head = console.style(label.ljust(column), *style) if label and number == 0 else " " * column
            lines.append((head + part if text else "").rstrip())
    return lines


def _status_rows(status: Status) -> Iterator[tuple[str, str]]:
    """Label and text of every row; a row without either is an empty line."""
    changes = ", uncommitted changes" if status.dirty else ""
    yield status.project, f"{status.version}, {status.branch or 'no branch'} at {status.commit}{changes}"
    yield "engine", status.engine
    yield "", ""
    yield from _image_lines(status)
    yield "", ""
    yield "tested", _test_summary(status)
    yield "promoted", _promotion_summary(status)
    yield from _rule_lines(status)
    yield from _lab_lines(status)
    if status.leftovers:
        omitted = (
            f" and {len(status.leftovers) - _MAX_LEFTOVERS} more" if len(status.leftovers) > _MAX_LEFTOVERS else ""
        )
        yield "left over", f"{', '.join(status.leftovers[:_MAX_LEFTOVERS])}{omitted}"
    yield "", ""
    yield from _run_lines(status)
    yield "next", f"`{status.next_command}`: {status.next_reason}" if status.next_command else status.next_reason


def _image_lines(status: Status) -> Iterator[tuple[str, str]]:
    widest = max((len(image.version) for image in status.images), default=0)
    for image in status.images:
        if not image.version:
            yield image.name, image.problem
            continue
        state = f"stale: {image.problem}" if image.problem else _image_state(status)
        commit = "" if image.commit in image.version else f"{image.commit}  "
        built = f"{image.version.ljust(widest)}  {commit}{console.format_bytes(image.size):>8}"
        yield image.name, f"{built}  {state}"


def _image_state(status: Status) -> str:
    if status.test is None:
        return "built, " + ("test not known" if status.unknown_reason else "not tested")
    if not status.test.passed:
        return "built, test failed"
    return "tested, promoted" if status.promoted_version else "tested, not promoted"


def _test_summary(status: Status) -> str:
    test = status.test
    if test is None:
        return (
            f"not known: {status.unknown_reason}"
            if status.unknown_reason
            else "not this set of images, services and tests"
        )
    when = f"on {_format_time(test.started_at)} (run {test.run})"
    if test.passed:
        return f"{test.check_count} of {test.check_count} checks passed {when}"
    return f"failed {when}: {', '.join(test.failed) or 'no check was made'}"


def _promotion_summary(status: Status) -> str:
    if status.promoted_version:
        return f"this set, as {status.promoted_version}"
    return f"not this set; the newest bundle is {status.newest_version}" if status.newest_version else "nothing yet"


def _rule_lines(status: Status) -> Iterator[tuple[str, str]]:
    rules = status.test.rule_outcomes if status.test else {}
    if rules:
        yield "rules", ", ".join(f"{count} {outcome}" for outcome, count in sorted(rules.items()))
    for deviation in status.deviations:
        if deviation.days_left < 0:
            end = f"ended on {deviation.expires}: what it covers fails"
        else:
            soon = (
                f", in {deviation.days_left} day{'' if deviation.days_left == 1 else 's'}"
                if deviation.expires_soon
                else ""
            )
            end = f"until {deviation.expires}{soon}"
        yield "deviation", f"{deviation.rule} for {deviation.scope} ({deviation.owner}) {end}"


def _lab_lines(status: Status) -> Iterator[tuple[str, str]]:
    for lab in status.labs:
        yield "lab", f"{lab.kind}, run {lab.run}"
        for service in lab.services:
            yield "", _service_line(service)


def _service_line(service: LabService) -> str:
    ports = "".join(f", {name} at {address}" for name, address in sorted(service.ports.items()))
    if service.memory is None:
        return f"  {service.name}: {service.state}{ports}"
    memory = f"{console.format_bytes(service.memory)} of {console.format_bytes(service.memory_limit)}"
    return f"  {service.name}: {service.state}{ports}, {memory}, {service.cpu:.2f} of {service.cpu_limit:g} CPUs"


def _run_lines(status: Status) -> Iterator[tuple[str, str]]:
    for number, run in enumerate(status.runs):
        failure = next((f"{task} ended with {code}" for task, code, _ in run.tasks if code), "")
        seconds = sum(seconds for *_, seconds in run.tasks)
        outcome = failure or (f"done in {seconds:.1f} s" if run.tasks else "did not end in order, or is at work")
        yield "" if number else "last runs", f"{_format_time(run.started_at)}  {run.command}: {outcome}"
    if status.runs:
        yield "", ""


def _format_time(timestamp: str) -> str:
    return timestamp[:16].replace("T", " ")
