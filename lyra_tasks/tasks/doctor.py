"""`doctor`: what on this machine will stand in the way."""

from __future__ import annotations

from typing import Any

from lyra_tasks.tasks.word import word


@word("doctor")
def doctor(c: Any, json: bool = False) -> None:
    """Look at engine, buildx, disk, git, clock, sandbox, leftovers, config and locks; each fault with its fix."""
    from lyra_tasks.overview import doctor, doctor_facts, show_doctor

    found = doctor.examine(doctor_facts.gather())
    show_doctor.findings(found)
    doctor.require_healthy(found)
