"""What `bundle.rehearse` shows."""

from __future__ import annotations

from lyra_tasks import console
from lyra_tasks.bundle.rehearsal.plan import RehearsalPlan
from lyra_tasks.bundle.rehearsal.run import Rehearsal
from lyra_tasks.errors import VerdictError


def planned(plan: RehearsalPlan) -> None:
    """What would be rehearsed, and on what; no value of a variable."""
    facts = plan.facts
    document = {
        "version": facts.manifest.version,
        "suite": plan.suite,
        "min_engine": facts.manifest.proxima.min_engine,
        "memory": facts.memory,
        "cpus": facts.cpus,
        "filled_in": sorted(plan.answers),
    }
    if console.is_json():
        return console.document(document)
    console.say(
        f"would receive {facts.manifest.version} on a throwaway engine of {plan.suite} "
        f"(Proxima: {facts.manifest.proxima.min_engine} or newer), start it, and make the project's checks"
    )
    return console.say(f"would fill in {', '.join(sorted(plan.answers)) or 'nothing'}")


def rehearsed(result: Rehearsal) -> None:
    """The verdict; VerdictError if a check failed, or there was none."""
    passed = sum(check.outcome == "passed" for check in result.checks)
    if console.is_json():
        console.document(
            {
                "version": result.version,
                "engine": result.engine,
                "store": result.store,
                "services": list(result.services),
                "passed": result.passed,
                "checks": [check.model_dump(mode="json") for check in result.checks],
                "seconds": dict(result.seconds),
            }
        )
    else:
        steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items())
        console.say(
            f"{result.version} on Docker Engine {result.engine} ({result.store} image store): "
            f"{passed} of {len(result.checks)} checks passed; {steps}"
        )
    if not result.checks:
        raise VerdictError("no check could be made of what was received", hint="write one of kind http, exec or tcp")
    if not result.passed:
        failed = tuple(check.title for check in result.checks if check.outcome != "passed")
        raise VerdictError(
            f"{len(failed)} of {len(result.checks)} checks failed on an engine like Proxima's",
            hint="what was tested here does not work there; do not carry it",
            details=failed,
        )
