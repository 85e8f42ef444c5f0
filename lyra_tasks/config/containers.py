"""Options of a service's container that test environments and the bundle's compose file write alike."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lyra_tasks.config.service_models import Service

LOG_DRIVER = "json-file"
LOG_OPTIONS: Mapping[str, str] = {"max-size": "10m", "max-file": "3"}
UNREACHABLE_DNS = "127.0.0.1"
"""Resolver of services without egress: names of services resolve, no others do."""
_DEFAULT_ULIMITS: Mapping[str, tuple[int, int]] = {"nofile": (1024, 1024), "core": (0, 0)}

UserIds = tuple[int, int]
"""User and group id."""


def resolve_ulimits(service: Service) -> dict[str, tuple[int, int]]:
    """Return the soft and hard limits by name: the configured ones and the defaults."""
    configured = {
        name: (limit, limit) if isinstance(limit, int) else (limit.soft, limit.hard)
        for name, limit in service.ulimits.items()
    }
    return {**_DEFAULT_ULIMITS, **configured}


def resolve_hostname(name: str, service: Service) -> str:
    """Return the host name of a service's container."""
    return service.hostname or name


def resolve_dns(service: Service) -> list[str]:
    """Return the name servers; none means those of the engine's host."""
    return [] if service.egress else [UNREACHABLE_DNS]


def stop_timeout_seconds(service: Service) -> int:
    """Return the stop grace period in whole seconds, rounded as Compose does."""
    return math.floor(service.stop_grace_period + 0.5)


def parse_user_numbers(user: str) -> UserIds | None:
    """Return the ids of `USER[:GROUP]` if both are numbers; an empty user is root, a missing group is 0.

    Returns None for names, which only the image can map.
    """
    user_id, _, group_id = user.partition(":")
    if not (user_id or "0").isdecimal() or not (group_id or "0").isdecimal():
        return None
    return int(user_id or 0), int(group_id or 0)


def format_tmpfs_options(size: int, owner: UserIds | None) -> str:
    """Return the mount options of a tmpfs of `size` bytes that belongs to the service's user.

    There is no `mode`: runc 1.1 ignores it for a directory of the image, later versions do not. Without it, all of them
    take the mode of that directory, or 1777 if there is none.
    """
    ids = f",uid={owner[0]},gid={owner[1]}" if owner is not None else ""
    return f"rw,noexec,nosuid,nodev,size={size}{ids}"
