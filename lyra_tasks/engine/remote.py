"""Engines on other machines, as their Docker contexts describe them: TCP with TLS, and SSH.

Such an engine is reached through a Unix socket of this process. Each connection to it is a program that joins it with
the engine: the user's own ssh, which runs `docker system dial-stdio` over there, or the `docker` command itself. So the
settings, keys and agents that work for `docker --context` work here, and a connection can be closed by halves, which
Python's TLS cannot.
"""

from __future__ import annotations

import atexit
import shutil
import socket
import subprocess
import tempfile
import threading
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
    "ControlMaster": "auto",  # one login for all connections
    "ControlPersist": "30",
}
_SOCKET_PATH = 80  # ssh adds a suffix of its own, and 107 bytes is the limit
_GRACE = 2.0


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
    made = Tunnel(parts, context)
    atexit.register(made.close)
    return made


class Tunnel:
    """Listens on a Unix socket that this user alone can reach, and gives each connection a program of its own."""

    def __init__(self, parts: SplitResult, context: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="lyra-engine-"))
        self._errors = self._folder / "errors"
        self._children: list[subprocess.Popen[bytes]] = []
        self._goodbye: list[str] = []
        self._command = ["docker", "--context", context, "system", "dial-stdio"]
        if parts.scheme == "ssh":
            login = [*_ssh(parts), *_shared(self._folder)]
            engine = ["--host", f"unix://{parts.path}"] if parts.path.strip("/") else []
            self._command = [*login, "--", parts.hostname or "", "docker", *engine, "system", "dial-stdio"]
            self._goodbye = [*login, "-O", "exit", "--", parts.hostname or ""]
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._folder / "docker.sock"))
        self._listener.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        """What a client connects to."""
        return f"unix://{self._folder}/docker.sock"

    def said(self) -> tuple[str, ...]:
        """The last lines of what these programs have complained about."""
        text = self._errors.read_text(errors="replace") if self._errors.exists() else ""
        return tuple(line for line in text.splitlines() if line.strip())[-3:]

    def close(self) -> None:
        """End every connection, the shared login included."""
        self._listener.close()
        for child in self._children:
            child.terminate()
        for child in self._children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE)
        with suppress(subprocess.TimeoutExpired):
            if self._goodbye:
                subprocess.run(self._goodbye, capture_output=True, check=False, timeout=_GRACE)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, self._errors.open("ab") as errors:
                # of a session of its own, so that Ctrl-C does not cut off the clean-up that follows it
                wire = connection.fileno()
                child = subprocess.Popen(self._command, stdin=wire, stdout=wire, stderr=errors, start_new_session=True)
            self._children = [each for each in self._children if each.poll() is None] + [child]


def _ssh(parts: SplitResult) -> list[str]:
    user = ["-l", parts.username] if parts.username else []
    port = ["-p", str(parts.port)] if parts.port else []
    return ["ssh", *user, *port]


def _shared(folder: Path) -> Sequence[str]:
    """The options of every login; where the path is too long for a shared one, each connection logs in by itself."""
    path = folder / "login"
    shared = {"ControlPath": str(path)} if len(str(path)) < _SOCKET_PATH else {"ControlMaster": "no"}
    return [word for key, value in (_OPTIONS | shared).items() for word in ("-o", f"{key}={value}")]


def _ssh_host(parts: SplitResult) -> str:
    """The host behind a name that may be an alias of the user's ssh settings."""
    asked = [*_ssh(parts), "-G", "--", parts.hostname or ""]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    settings = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    return settings.get("hostname") or parts.hostname or ""
