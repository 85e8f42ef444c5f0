"""Run one group of checks: start its lab, run the checks in order, and always remove the lab."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lyra_tasks import console
from lyra_tasks.checks.cached_results import RestoredGroup
from lyra_tasks.checks.context import TestRun
from lyra_tasks.checks.groups import PlannedGroup
from lyra_tasks.checks.kinds import run_check, run_stage_checks, run_suite_check
from lyra_tasks.checks.results import print_check_result
from lyra_tasks.config.models import Test
from lyra_tasks.errors import CheckFailedError
from lyra_tasks.lab.lab import Lab
from lyra_tasks.lab.mounted_files import write_mounted_files
from lyra_tasks.records.evidence import CheckDetail, CheckResult, create_check_detail, create_service_event
from lyra_tasks.records.service_logs import merge_logs, read_last_lines

_RETRY_INTERVAL_S = 0.5
_FAILURE_REPORT_DELAY_S = 0.3  # the engine reports an exit, and log lines, a moment after a check has failed
_MAX_LOG_LINES = 15


@dataclass
class GroupRun:
    """A group whose checks are run, and their results."""

    group: PlannedGroup
    lab: Lab
    test_run: TestRun
    checks: list[CheckResult] = field(default_factory=list)
    restored: RestoredGroup | None = None
    stage_results: dict[str, CheckResult | None] = field(default_factory=dict)
    error: CheckFailedError | None = None

    def run(self, mark_created: Callable[[str], None]) -> None:
        """Start the lab, run the checks and remove the lab; call `mark_created` as soon as the containers exist."""
        if self.group.cached_group is not None:
            self.restored = self.group.cached_group.restore(self.lab.run_directory, self.group.name)
        cancellation = self.lab.cancellation
        write_mounted_files(self.group.lab)
        try:
            with cancellation.on_cancel(self.lab.kill):
                self.lab.create_and_start(lambda: self._finish_creation(mark_created))
                self._run_checks()
                if not cancellation.stop_starting.is_set() and (error := self.lab.find_final_failure()):
                    raise error
        except CheckFailedError as error:
            # a service that was killed by a cancellation did not fail by itself
            cancellation.raise_if_cancelled()
            self._record_service_failure(error)
        finally:
            mark_created(self.group.name)  # also if creating the lab failed
            if self.test_run.options.keep_running and not cancellation.is_cancelled:
                self.lab.detach()
            else:
                self.lab.tear_down()
            self._finish_logs()

    def _finish_creation(self, mark_created: Callable[[str], None]) -> None:
        """Let others reserve capacity; go on with services only if the rules allow the run.

        Stages are built meanwhile: that starts no service, and they count only if the run is not refused.
        """
        mark_created(self.group.name)
        if any(test.kind != "stage" for test in self.group.tests):
            self.test_run.rules.require_passed(self.lab.cancellation)

    def _record_service_failure(self, error: CheckFailedError) -> None:
        self.error = error
        name, group = "the services run", self.group.name
        self.checks.append(
            CheckResult(name=name, kind="lab", service="", outcome="failed", message=error.message, group=group)
        )
        if self.test_run.options.fail_fast:
            self.lab.cancellation.stop_starting.set()

    def _finish_logs(self) -> None:
        for service in self.lab.services.values():
            if service.log.error is not None:
                raise service.log.error
        merge_logs(self.lab.run_directory / self.lab.plan.logs_path, self.lab.plan.services)

    def _run_checks(self) -> None:
        """Run the checks in their order; CheckFailedError if a service exits in the meantime."""
        cancellation, tests = self.lab.cancellation, self.group.tests
        rounds = self.test_run.options.repeat
        for number, test in itertools.product(range(1, rounds + 1), tests):
            if cancellation.stop_starting.is_set():
                return
            passed = sum(check.outcome == "passed" for check in self.checks)
            position = f"{len(self.checks) + 1} of {len(tests) * rounds}"
            if (cached := self._find_cached_result(test)) is not None:
                print_check_result(cached)
                self.checks.append(cached)
                continue
            label = f"{self.group.name or 'check'} {position}: {test.name}"
            with console.progress(label, f"{passed} passed"):
                if test.is_suite:
                    self._run_suite(test, number)
                else:
                    self._run_check(test, number)
            if error := self.lab.find_failure():
                raise error
            if self.test_run.options.fail_fast and any(check.outcome != "passed" for check in self.checks):
                cancellation.stop_starting.set()

    def _run_check(self, test: Test, round_number: int) -> None:
        positions = self._log_positions()
        result = self._run_with_retries(test)
        self.lab.cancellation.raise_if_cancelled()
        if result is not None:
            self._add_result(test, result, positions, round_number)

    def _run_suite(self, test: Test, round_number: int) -> None:
        """Run the tests of another program, and add the result of each as soon as it is known."""
        positions = self._log_positions()

        def add(result: CheckResult) -> None:
            nonlocal positions
            self._add_result(test, result, positions, round_number)
            positions = self._log_positions()

        result = run_suite_check(self.lab, self.group, test, self.test_run, add)
        self.lab.cancellation.raise_if_cancelled()
        self._add_result(test, result, positions, round_number)

    def _log_positions(self) -> dict[str, int]:
        return {name: service.log.path.stat().st_size for name, service in self.lab.services.items()}

    def _add_result(self, test: Test, result: CheckResult, positions: Mapping[str, int], round_number: int) -> None:
        """Add a result, with what has been logged since the check began if it has failed."""
        if result.outcome != "passed" and not test.is_image_check:
            time.sleep(_FAILURE_REPORT_DELAY_S)
            result = result.model_copy(update={"details": [*result.details, *self._read_logs(test, positions)]})
        rounds = self.test_run.options.repeat
        name = f"{result.name} (round {round_number})" if rounds > 1 else result.name
        result = result.model_copy(
            update={"name": name, "group": self.group.name, "directory": self._find_directory(test)}
        )
        self.lab.events.append(
            create_service_event("check", result.service, name=name, outcome=result.outcome, seconds=result.seconds)
        )
        print_check_result(result, self.lab.run_directory)
        self.checks.append(result)

    def _find_directory(self, test: Test) -> str:
        """Return the directory with the files of a check, below the run's directory, or "" if it has none."""
        if test.name not in self.test_run.result_directories:
            return ""
        directory = self.test_run.result_directory(self.group, test)
        return directory.relative_to(self.lab.run_directory).as_posix() if directory.is_dir() else ""

    def _find_cached_result(self, test: Test) -> CheckResult | None:
        """Return the result of a check that is used again, with its files in this run's directory."""
        if test.name in self.group.cached_checks:
            directory = self.test_run.result_directory(self.group, test)
            cached = self.group.cached_checks[test.name]
            return cached.restore(self.lab.run_directory, directory, name=test.name, group=self.group.name)
        if self.restored is not None and not test.is_image_check:
            return next(check for check in self.restored.checks if check.name == test.name)
        return None

    def _run_with_retries(self, test: Test) -> CheckResult | None:
        """Run a check, up to `retry` more times while it fails; the result says how many attempts it took.

        Return None for a stage that was cancelled since another one failed.
        """
        result = self._take_stage_result(test) if test.kind == "stage" else self._run_once(test)
        for number in range(1, test.retry + 1):
            if result is None or result.outcome == "passed" or self.lab.cancellation.stop_starting.is_set():
                break
            time.sleep(_RETRY_INTERVAL_S)
            result = self._run_once(test)
            if result.outcome == "passed":
                result = result.model_copy(update={"message": f"passed at attempt {number + 1}"})
        return result

    def _run_once(self, test: Test) -> CheckResult:
        if test.kind == "stage":
            return run_stage_checks(self.lab, self.group, [test], self.test_run)[test.name]
        return run_check(self.lab, self.group, test, self.test_run)

    def _take_stage_result(self, test: Test) -> CheckResult | None:
        """Return the result of a stage; the first one of a round builds all of them."""
        if test.name not in self.stage_results:
            tests = [
                test for test in self.group.tests if test.kind == "stage" and test.name not in self.group.cached_checks
            ]
            results = run_stage_checks(self.lab, self.group, tests, self.test_run)
            self.stage_results = {test.name: results.get(test.name) for test in tests}
        return self.stage_results.pop(test.name)

    def _read_logs(self, test: Test, positions: Mapping[str, int]) -> list[CheckDetail]:
        """Return what the service of a check, or each service, has logged since the check began."""
        details = []
        for name in [test.service] if test.service else self.lab.services:
            path = self.lab.services[name].log.path
            lines = read_last_lines(path, _MAX_LOG_LINES, since=positions[name])
            if lines:
                file = path.relative_to(self.lab.run_directory).as_posix()
                texts = (line.split(" ", 2)[-1] for line in lines)
                details.append(create_check_detail(f"{name} logged since the check began", texts, file))
        return details
