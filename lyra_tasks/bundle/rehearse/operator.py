"""Paste the commands of `PROMOTION.md` into a shell, as an operator does who has nothing else."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from lyra_tasks.bundle.format.layout import RECEIVE_SCRIPT, SUMMARY_FILE
from lyra_tasks.bundle.rehearse import page as steps
from lyra_tasks.bundle.rehearse.page import Page, Step
from lyra_tasks.errors import BundleError, CheckFailedError, LyraError, PreconditionError
from lyra_tasks.redaction import redact
from lyra_tasks.results.bundle import RehearsedStep

_STEP_TIMEOUT_S = 1800.0
_POLL_INTERVAL_S = 1.0
_OUTPUT_TAIL_LINES = 15
_SET_VARIABLE = re.compile(r"(?m)^(\w+)=.+$")


class Operator:
    """Someone with a shell on a node, who follows the page of a bundle or pack.

    `answers` are the values to type, by variable; `secret_files` files with secrets, by the variable that names a copy;
    `values` what else a page leaves open. Output is shown without the `secret_values`.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        answers: Callable[[str], str],
        secret_files: Callable[[str], Path],
        values: Mapping[str, str],
        secret_values: Sequence[str],
    ) -> None:
        self.steps: list[RehearsedStep] = []
        self._environment = environment
        self._answers, self._secret_files, self._values = answers, secret_files, values
        self._secret_values = secret_values
        self._shell_state: dict[Path, list[str]] = {}

    def follow(self, bundle: Path, name: str, *, block: int | None = None, timeout: float = _STEP_TIMEOUT_S) -> str:
        """Run the commands of a step, or of one block of it, and return their output."""
        step = Page(bundle).find(name)
        lines = step.lines if block is None else step.blocks[block]
        return self._paste(bundle, step, list(steps.fill_in(lines, self._values)), timeout)

    def follow_until(self, bundle: Path, name: str, timeout: float) -> None:
        """Run the commands of a step, again and again until all of them succeed or the time is over."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.follow(bundle, name)
                return
            except CheckFailedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_INTERVAL_S)

    def configure(self, bundle: Path, *, is_new: bool) -> None:
        """Follow `Configure` for a new `.env`, or for what the present one leaves open."""
        page = Page(bundle)
        step = page.find(steps.CONFIGURE)
        env_file = bundle / "deploy" / ".env"
        present = set() if is_new else set(_SET_VARIABLE.findall(env_file.read_text()))
        lines = list(step.blocks[0] if is_new else ["cd deploy"])
        for setting in page.settings():
            if setting.variable not in present:
                files = {"FILE": str(self._secret_files(setting.variable))} if "FILE=" in "".join(setting.lines) else {}
                lines += steps.fill_in(setting.lines, {**self._values, **files})
        self._paste(bundle, step, lines, _STEP_TIMEOUT_S)

    def redact(self, output: str) -> list[str]:
        """Return the last lines of an output, without secret values."""
        text = redact("\n".join(output.splitlines()[-_OUTPUT_TAIL_LINES:]), self._secret_values)
        return [line for line in text.split("\n") if line]

    def _paste(self, bundle: Path, step: Step, lines: Sequence[str], timeout: float) -> str:
        """Run commands in a shell that knows what earlier steps of the page have set there."""
        state = self._shell_state.setdefault(bundle, [])
        current_line = bundle.parent / "line"
        current_line.write_text("0")
        script = "\n".join(state) + "\n" + "".join(_guard(lines))
        typed = "".join(f"{self._answers(name)}\n" for name in steps.list_questions(lines))
        started = time.monotonic()
        try:
            result = subprocess.run(
                ["sh", "-c", script, "sh", current_line],
                cwd=bundle / "deploy" if step.is_in_deploy else bundle,
                env=self._environment,
                input=typed,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise self._describe_failure(bundle, step, _read_line(current_line, lines), None, "") from error
        if result.returncode:
            line = _read_line(current_line, lines)
            raise self._describe_failure(bundle, step, line, result.returncode, result.stdout)
        state += steps.list_shell_state(lines)
        self.steps.append(RehearsedStep(bundle.name, step.title, round(time.monotonic() - started, 3)))
        return result.stdout

    def _describe_failure(self, bundle: Path, step: Step, line: str, code: int | None, output: str) -> LyraError:
        """Return the error for a command; what `receive.sh` refuses has its exit codes."""
        error_class: type[LyraError] = CheckFailedError
        if RECEIVE_SCRIPT in line and code is not None:
            error_class = {6: BundleError, 60: BundleError}.get(code, PreconditionError)
        elif code == 127:
            error_class = PreconditionError  # a program that this machine lacks
        end = "does not end" if code is None else f"fails with exit code {code}"
        return error_class(
            f"{bundle.name}/{SUMMARY_FILE}, {step.title}: `{line}` {end}",
            hint="An operator would see the same: do not deploy this version",
            details=tuple(self.redact(output)),
        )


def _guard(lines: Iterable[str]) -> Iterable[str]:
    """Yield a script that ends with the first command that fails, whose number is then in the file `$1`."""
    for number, line in enumerate(lines):
        yield f'echo {number} > "$1"\n{line}\ncode=$?; [ "$code" -eq 0 ] || exit "$code"\n'


def _read_line(file: Path, lines: Sequence[str]) -> str:
    return lines[int(file.read_text())].partition("    #")[0]
