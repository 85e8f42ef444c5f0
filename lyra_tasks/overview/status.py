"""The status of a checkout on one screen, and the command to run next."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lyra_tasks import console
from lyra_tasks.cleanup.storage import describe_expired
from lyra_tasks.overview.explain import REMAINING_TASKS, Progress, assess_progress
from lyra_tasks.results.overview import DeviationRow, ImageRow, Status, TestStatus

_LABEL_WIDTH = 11
_MAX_LEFTOVERS = 6


@dataclass(frozen=True)
class BundleRow:
    """A promoted version, and the digest of its set of images."""

    version: str
    set_digest: str


def suggest_next_step(
    images: Sequence[ImageRow],
    test: TestStatus | None,
    promoted_version: str,
    deviations: Sequence[DeviationRow],
    leftovers: Sequence[str],
    *,
    dirty: bool,
) -> tuple[str, str]:
    """Return the command to run next and its reason; the command is empty if something must be done by hand."""
    if not images:
        return "", "no images configured: add an [images.NAME] or a [services.NAME] table"
    if leftovers:
        return "clean", "a killed run has left objects behind"
    stale = next((f"{image.name} {image.problem}" for image in images if image.problem and not image.origin), "")
    unfetched = next((f"{image.name} {image.problem}" for image in images if image.problem and image.origin), "")
    failures = ", ".join(test.failed) or "no check was run" if test and not test.passed else ""
    refusals = [
        f"{item.scope} (the deviation from {item.rule} has expired)" for item in deviations if item.state == "expired"
    ]
    refusals += [test.promotion_refusal] if test and test.passed and test.promotion_refusal else []
    progress = assess_progress(
        is_stale=bool(stale),
        is_tested=test is not None and not unfetched,
        has_failures=bool(failures),
        is_refused=bool(refusals),
        is_promoted=bool(promoted_version) and not failures,
    )
    promoted = f"these files are promoted as {promoted_version}; commit them before a release"
    reasons: dict[Progress, str] = {
        "stale": stale,
        "untested": unfetched or "this set is not tested",
        "failed": f"fix the failing checks ({failures}), then run `{REMAINING_TASKS['failed']}`",
        "refused": f"`promote` would refuse {'; '.join(refusals)}: comply, or add or renew a deviation, then run "
        f"`{REMAINING_TASKS['refused']}`",
        "tested": "this set passed, and is not in a bundle",
        "promoted": promoted if dirty else f"this commit is promoted as {promoted_version}",
    }
    by_hand = progress in {"failed", "refused"}
    return "" if by_hand else REMAINING_TASKS[progress], reasons[progress]


def show_status(status: Status) -> Status:
    """Show the status on one screen."""
    if not console.print_result(status):
        for line in status_lines(status, console.terminal_width()):
            console.print(line)
    return status


def status_lines(status: Status, width: int) -> list[str]:
    """Return the lines for a terminal of this width; nothing is truncated."""
    lines: list[str] = []
    rows = list(_status_rows(status))
    column = max(_LABEL_WIDTH, *(len(label) + 2 for label, _ in rows))
    for label, text in rows:
        style = ("bold",) if label == "next" else ("dim",)
        folded = textwrap.wrap(console.name_program(text), max(width - column, 30), break_on_hyphens=False) or [""]
        for number, part in enumerate(folded):
            head = console.style(label.ljust(column), *style) if label and number == 0 else " " * column
            lines.append((head + part if text else "").rstrip())
    return lines


def _status_rows(status: Status) -> Iterator[tuple[str, str]]:
    """Yield label and text of every row; both are empty for an empty line."""
    changes = ", uncommitted changes" if status.dirty else ""
    yield (
        status.project,
        f"{status.version}, {console.escape(status.branch) or 'no branch'} at {status.commit}{changes}",
    )
    yield "engine", status.engine
    for engine in status.not_asked:
        yield "not asked", engine
    yield "", ""
    yield from _image_lines(status)
    yield "", ""
    yield "tested", _test_summary(status)
    yield "promoted", _promotion_summary(status)
    yield from _rule_lines(status)
    yield from _lab_lines(status)
    if status.leftovers:
        omitted = len(status.leftovers) - _MAX_LEFTOVERS
        more = f" and {omitted} more" if omitted > 0 else ""
        yield "leftovers", f"{', '.join(status.leftovers[:_MAX_LEFTOVERS])}{more}"
    yield from _storage_lines(status)
    yield "", ""
    yield from _run_lines(status)
    yield "next", f"`{status.next_command}`: {status.next_reason}" if status.next_command else status.next_reason


def _image_lines(status: Status) -> Iterator[tuple[str, str]]:
    widest = max((len(image.version or image.origin) for image in status.images), default=0)
    for image in status.images:
        if not image.digest:
            yield image.name, f"{image.origin}  {image.problem}".strip()
            continue
        state = f"stale: {image.problem}" if image.problem else _image_state(status, image)
        commit = "" if image.commit in image.version else f"{image.commit}  "
        version = console.escape(image.version or image.origin).ljust(widest)
        built = f"{version}  {commit}{console.format_bytes(image.size):>8}"
        yield image.name, f"{built}  {state}"


def _image_state(status: Status, image: ImageRow) -> str:
    step = "fetched" if image.origin else "built"
    if status.test is None:
        return f"{step}, " + ("test unknown" if status.unknown_reason else "not tested")
    if not status.test.passed:
        return f"{step}, test failed"
    return "tested, promoted" if status.promoted_version else "tested, not promoted"


def _test_summary(status: Status) -> str:
    test = status.test
    if test is None:
        return f"unknown: {status.unknown_reason}" if status.unknown_reason else "not with these files"
    when = f"on {_format_time(test.started_at)} (run {test.run})"
    if test.passed:
        return f"{test.check_count} of {test.check_count} checks passed {when}"
    return f"failed {when}: {', '.join(test.failed) or 'no check was run'}"


def _promotion_summary(status: Status) -> str:
    if status.promoted_version:
        return f"this set, as {status.promoted_version}"
    return f"not this set; the newest bundle is {status.newest_version}" if status.newest_version else "nothing yet"


def _rule_lines(status: Status) -> Iterator[tuple[str, str]]:
    rules = status.test.rule_outcomes if status.test else {}
    if rules:
        yield "rules", ", ".join(f"{count} {outcome}" for outcome, count in sorted(rules.items()))
    for deviation in status.deviations:
        if deviation.state == "expired":
            end = f"expired on {deviation.expires}: violations fail"
        else:
            soon = f", in {console.format_count(deviation.days_left, 'day')}" if deviation.expires_soon else ""
            end = f"until {deviation.expires}{soon}"
        yield "deviation", f"{deviation.rule} for {deviation.scope} ({deviation.owner}) {end}"


def _lab_lines(status: Status) -> Iterator[tuple[str, str]]:
    for lab in status.labs:
        yield "lab", f"{lab.kind}, run {lab.run}"
        for service in lab.services:
            ports = "".join(f", {name} at {address}" for name, address in sorted(service.ports.items()))
            usage = ""
            if service.memory is not None:
                memory = f"{console.format_bytes(service.memory)} of {console.format_bytes(service.memory_limit)}"
                cpus = console.format_count(service.cpu_limit, "CPU")
                usage = f", {memory} for memory and files, {service.cpu:.2f} of {cpus}"
            yield "", f"  {service.name}: {service.state}{ports}{usage}"


def _storage_lines(status: Status) -> Iterator[tuple[str, str]]:
    rows = [row for row in status.storage if row.count]
    sizes = {row.title: f", {console.format_bytes(row.size)}" if row.size else "" for row in rows}
    if rows:
        yield "stored", "; ".join(f"{row.title}: {row.count}{sizes[row.title]}" for row in rows)
    if expired := [text for row in status.storage if (text := describe_expired(row))]:
        yield "", f"the next `build` removes {', '.join(expired)}"


def _run_lines(status: Status) -> Iterator[tuple[str, str]]:
    for number, run in enumerate(status.runs):
        failure = next((f"{task.task} failed with {task.exit_code}" for task in run.tasks if task.exit_code), "")
        seconds = sum(task.seconds for task in run.tasks)
        outcome = failure or (f"done in {seconds:.1f} s" if run.tasks else "killed, or still active")
        yield "" if number else "last runs", f"{_format_time(run.started_at)}  {run.command}: {outcome}"
    if status.runs:
        yield "", ""


def _format_time(timestamp: str) -> str:
    return timestamp[:16].replace("T", " ")
