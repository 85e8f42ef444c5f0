"""BuildKit's progress of several targets: whose line it is, what failed, and what the program printed."""

from __future__ import annotations

from lyra_tasks.checks.stages.build_log import OUTPUT_TAIL_LINES, BuildLog, read_cause

LOG = """\
#0 building with "default" instance using docker driver

#1 [internal] load local bake definitions
#1 DONE 0.0s

#2 [stage-1 internal] load build definition from Dockerfile
#2 DONE 0.0s

#3 [stage-1 test 1/2] RUN make test
#3 0.100 begin
#3 ...

#4 [stage-2 lint 1/2] RUN make lint
#4 0.200 lint
#4 CANCELED

#3 [stage-1 test 1/2] RUN make test
#3 0.300 #9 ERROR: of the program
#3 0.300
#3 0.400 end
#3 ERROR: process "/bin/sh -c make test" did not complete successfully: exit code: 2
------
 > [stage-1 test 1/2] RUN make test:
0.100 begin
0.400 end
------
Dockerfile:3
--------------------
   3 | >>> RUN make test
--------------------
ERROR: target stage-1: failed to solve: process "/bin/sh -c make test" did not complete successfully: exit code: 2
"""


def read(text: str, *targets: str) -> tuple[BuildLog, dict[str, list[str]]]:
    log = BuildLog(targets)
    lines: dict[str, list[str]] = {}
    for target, line in log.read(text.splitlines()):
        lines.setdefault(target, []).append(line)
    return log, lines


def test_lines_belong_to_their_targets() -> None:
    _, lines = read(LOG, "stage-1", "stage-2")
    assert lines["stage-2"] == ["#4 [lint 1/2] RUN make lint", "#4 0.200 lint", "#4 CANCELED"]
    assert lines["stage-1"][:2] == ["#2 [internal] load build definition from Dockerfile", "#2 DONE 0.0s"]
    assert lines["stage-1"][-1].startswith('ERROR: process "/bin/sh -c make test"')
    assert "#1 [internal] load local bake definitions" in lines[""]
    assert "0.100 begin" not in lines[""], "the summary repeats the log"
    assert "Dockerfile:3" in lines[""]


def test_only_failed_target_is_blamed() -> None:
    log, _ = read(LOG, "stage-1", "stage-2")
    assert log.find_failed_targets() == {"stage-1"}
    assert log.find_unfinished_targets() == set()
    assert log.find_output("stage-1") == (("begin", "#9 ERROR: of the program", "end"), 3)
    assert log.find_output("stage-2") == (("begin", "#9 ERROR: of the program", "end"), 3), "they may share the step"


def test_step_without_end_is_unfinished() -> None:
    log, _ = read(LOG.partition("#4 CANCELED")[0], "stage-1", "stage-2")
    assert log.find_unfinished_targets() == {"stage-1", "stage-2"}
    assert log.find_output("stage-2") == (("lint",), 1)


def test_last_lines_of_long_output_are_kept() -> None:
    output = "".join(f"#3 0.1 line {number}\n" for number in range(100))
    log, _ = read(f"#3 [test 1/1] RUN loud\n{output}#3 ERROR: process\n", "stage-1")
    lines, count = log.find_output("stage-1")
    assert (len(lines), count, lines[-1]) == (OUTPUT_TAIL_LINES, 100, "line 99")


def test_cause_has_no_names_of_targets() -> None:
    assert read_cause("build failed: stage-1: failed to solve: process: exit code: 3") == "process: exit code: 3"
    assert read_cause("build failed: failed to solve: exit code: 3") == "exit code: 3"
    assert read_cause("build failed: Buildx gave no reason") == "build failed: Buildx gave no reason"
