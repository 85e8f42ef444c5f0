"""The check of kind `run`: a command on this machine, such as a test suite, that is told where the services are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.config.models import Test
from lyra_tasks.config.ports import joined
from lyra_tasks.config.services import argv
from lyra_tasks.errors import PreconditionError
from lyra_tasks.lab.programs import Ended, run_program

if TYPE_CHECKING:
    from lyra_tasks.lab.running import Lab, RunningService

LOG = "output.log"


def run_on_host(lab: Lab, test: Test, root: Path, folder: Path) -> str:
    """Run the command in the project's folder; what was wrong, or nothing.

    It finds every published port in `LYRA_<SERVICE>_<PORT>_URL` and `…_ADDR`, every container in
    `LYRA_<SERVICE>_CONTAINER`, and with the docker command the engine that they run on. Its output is kept in `folder`,
    secrets blotted out. One that does not end within the check's timeout is killed with all that it started.
    """
    ended = run_program(argv(test.run or []), root, _told(lab), timeout=test.patience, halt=lab.halt)
    for service in lab.services.values():
        ended = ended.without(service.planned.masked)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOG).write_text(ended.text, encoding="utf-8")
    return verdict(ended, test)


def verdict(ended: Ended, test: Test) -> str:
    """What was wrong with how the command of a check ended, or nothing."""
    if ended.code is None:
        return f"the command did not end within {test.patience:g} s; its last lines: {ended.tail}"
    return "" if ended.code == 0 else f"exit code {ended.code}; its last lines: {ended.tail}"


def _told(lab: Lab) -> dict[str, str]:
    containers = {f"LYRA_{_word(name)}_CONTAINER": service.id for name, service in lab.services.items()}
    return {**lab.engine.cli_environment, **containers, **addresses(lab.services)}


def addresses(services: Mapping[str, RunningService]) -> dict[str, str]:
    """The environment variables that tell where published ports answer; those of a one-shot that has ended do not."""
    found = {}
    for name, service in services.items():
        for key, port in service.planned.service.ports.items():
            try:
                host, published = service.address(port)
            except PreconditionError:
                continue
            prefix = f"LYRA_{_word(name)}_{_word(key)}"
            found[f"{prefix}_ADDR"] = joined(host, published)
            if isinstance(port, int):
                found[f"{prefix}_URL"] = f"http://{joined(host, published)}"
    return found


def _word(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())
