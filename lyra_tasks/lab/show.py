"""What `test` shows."""

from __future__ import annotations

from collections import Counter

from lyra_tasks import console
from lyra_tasks.config.find import shown
from lyra_tasks.errors import VerdictError
from lyra_tasks.lab.groups import PlannedGroup
from lyra_tasks.lab.results import results_document
from lyra_tasks.lab.trial import Trial, Verdict

_OUTCOMES = {"deviation": "by deviation", "warning": "warned of", "skipped": "not looked at"}


def planned(trial: Trial) -> None:
    """What a test run would start and check; VerdictError if it would be refused for a rule that is broken."""
    trial.judgement.require()
    groups = [group for each in trial.rounds for group in each]
    tests = [test.name for group in groups for test in group.tests]
    if console.is_json():
        return console.document(
            {
                "rounds": [[_planned_group(group) for group in each] for each in trial.rounds],
                "checks": tests,
                "set": trial.key.digest,
            }
        )
    for number, each in enumerate(trial.rounds, start=1):
        if len(trial.rounds) > 1:
            console.say(f"round {number}:")
        for group in each:
            _say_group(group)
    return None


def _planned_group(group: PlannedGroup) -> dict[str, object]:
    plan = group.lab
    return {
        "group": group.name,
        "services": {name: {"cpus": each.cpus, "memory": each.memory} for name, each in plan.services.items()},
        "waves": [list(wave) for wave in plan.waves],
        "networks": sorted(plan.networks),
        "volumes": sorted(plan.volumes),
        "checks": [test.name for test in group.tests],
    }


def _say_group(group: PlannedGroup) -> None:
    plan, name = group.lab, f"{group.name}: " if group.name else ""
    room = f"{plan.cpus:g} CPUs and {console.size(plan.memory)}"
    console.say(f"{name}would start {len(plan.services)} service(s) with {room}:")
    for number, wave in enumerate(plan.waves, start=1):
        console.say(f"  {number}. {', '.join(wave)}")
    console.say(f"and make {len(group.tests)} check(s): {', '.join(test.name for test in group.tests)}")


def verdict(verdict: Verdict) -> None:
    """The summary of a test run; VerdictError if it did not pass."""
    evidence = verdict.evidence
    failed = [check for check in evidence.checks if check.outcome != "passed"]
    if console.is_json():
        console.document(results_document(evidence) | {"folder": str(verdict.folder)})
    else:
        console.table(
            ("service", "memory at most", "CPUs at most", "processes at most"),
            [
                (name, f"{console.size(use.memory_peak)} of {console.size(use.memory_limit)}",
                 f"{use.cpu_peak:.2f} of {use.cpu_limit:g}", f"{use.pids_peak} of {use.pids_limit}")
                for name, use in evidence.use.items()
            ],
        )  # fmt: skip
        _rules(verdict)
        passed = f"{len(evidence.checks) - len(failed)} of {len(evidence.checks)} checks passed"
        console.say(f"{passed} in {evidence.seconds:.1f} s")
        console.say(f"report.html, logs and metrics: {shown(verdict.folder)}")
        if verdict.kept_running:
            console.say("the services run on until `clean`:")
            for name, address in verdict.kept_running.items():
                console.say(f"  {name}: {address}")
        if verdict.partial:
            console.note("not every check was made, so this is no evidence")
    if failed:
        raise VerdictError(
            f"{len(failed)} of {len(evidence.checks)} check(s) failed: {', '.join(check.title for check in failed)}",
            hint=f"logs and metrics are in {shown(verdict.folder)}",
        )


def _rules(verdict: Verdict) -> None:
    """What the rules came to: a line for everything that is not simply kept."""
    judgement, results = verdict.judgement, verdict.evidence.rules
    for result in results:
        if result.outcome == "warning":
            console.warn(f"{result.scope}: {result.message} (rule {result.rule})")
    for deviation in judgement.used:
        console.warn(f"deviation from {deviation.rule} for {deviation.scope} until {deviation.expires}")
    for deviation in judgement.unused:
        console.warn(f"nothing needs the deviation from {deviation.rule} for {deviation.scope}; remove it")
    counts = Counter[str](result.outcome for result in results)
    rest = [f"{counts[outcome]} {words}" for outcome, words in _OUTCOMES.items() if counts[outcome]]
    console.say(", ".join([f"{counts['kept']} rules kept", *rest]))
