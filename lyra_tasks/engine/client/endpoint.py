"""Where the engine of a project is, and whether it may be used."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lyra_tasks import console
from lyra_tasks.engine.client.contexts import DEFAULT_SOCKET, read_context_endpoint
from lyra_tasks.redaction import strip_url_credentials

_LOCAL_SCHEMES = ("unix", "npipe", "http+unix")
_TLS_VARIABLES = ("DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_CERT_PATH")


@dataclass(frozen=True)
class Endpoint:
    """The address of an engine (`unix://…`, `tcp://…`, `ssh://…`), and the context that it comes from, if any.

    `is_chosen` is whether the user has named an engine at all; `is_permitted` whether for Lyra, so that it may be on
    another machine.
    """

    host: str
    context: str = ""
    is_chosen: bool = False
    is_permitted: bool = False

    @property
    def is_remote(self) -> bool:
        """Whether the engine is reached over a network, and has no files of this machine."""
        return is_remote_endpoint(self.host)

    @property
    def address(self) -> str:
        """The address for messages: without credentials and control characters."""
        return console.escape(strip_url_credentials(self.host))

    @property
    def cli_environment(self) -> Mapping[str, str]:
        """The variables with which the `docker` command reaches the engine."""
        if self.context:
            return {"DOCKER_CONTEXT": self.context, "DOCKER_HOST": ""}  # an inherited DOCKER_HOST would take precedence
        variables = {name: value for name in _TLS_VARIABLES if self.is_remote and (value := os.environ.get(name))}
        return {"DOCKER_HOST": self.host, **variables}


def select_endpoint(configured: str) -> Endpoint:
    """Return the engine of the configuration (a context or an address), else of `DOCKER_HOST` or the current context.

    Raises EngineUnavailableError if the context is unknown or cannot be read.
    """
    if "://" in configured:
        return Endpoint(configured, is_chosen=True, is_permitted=True)
    if configured:
        return Endpoint(read_context_endpoint(configured), configured, is_chosen=True, is_permitted=True)
    if host := os.environ.get("DOCKER_HOST", ""):
        # the docker command takes `HOST:PORT`, too
        return Endpoint(host if "://" in host else f"tcp://{host}", is_chosen=True)
    host = read_context_endpoint("")
    return Endpoint(host, is_chosen=host != DEFAULT_SOCKET)


def is_remote_endpoint(host: str) -> bool:
    """Return whether an endpoint such as `ssh://ada@builder` or `tcp://10.0.0.2:2376` is reached over a network."""
    return "://" in host and urlsplit(host).scheme not in _LOCAL_SCHEMES


def is_on_this_machine(host: str) -> bool:
    """Return whether an endpoint is a socket or a loopback address."""
    if not is_remote_endpoint(host):
        return True
    parts = urlsplit(host)
    name = (parts.hostname or "").rstrip(".")
    if parts.scheme == "ssh":  # a name of the user's ssh configuration
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    with suppress(ValueError):
        address = ipaddress.ip_address(name)
        mapped = getattr(address, "ipv4_mapped", None) or address
        return mapped.is_loopback or mapped.is_unspecified
    return False


def describe_permission_fix(host: str) -> str:
    """Return what gives this user access to the socket of an engine."""
    import grp

    path = Path(re.sub(r"^(http\+)?unix://", "", host))
    with suppress(OSError, KeyError):
        group = grp.getgrgid(path.stat().st_gid).gr_name
        if group != "root":
            return (
                f"Run `sudo usermod -aG {shlex.quote(group)} $USER` and log in again, or run this command with "
                "`sudo -E`; members of that group can do everything that root can"
            )
    return f"Run this command with `sudo -E`, or as a user who may use {console.escape(str(path))}"
