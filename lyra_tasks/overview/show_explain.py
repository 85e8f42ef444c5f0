"""What `explain` shows."""

from __future__ import annotations

from dataclasses import asdict

from lyra_tasks import console
from lyra_tasks.overview.explain import Explanation, one_line

_COLOURS = {"current": "green", "stale": "yellow", "missing": "yellow", "failed": "red", "refused": "red"}


def explained(explanation: Explanation) -> None:
    """A line for everything that was found, and the words to run."""
    if console.is_json():
        return console.document({"schema": "lyra.explain/1", **asdict(explanation)})
    width = max((len(each.about) for each in explanation.findings), default=0)
    for each in explanation.findings:
        state = console.style(f"{each.state:<8}", _COLOURS.get(each.state, "dim"))
        console.say(f"{each.about:<{width}}  {state}{each.why}".rstrip())
    console.say(one_line(explanation.findings))
    if explanation.first:
        console.say(f"first: {explanation.first}")
    if explanation.run:
        console.say(f"next: {explanation.run}")
    return None
