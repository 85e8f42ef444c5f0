"""Read BuildKit's plain progress: which target a line is about, what failed, and what the program printed."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

OUTPUT_TAIL_LINES = 30
_STEP_LINE = re.compile(r"#(\d+) (.*)")
_TITLE = re.compile(r"\[(\S+)\s*(.*)")
_OUTPUT = re.compile(r"\d+\.\d+ (.*)")
_CAUSE = re.compile(r"(?:ERROR: |build failed: )(?:target )?(?:([A-Za-z0-9_-]+): )?failed to solve: (.*)", re.DOTALL)


@dataclass
class Step:
    """A step of a build: its target, if it belongs to one, and the end of what its program printed."""

    target: str = ""
    state: str = "running"
    line_count: int = 0
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=OUTPUT_TAIL_LINES))


class BuildLog:
    """The progress of a build of several `targets`, line by line."""

    def __init__(self, targets: Collection[str]) -> None:
        self._targets = targets
        self._steps: dict[str, Step] = {}
        self._blamed: set[str] = set()
        self._is_in_summary = False

    def read(self, lines: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield each line with its target, or "" if it is about all of them, and take note of what it says.

        The prefixes by which Buildx tells targets apart are removed, as well as the summary of a failure at the end,
        which repeats what the log says already.
        """
        for line in lines:
            step_line = _STEP_LINE.match(line)
            if step_line is not None:
                self._is_in_summary = False
                yield self._read_step(step_line[1], step_line[2])
            elif cause := _CAUSE.match(line):
                target = cause[1] if cause[1] in self._targets else ""
                self._blamed.add(target)
                yield target, f"ERROR: {cause[2]}"
            elif line == "------":
                self._is_in_summary = not self._is_in_summary
            elif not self._is_in_summary:
                yield "", line

    def _read_step(self, number: str, text: str) -> tuple[str, str]:
        step = self._steps.setdefault(number, Step())
        title = _TITLE.match(text)
        if title is not None and title[1].rstrip("]") in self._targets:
            step.target = title[1].rstrip("]")
            text = title[2] if title[1].endswith("]") else f"[{title[2]}"
        elif output := _OUTPUT.fullmatch(text):
            step.line_count += 1
            step.tail.append(output[1])
        elif state := re.match(r"DONE|CACHED|ERROR|CANCELED", text):
            step.state = state[0]
        return step.target, f"#{number} {text}"

    def find_failed_targets(self) -> set[str]:
        """Return the targets that BuildKit blames for the failure; it cancels all others."""
        failed_steps = {step.target for step in self._steps.values() if step.state == "ERROR"}
        return (self._blamed | failed_steps) - {""}

    def find_unfinished_targets(self) -> set[str]:
        """Return the targets with a step that has begun and not ended."""
        return {step.target for step in self._steps.values() if step.state == "running" and step.target}

    def find_output(self, target: str) -> tuple[tuple[str, ...], int]:
        """Return the last lines that the program of a target's last failed or unfinished step printed, of how many.

        Buildx shows a step that several targets share as one of a single target.
        """
        steps = [step for step in self._steps.values() if step.line_count and step.state in {"ERROR", "running"}]
        own_steps = [step for step in steps if step.target in {target, ""}]
        for step in [*reversed(own_steps), *(step for step in steps if step.state == "ERROR")]:
            return tuple(step.tail), step.line_count
        return (), 0


def read_cause(message: str) -> str:
    """Return the reason in the message of a failed build, without the names of commands and targets before it."""
    cause = _CAUSE.match(message)
    return cause[2] if cause else message
