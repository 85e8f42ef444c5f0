"""The services of a test environment, as tests use them: addresses, an HTTP client, commands, logs, restart."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import requests

_DEFAULT_TIMEOUT_S = 10.0
_RESTART_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.1


@dataclass(frozen=True)
class CompletedCommand:
    """A command that has ended in a container."""

    exit_code: int
    stdout: str
    stderr: str


class HttpClient(requests.Session):
    """A session whose paths are those of one service, and whose requests have a time limit."""

    def __init__(self, find_url: Callable[[str], str]) -> None:
        super().__init__()
        self.trust_env = False  # a proxy of this machine cannot reach the service
        self._find_url = find_url

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request; the URL may be a path of the service."""
        kwargs.setdefault("timeout", _DEFAULT_TIMEOUT_S)
        text = url.decode() if isinstance(url, bytes) else url
        return super().request(method, self._find_url(text) if text.startswith("/") else text, *args, **kwargs)


@dataclass
class Service:
    """A service of the test environment; `environment` is what its container got, with test values of secrets."""

    name: str
    container: str
    host: str
    ports: dict[str, dict[str, Any]]
    http_port: str
    environment: Mapping[str, str] = field(repr=False)
    docker: Sequence[str]
    docker_environment: Mapping[str, str] = field(repr=False)

    def address(self, port: str = "") -> tuple[str, int]:
        """Return host and port at which a port, given by its name, can be reached; default: the HTTP port."""
        name = port or self.http_port
        if name not in self.ports:
            known = ", ".join(self.ports) or "none"
            raise LookupError(f"{self.name} has no port {name!r}; its published ports: {known}")
        return self.host, int(self.ports[name]["published"])

    def url(self, path: str = "/", port: str = "") -> str:
        """Return the URL of a path."""
        host, published = self.address(port)
        return f"http://{f'[{host}]' if ':' in host else host}:{published}{path}"

    @cached_property
    def http(self) -> HttpClient:
        """The HTTP client of the service, a `requests.Session`: `http.get("/")`."""
        return HttpClient(self.url)

    def exec(self, command: Sequence[str] | str, *, timeout: float = _DEFAULT_TIMEOUT_S) -> CompletedCommand:
        """Run a command in the container; a text is run by `/bin/sh -c`.

        Raises subprocess.TimeoutExpired if it does not end in time.
        """
        arguments = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        return self._docker("exec", self.container, *arguments, timeout=timeout)

    def logs(self) -> list[str]:
        """Return what the service has logged so far."""
        completed = self._docker("logs", self.container, timeout=_DEFAULT_TIMEOUT_S)
        return [*completed.stdout.splitlines(), *completed.stderr.splitlines()]

    def wait_for_log(self, pattern: str, timeout: float = _DEFAULT_TIMEOUT_S) -> str:
        """Return the first log line that matches a regular expression; wait for it, or raise TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            for line in self.logs():
                if re.search(pattern, line):
                    return line
            if time.monotonic() > deadline:
                raise TimeoutError(f"no log line of {self.name} matches {pattern!r} within {timeout:g} s")
            time.sleep(_POLL_INTERVAL_S)

    def restart(self, timeout: float = _RESTART_TIMEOUT_S) -> None:
        """Restart the container, which keeps its data volumes, and wait until it is ready; ports may change."""
        deadline = time.monotonic() + timeout
        completed = self._docker("restart", self.container, timeout=timeout)
        if completed.exit_code:
            raise RuntimeError(f"cannot restart {self.name}: {completed.stderr.strip()}")
        while not self._is_ready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} was not ready within {timeout:g} s after its restart")
            time.sleep(_POLL_INTERVAL_S)

    def _is_ready(self) -> bool:
        document = json.loads(self._docker("inspect", self.container, timeout=_DEFAULT_TIMEOUT_S).stdout)[0]
        state, published = document["State"], document["NetworkSettings"]["Ports"]
        if not state["Running"]:
            raise RuntimeError(f"{self.name} exited with code {state['ExitCode']} after its restart")
        for port in self.ports.values():
            if bindings := published.get(port["container"]):
                port["published"] = int(bindings[0]["HostPort"])
        if "Health" in state:
            return bool(state["Health"]["Status"] == "healthy")
        return all(self._accepts(name) for name, port in self.ports.items() if port["container"].endswith("/tcp"))

    def _accepts(self, port: str) -> bool:
        try:
            with socket.create_connection(self.address(port), _DEFAULT_TIMEOUT_S):
                return True
        except OSError:
            return False

    def _docker(self, *arguments: str, timeout: float) -> CompletedCommand:
        completed = subprocess.run(
            [*self.docker, *arguments],
            env=dict(self.docker_environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        return CompletedCommand(completed.returncode, completed.stdout, completed.stderr)


class Services(Mapping[str, Service]):
    """The services of the test environment by name."""

    def __init__(self, services: Mapping[str, Service]) -> None:
        self._services = dict(services)

    def __getitem__(self, name: str) -> Service:
        """Return a service; KeyError names the ones that exist."""
        if name not in self._services:
            raise KeyError(f"{name!r} is no service; the services are: {', '.join(self._services)}")
        return self._services[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._services)

    def __len__(self) -> int:
        """Return the number of services."""
        return len(self._services)


@contextmanager
def open_services(path: Path) -> Iterator[Services]:
    """Read the file that describes the services; close their HTTP clients at the end."""
    import os

    document = json.loads(path.read_text(encoding="utf-8"))
    environment = {**os.environ, **document["docker_environment"]}
    services = {
        name: Service(name=name, docker=[document["docker"]], docker_environment=environment, **service)
        for name, service in document["services"].items()
    }
    try:
        yield Services(services)
    finally:
        for service in services.values():
            if "http" in vars(service):
                service.http.close()
