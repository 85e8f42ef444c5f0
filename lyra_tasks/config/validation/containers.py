"""Check options of containers that the engine would refuse or that could have no effect."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from lyra_tasks.config.models import Service
from lyra_tasks.config.service_models import Ulimit
from lyra_tasks.config.validation.positions import Location
from lyra_tasks.config.validation.problems import Problem, quote_text
from lyra_tasks.units import format_size

# https://docs.docker.com/reference/cli/docker/container/run/#sysctl
_NAMESPACED_SYSCTL = re.compile(
    r"net[./].+|fs[./]mqueue[./].+|kernel[./](?:msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)"
)


def check_container_options(location: Location, service: Service, other_services: Collection[str]) -> Iterator[Problem]:
    """Yield the problems of `ulimits`, `sysctls`, `shm_size` and `aliases`."""
    for name, limit in service.ulimits.items():
        if isinstance(limit, Ulimit) and limit.hard != -1 and not 0 <= limit.soft <= limit.hard:
            yield Problem((*location, "ulimits", name, "soft"), f"must be at most hard, which is {limit.hard}")
    for name in service.sysctls:
        if not _NAMESPACED_SYSCTL.fullmatch(name):
            message = (
                "belongs to the whole host, not to a container; allowed: net.*, fs.mqueue.*, kernel.msg*, sem, shm*"
            )
            yield Problem((*location, "sysctls", name), message)
    if "shm_size" in service.model_fields_set and service.shm_size > service.limits.memory:
        message = f'must not be more than limits.memory, which it is part of: "{format_size(service.limits.memory)}"'
        yield Problem((*location, "shm_size"), message)
    for index, alias in enumerate(service.aliases):
        if alias in other_services:
            yield Problem((*location, "aliases", index), f"{quote_text(alias)} is the name of another service")
