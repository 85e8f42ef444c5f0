"""Print the logs of a development environment while something else goes on."""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from dataclasses import dataclass, field

from lyra_tasks import console
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.errors import LyraError
from lyra_tasks.lab.container_logs import LogLine, follow_container_logs
from lyra_tasks.records.dev import DevLab


@dataclass
class LiveLogs:
    """Threads that print the output of services, also after these have been restarted."""

    work: Workspace
    _followed_ids: set[str] = field(default_factory=set)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def follow(self, lab: DevLab, after: str) -> None:
        """Print the lines of all containers that are not followed yet, those up to a time left out."""
        names = [name for name, service in lab.services.items() if service.id not in self._followed_ids]
        self._followed_ids.update(lab.services[name].id for name in names)
        if names:
            width = max(map(len, lab.services))
            threading.Thread(target=self._print_lines, args=(lab, names, after, width), daemon=True).start()

    def stop(self) -> None:
        """Stop printing; the threads end with the process."""
        self._stopped.set()

    def _print_lines(self, lab: DevLab, names: list[str], after: str, width: int) -> None:
        with suppress(LyraError):  # a lost engine is reported by what else goes on
            for line in follow_container_logs(self.work, lab, names, after=after, restart_timeout_s=math.inf):
                if self._stopped.is_set():
                    return
                console.print_verbatim(format_live_line(line, width))


def format_live_line(line: LogLine, width: int) -> str:
    """Return a line of a log with the name of its service."""
    return f"{console.style(f'{line.service.ljust(width)} |', 'dim')} {line.text}"
