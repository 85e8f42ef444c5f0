"""Reach engines on other machines (TCP with TLS, SSH) through a local Unix socket.

For SSH, the user's own ssh forwards the socket over one login. Otherwise each connection runs `docker system
dial-stdio`, on this machine or, if the server forbids forwarding, on the remote one. So everything that works for
`docker --context` works here, and connections can be half-closed, which Python's TLS cannot do.
"""

from __future__ import annotations

import atexit
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from urllib.parse import SplitResult, urlsplit

from lyra_tasks import console
from lyra_tasks.engine.client.endpoint import Endpoint, is_on_this_machine, is_remote_endpoint
from lyra_tasks.engine.sandbox.layout import answers_ping
from lyra_tasks.errors import EngineUnavailableError
from lyra_tasks.locks import create_private_directory, remove_private_directory
from lyra_tasks.processes import create_environment, run_captured

_SSH_OPTIONS = {
    "BatchMode": "yes",  # nobody can answer a prompt
    "ConnectTimeout": "15",
    "ServerAliveInterval": "5",  # a lost machine is detected within 20 s
    "ServerAliveCountMax": "3",
}
_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 2.0


def resolve_engine_address(host: str) -> str:
    """Return the address of published ports of the engine at `host`: loopback for a local engine."""
    parts = urlsplit(host)
    if not is_remote_endpoint(host) or (is_on_this_machine(host) and parts.hostname != "::1"):
        return "127.0.0.1"
    name = _resolve_ssh_alias(parts) if parts.scheme == "ssh" else parts.hostname or ""
    try:
        matches = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise EngineUnavailableError(
            f"Cannot resolve the engine's host name {console.escape(name)!r}",
            hint="Check the address, and that the machine or the CI service of that name is running",
        ) from error
    addresses = sorted(matches, key=lambda match: match[0] != socket.AF_INET)
    return str(addresses[0][4][0])


@cache
def open_tunnel(host: str, context: str) -> Tunnel:
    """Open the tunnel to the endpoint `host` of a context, or to an address, once per process."""
    parts, endpoint = urlsplit(host), Endpoint(host, context)
    program = "ssh" if parts.scheme == "ssh" else "docker"
    if shutil.which(program) is None:
        raise EngineUnavailableError(
            f"Cannot reach the engine at {endpoint.address}: {program} is not installed", hint=f"Install {program}"
        )
    return Tunnel(parts, endpoint.cli_environment)


class Tunnel:
    """A Unix socket that only this user can reach, and the processes that connect it to the engine."""

    def __init__(self, parts: SplitResult, environment: Mapping[str, str]) -> None:
        self._directory, self._directory_lock = create_private_directory("engine")
        self._socket = self._directory / "docker.sock"
        self._error_log = self._directory / "errors"
        self._children: list[subprocess.Popen[bytes]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        atexit.register(self.close)
        self._environment = create_environment(environment)
        self._command = ["docker", "system", "dial-stdio"]
        if parts.scheme == "ssh":
            options = (argument for key, value in _SSH_OPTIONS.items() for argument in ("-o", f"{key}={value}"))
            login, host = [*_ssh_command(parts), *options], parts.hostname or ""
            host_option = f"--host unix://{parts.path} " if parts.path.strip("/") else ""
            if self._try_ssh_forwarding(login, host, parts.path.rstrip("/")):
                return
            self._command = [*login, "--", host, f"docker {host_option}system dial-stdio"]
        self._listener.bind(str(self._socket))
        self._listener.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        """The local endpoint."""
        return f"unix://{self._socket}"

    def last_errors(self) -> tuple[str, ...]:
        """Return the last error lines of the tunnel's processes."""
        text = self._error_log.read_text(errors="replace") if self._error_log.exists() else ""
        return tuple(line for line in text.splitlines() if line.strip())[-3:]

    def close(self) -> None:
        """Close all connections."""
        self._listener.close()
        self._terminate(self._children)
        remove_private_directory(self._directory, self._directory_lock)

    def _try_ssh_forwarding(self, login: Sequence[str], host: str, path: str) -> bool:
        """Forward the remote engine's socket with ssh, which needs only one login; return whether that works."""
        if not path:
            inspect_command = [*login, "--", host, "docker context inspect --format '{{.Endpoints.docker.Host}}'"]
            result = run_captured(inspect_command)
            with self._error_log.open("a", errors="replace") as errors:
                errors.write(result.stderr)
            scheme, _, path = result.stdout.strip().partition("://")
            if scheme != "unix":
                return False
        # the login lasts as long as `cat` can read from this process, so it never outlives it
        command = [*login, "-L", f"{self._socket}:{path}", "-o", "ExitOnForwardFailure=yes", "--", host, "cat"]
        child = self._start(command, subprocess.PIPE, subprocess.DEVNULL)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._socket.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if answers_ping(self._socket, _START_TIMEOUT_S):
            return True
        self._terminate([child])
        self._socket.unlink(missing_ok=True)
        return False

    def _start(self, command: Sequence[str], stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        """Start a child in its own session, so that Ctrl-C does not cut the connection that cleanup needs."""
        with self._error_log.open("ab") as errors:
            child = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=errors,
                env=self._environment,
                start_new_session=True,
            )
        self._children = [process for process in self._children if process.poll() is None] + [child]
        return child

    def _terminate(self, children: Sequence[subprocess.Popen[bytes]]) -> None:
        for child in children:
            if child.stdin:
                child.stdin.close()
            child.terminate()
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(_STOP_TIMEOUT_S)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._start(self._command, connection.fileno(), connection.fileno())


def _ssh_command(parts: SplitResult) -> list[str]:
    user = ["-l", parts.username] if parts.username else []
    port = ["-p", str(parts.port)] if parts.port else []
    return ["ssh", *user, *port]


def _resolve_ssh_alias(parts: SplitResult) -> str:
    """Return the host name behind an alias of the user's ssh configuration."""
    result = run_captured([*_ssh_command(parts), "-G", "--", parts.hostname or ""])
    settings = dict(line.partition(" ")[::2] for line in result.stdout.splitlines())
    return settings.get("hostname") or parts.hostname or ""
