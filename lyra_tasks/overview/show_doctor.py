"""What `doctor` shows."""

from __future__ import annotations

from dataclasses import asdict

from lyra_tasks import console
from lyra_tasks.overview.doctor import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "fault": "red"}


def findings(found: tuple[Finding, ...]) -> None:
    """A line for each finding, and below it what to do."""
    if console.is_json():
        return console.document([asdict(each) for each in found])
    wide = max(len(each.what) for each in found)
    for each in found:
        console.say(f"{console.style(each.state.ljust(7), _COLOURS[each.state])}  {each.what.ljust(wide)}  {each.said}")
        if each.fix:
            console.say(f"{' ' * (wide + 11)}fix: {each.fix}")
    return None
