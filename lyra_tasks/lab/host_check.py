"""The check of kind `run`: a command on this machine, such as a test suite, that is told where the services are."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_tasks.config.models import Test
from lyra_tasks.config.services import argv

if TYPE_CHECKING:
    from lyra_tasks.lab.running import Lab, RunningService

_TAIL = 15


def run_on_host(lab: Lab, test: Test, root: Path) -> str:
    """Run the command in the project's folder; what was wrong, or nothing.

    It finds every published port in `LYRA_<SERVICE>_<PORT>_URL` and `…_ADDR`. Its output is kept beside the services'
    logs, secrets blotted out. One that does not end within the check's timeout is killed with all that it started.
    """
    log = lab.folder / "logs" / f"run-{re.sub(r'[^a-z0-9]+', '-', test.name.lower()).strip('-')}.log"
    with subprocess.Popen(
        argv(test.run or []),
        cwd=root,
        env={**os.environ, **addresses(lab.services)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as child:
        try:
            output, _ = child.communicate(timeout=test.timeout)
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
        finally:
            _kill_group(child.pid)
        if not ended:
            output, _ = child.communicate()
    text = output.decode(errors="replace")
    for service in lab.services.values():
        for value in service.planned.masked:
            text = text.replace(value, "***")
    log.write_text(text, encoding="utf-8")
    tail = "\n".join(text.splitlines()[-_TAIL:])
    if not ended:
        return f"the command did not end within {test.timeout:g} s; its last lines: {tail}"
    return "" if child.returncode == 0 else f"exit code {child.returncode}; its last lines: {tail}"


def addresses(services: Mapping[str, RunningService]) -> dict[str, str]:
    """The environment variables that tell where published ports answer."""
    found = {}
    for name, service in services.items():
        for port, number in service.planned.service.ports.items():
            host, published = service.address(number)
            prefix = f"LYRA_{_word(name)}_{_word(port)}"
            found[f"{prefix}_ADDR"] = f"{host}:{published}"
            found[f"{prefix}_URL"] = f"http://{host}:{published}"
    return found


def _word(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _kill_group(pid: int) -> None:
    """The command is the first of a session of its own, whose number is its own."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
