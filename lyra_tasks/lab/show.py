"""What `test` shows."""

from __future__ import annotations

from lyra_tasks import console
from lyra_tasks.config.find import shown
from lyra_tasks.errors import VerdictError
from lyra_tasks.lab.trial import Trial, Verdict


def planned(trial: Trial) -> None:
    """What a test run would start and check."""
    plan = trial.plan
    if console.is_json():
        return console.document(
            {
                "services": {name: {"cpus": each.cpus, "memory": each.memory} for name, each in plan.services.items()},
                "waves": [list(wave) for wave in plan.waves],
                "networks": sorted(plan.networks),
                "volumes": sorted(plan.volumes),
                "checks": [test.name for test in trial.tests],
                "set": trial.key.digest,
            }
        )
    console.say(f"would start {len(plan.services)} service(s) with {plan.cpus:g} CPUs and {console.size(plan.memory)}:")
    for number, wave in enumerate(plan.waves, start=1):
        console.say(f"  {number}. {', '.join(wave)}")
    console.say(f"and make {len(trial.tests)} check(s): {', '.join(test.name for test in trial.tests)}")
    return None


def verdict(verdict: Verdict) -> None:
    """The summary of a test run; VerdictError if it did not pass."""
    evidence = verdict.evidence
    failed = [check for check in evidence.checks if check.outcome != "passed"]
    if console.is_json():
        console.document(evidence.model_dump(mode="json", by_alias=True) | {"folder": str(verdict.folder)})
    else:
        console.table(
            ("service", "memory at most", "CPUs at most", "processes at most"),
            [
                (name, f"{console.size(use.memory_peak)} of {console.size(use.memory_limit)}",
                 f"{use.cpu_peak:.2f} of {use.cpu_limit:g}", f"{use.pids_peak} of {use.pids_limit}")
                for name, use in evidence.use.items()
            ],
        )  # fmt: skip
        for deviation in verdict.deviations:
            console.warn(f"deviation from {deviation.rule} for {deviation.scope} until {deviation.expires}")
        passed = f"{len(evidence.checks) - len(failed)} of {len(evidence.checks)} checks passed"
        console.say(f"{passed} in {evidence.seconds:.1f} s; report.html, logs and metrics in {shown(verdict.folder)}")
        if verdict.kept_running:
            console.say("the services run on until `clean`:")
            for name, address in verdict.kept_running.items():
                console.say(f"  {name}: {address}")
        if verdict.partial:
            console.note("not every check was made, so this is no evidence")
    if failed:
        raise VerdictError(
            f"{len(failed)} of {len(evidence.checks)} check(s) failed: {', '.join(check.name for check in failed)}",
            hint=f"logs and metrics are in {shown(verdict.folder)}",
        )
