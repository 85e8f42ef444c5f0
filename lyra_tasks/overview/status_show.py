"""One screen of `status`: what there is on the left, what is said of it on the right, nothing cut off."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from lyra_tasks import console
from lyra_tasks.overview.status import LabService, Status

_LABEL = 11
_FEW = 6


def shown(status: Status) -> None:
    """The screen, or with `--json` everything that it is made of."""
    if console.is_json():
        return console.document(document(status))
    for line in lines(status, console.width()):
        console.say(line)
    return None


def document(status: Status) -> dict[str, Any]:
    """The status as plain JSON."""
    found = asdict(status)
    for row, each in zip(found["deviations"], status.deviations, strict=True):
        row |= {"expires": each.expires.isoformat(), "ends_soon": each.ends_soon}
    for run in found["runs"]:
        run["words"] = [{"word": word, "exit_code": code, "seconds": seconds} for word, code, seconds in run["words"]]
    return {"schema": "lyra.status/1", **found}


def lines(status: Status, width: int) -> list[str]:
    """The lines for a terminal of this width."""
    found: list[str] = []
    rows = list(_rows(status))
    column = max(_LABEL, *(len(label) + 2 for label, _ in rows))
    for label, text in rows:
        style = ("bold",) if label == "next" else ("dim",)
        folded = textwrap.wrap(text, max(width - column, 30), break_on_hyphens=False) or [""]
        for number, part in enumerate(folded):
            head = console.style(label.ljust(column), *style) if label and number == 0 else " " * column
            found.append((head + part if text else "").rstrip())
    return found


def _rows(status: Status) -> Iterator[tuple[str, str]]:
    """Label and text of every row; a row without either is an empty line."""
    changes = ", uncommitted changes" if status.dirty else ""
    yield status.project, f"{status.version}, {status.branch or 'no branch'} at {status.commit}{changes}"
    yield "engine", status.engine
    yield "", ""
    yield from _images(status)
    yield "", ""
    yield "tested", _tested(status)
    yield "promoted", _promoted(status)
    yield from _rules(status)
    yield from _labs(status)
    if status.leftovers:
        more = f" and {len(status.leftovers) - _FEW} more" if len(status.leftovers) > _FEW else ""
        yield "left over", f"{', '.join(status.leftovers[:_FEW])}{more}"
    yield "", ""
    yield from _runs(status)
    yield "next", f"`{status.next}`: {status.why}" if status.next else status.why


def _images(status: Status) -> Iterator[tuple[str, str]]:
    widest = max((len(each.version) for each in status.images), default=0)
    for each in status.images:
        if not each.version:
            yield each.name, each.problem
            continue
        state = f"stale: {each.problem}" if each.problem else _state(status)
        commit = "" if each.commit in each.version else f"{each.commit}  "
        built = f"{each.version.ljust(widest)}  {commit}{console.size(each.size):>8}"
        yield each.name, f"{built}  {state}"


def _state(status: Status) -> str:
    if status.tested is None:
        return "built, " + ("test not known" if status.unknown else "not tested")
    if not status.tested.passed:
        return "built, test failed"
    return "tested, promoted" if status.promoted else "tested, not promoted"


def _tested(status: Status) -> str:
    tested = status.tested
    if tested is None:
        return f"not known: {status.unknown}" if status.unknown else "not this set of images, services and tests"
    of = f"on {_moment(tested.at)} (run {tested.run})"
    if tested.passed:
        return f"{tested.checks} of {tested.checks} checks passed {of}"
    return f"failed {of}: {', '.join(tested.failed) or 'no check was made'}"


def _promoted(status: Status) -> str:
    if status.promoted:
        return f"this set, as {status.promoted}"
    return f"not this set; the newest bundle is {status.newest}" if status.newest else "nothing yet"


def _rules(status: Status) -> Iterator[tuple[str, str]]:
    rules = status.tested.rules if status.tested else {}
    if rules:
        yield "rules", ", ".join(f"{count} {outcome}" for outcome, count in sorted(rules.items()))
    for each in status.deviations:
        if each.days < 0:
            end = f"ended on {each.expires}: what it covers fails"
        else:
            soon = f", in {each.days} day{'' if each.days == 1 else 's'}" if each.ends_soon else ""
            end = f"until {each.expires}{soon}"
        yield "deviation", f"{each.rule} for {each.scope} ({each.owner}) {end}"


def _labs(status: Status) -> Iterator[tuple[str, str]]:
    for lab in status.labs:
        yield "lab", f"{lab.kind}, run {lab.run}"
        for service in lab.services:
            yield "", _service(service)


def _service(service: LabService) -> str:
    ports = "".join(f", {name} at {address}" for name, address in sorted(service.ports.items()))
    if service.memory is None:
        return f"  {service.name}: {service.state}{ports}"
    memory = f"{console.size(service.memory)} of {console.size(service.memory_limit)}"
    return f"  {service.name}: {service.state}{ports}, {memory}, {service.cpu:.2f} of {service.cpu_limit:g} CPUs"


def _runs(status: Status) -> Iterator[tuple[str, str]]:
    for number, each in enumerate(status.runs):
        bad = next((f"{word} ended with {code}" for word, code, _ in each.words if code), "")
        seconds = sum(seconds for *_, seconds in each.words)
        how = bad or (f"done in {seconds:.1f} s" if each.words else "did not end in order, or is at work")
        yield "" if number else "last runs", f"{_moment(each.at)}  {each.command}: {how}"
    if status.runs:
        yield "", ""


def _moment(at: str) -> str:
    return at[:16].replace("T", " ")
