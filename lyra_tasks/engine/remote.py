"""Engines on other machines, as their Docker contexts describe them: TCP with TLS, and SSH.

Such an engine is reached through a Unix socket of this process. Behind SSH it is the user's own ssh that forwards it,
over one login. Otherwise each connection is a `docker system dial-stdio`, here or, where forwarding is forbidden, over
there. So the settings, keys and agents that work for `docker --context` work here, and a connection can be closed by
halves, which Python's TLS cannot.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from lyra_tasks.errors import EngineUnavailableError

_LOCAL = ("", "unix", "npipe", "http+unix")
_OPTIONS = {
    "BatchMode": "yes",  # what asks cannot be answered here
    "ConnectTimeout": "15",
    "ServerAliveInterval": "5",  # a machine that is gone is noticed within 20 s
    "ServerAliveCountMax": "3",
}
_START = 20.0
_GRACE = 2.0
_FOLDER = "lyra-engine-"


def is_remote(host: str) -> bool:
    """Whether an endpoint such as `ssh://ada@builder` or `tcp://10.0.0.2:2376` is not a socket of this machine."""
    return urlsplit(host).scheme not in _LOCAL


def address_of(host: str) -> str:
    """Where ports that the engine at `host` publishes are bound and answer: loopback for one of this machine.

    EngineUnavailableError for a name that nobody knows.
    """
    if not is_remote(host):
        return "127.0.0.1"
    parts = urlsplit(host)
    name = _ssh_host(parts) if parts.scheme == "ssh" else parts.hostname or ""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise EngineUnavailableError(
            f"the engine's host is not known: {name}", hint="see `docker context inspect`"
        ) from error
    addresses = sorted(found, key=lambda each: each[0] != socket.AF_INET)
    return str(addresses[0][4][0])


@cache
def tunnel(host: str, context: str) -> Tunnel:
    """The way to the engine at `host`, the endpoint of `context`; ends with this process."""
    parts = urlsplit(host)
    program = "ssh" if parts.scheme == "ssh" else "docker"
    if shutil.which(program) is None:
        raise EngineUnavailableError(f"the context {context!r} needs {program}", hint=f"install {program}")
    return Tunnel(parts, context)


class Tunnel:
    """A Unix socket that this user alone can reach, and the programs that join it with the engine."""

    def __init__(self, parts: SplitResult, context: str) -> None:
        _sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
        self._socket = self._folder / "docker.sock"
        self._errors = self._folder / "errors"
        self._children: list[subprocess.Popen[bytes]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        atexit.register(self.close)
        self._command = ["docker", "--context", context, "system", "dial-stdio"]
        if parts.scheme == "ssh":
            login, host = _login(parts), parts.hostname or ""
            engine = f"--host unix://{parts.path} " if parts.path.strip("/") else ""
            if self._forwarded(login, host, parts.path.rstrip("/")):
                return
            self._command = [*login, "--", host, f"docker {engine}system dial-stdio"]
        self._listener.bind(str(self._socket))
        self._listener.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        """What a client connects to."""
        return f"unix://{self._socket}"

    def said(self) -> tuple[str, ...]:
        """The last lines of what these programs have complained about."""
        text = self._errors.read_text(errors="replace") if self._errors.exists() else ""
        return tuple(line for line in text.splitlines() if line.strip())[-3:]

    def close(self) -> None:
        """End every connection."""
        self._listener.close()
        self._end(self._children)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _forwarded(self, login: Sequence[str], host: str, path: str) -> bool:
        """Whether ssh itself leads to the engine's socket over there: one login, whatever the number of connections."""
        if not path:
            asked = [*login, "--", host, "docker context inspect --format '{{.Endpoints.docker.Host}}'"]
            with self._errors.open("ab") as errors:
                told = subprocess.run(
                    asked, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, check=False
                ).stdout
            scheme, _, path = told.strip().partition("://")
            if scheme != "unix":
                return False
        # what holds the login is a command that reads from this process: it ends with it, however that ends
        command = [*login, "-L", f"{self._socket}:{path}", "-o", "ExitOnForwardFailure=yes", "--", host, "cat"]
        child = self._spawn(command, subprocess.PIPE, subprocess.DEVNULL)
        deadline = time.monotonic() + _START
        while not self._socket.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if _answers(self._socket):
            return True
        self._end([child])
        self._socket.unlink(missing_ok=True)
        return False

    def _spawn(self, command: Sequence[str], source: int, target: int) -> subprocess.Popen[bytes]:
        """Of a session of its own, so that Ctrl-C does not cut off the clean-up that follows it."""
        with self._errors.open("ab") as errors:
            child = subprocess.Popen(command, stdin=source, stdout=target, stderr=errors, start_new_session=True)
        self._children = [each for each in self._children if each.poll() is None] + [child]
        return child

    def _end(self, children: Sequence[subprocess.Popen[bytes]]) -> None:
        for child in children:
            if child.stdin:
                child.stdin.close()
            child.terminate()
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._spawn(self._command, connection.fileno(), connection.fileno())


def _sweep() -> None:
    """Remove the folders of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*"):
        pid = folder.name.removeprefix(_FOLDER).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _ssh(parts: SplitResult) -> list[str]:
    user = ["-l", parts.username] if parts.username else []
    port = ["-p", str(parts.port)] if parts.port else []
    return ["ssh", *user, *port]


def _login(parts: SplitResult) -> list[str]:
    return [*_ssh(parts), *(word for key, value in _OPTIONS.items() for word in ("-o", f"{key}={value}"))]


def _answers(path: Path) -> bool:
    """Whether an engine answers a ping behind a socket."""
    with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
        connection.settimeout(_START)
        connection.connect(str(path))
        connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return b" 200 " in connection.recv(64)
    return False


def _ssh_host(parts: SplitResult) -> str:
    """The host behind a name that may be an alias of the user's ssh settings."""
    asked = [*_ssh(parts), "-G", "--", parts.hostname or ""]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    settings = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    return settings.get("hostname") or parts.hostname or ""
