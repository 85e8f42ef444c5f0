"""Engines that play remote machines: at their own address, over TCP with TLS and over SSH, as Docker contexts."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.engine import sandbox
from lyra_tasks.engine.sandbox import network, start
from tests.conftest import Project
from tests.packages import unpacked

TLS_PORT = 2376
SSH_PORT = 2222
_DAYS = "2"


@dataclass(frozen=True)
class Machine:
    """An engine that is reached only over the network, by a Docker context."""

    box: sandbox.Sandbox
    context: str

    def docker(self, *arguments: str) -> str:
        """Run a docker command on the engine directly, not over the network."""
        command = [str(self.box.docker), *arguments]
        result = subprocess.run(command, env=self.box.environment(), capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def list_objects(self) -> str:
        """Return the ids of all objects in the engine."""
        lists = (("ps", "--all"), ("image", "ls", "--all"), ("volume", "ls"), ("network", "ls", "-f", "type=custom"))
        return "".join(self.docker(*command, "--quiet") for command in lists)


def run_openssl(directory: Path, *arguments: str) -> None:
    """Run openssl in a directory."""
    subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, check=True)


def create_authority(directory: Path) -> Path:
    """Create a throwaway certificate authority and a client certificate."""
    directory.mkdir(parents=True)
    new = ("-newkey", "rsa:2048", "-nodes", "-sha256", "-days", _DAYS)
    run_openssl(directory, "req", "-x509", *new, "-subj", "/CN=authority", "-keyout", "ca-key.pem", "-out", "ca.pem")
    create_certificate(directory, "client", "extendedKeyUsage=clientAuth")
    return directory


def create_certificate(directory: Path, name: str, extension: str) -> None:
    """Create `NAME.pem` and `NAME-key.pem`, signed by the authority of the directory."""
    new = ("-newkey", "rsa:2048", "-nodes", "-sha256")
    run_openssl(
        directory, "req", "-new", *new, "-subj", f"/CN={name}", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr"
    )
    (directory / f"{name}.ext").write_text(extension + "\n")
    run_openssl(
        directory, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
        "-days", _DAYS, "-sha256", "-extfile", f"{name}.ext", "-out", f"{name}.pem",
    )  # fmt: skip


def alternative_names() -> str:
    """Return all possible sandbox addresses as alternative names of a certificate."""
    return ",".join(f"IP:{subnet.broadcast_address - 1}" for _, subnet in network.list_free_links([]))


def launch_with_tls(state: Path, cache: Path, keys: Path, **options: Any) -> sandbox.Sandbox:
    """Start a private engine that also listens on its own address, for clients of the authority in `keys`."""
    create_daemon_config = start.create_daemon_config

    def create_tls_config(plan: start.SandboxPlan) -> dict[str, Any]:
        files = {"tlscacert": "ca.pem", "tlscert": "server.pem", "tlskey": "server-key.pem"}
        config = create_daemon_config(plan)
        return config | {
            "hosts": [*config["hosts"], f"tcp://0.0.0.0:{TLS_PORT}"],
            "tlsverify": True,
            **{key: str(keys / name) for key, name in files.items()},
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "create_daemon_config", create_tls_config)
        return sandbox.launch_sandbox(state, cache=cache, **options)


def add_context(client: sandbox.Sandbox, config: Path, name: str, endpoint: str) -> None:
    """Create or update a Docker context in the client directory `config`."""
    context = config / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    command = [str(client.docker), "context", "update" if context.exists() else "create", name, "--docker", endpoint]
    subprocess.run(command, env={"DOCKER_CONFIG": str(config), "PATH": "/usr/bin"}, capture_output=True, check=True)


def create_client_directory(directory: Path, client: sandbox.Sandbox) -> Path:
    """Create a directory for `DOCKER_CONFIG` with just the plugins of an engine's packages."""
    directory.mkdir(parents=True)
    (directory / "cli-plugins").symlink_to(client.config_dir / "cli-plugins")
    return directory


@contextmanager
def ssh_server(box: sandbox.Sandbox, directory: Path, cache: Path) -> Iterator[Path]:
    """Run sshd in the namespaces of an engine; yield a directory for PATH with an `ssh` that can log in there."""
    directory.mkdir(parents=True)
    packages = unpacked(cache, "openssh-server", "libwrap0", "libnsl2", "libtirpc3")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
    config = directory / "sshd_config"
    config.write_text(
        f"Port {SSH_PORT}\nListenAddress {box.address}\nHostKey {directory}/host\n"
        f"AuthorizedKeysFile {directory}/user.pub\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nPidFile none\n"
        "SetEnv PATH=/run/engine/cli:/usr/bin:/bin DOCKER_HOST=unix:///run/lyra/docker.sock\n"
    )
    passwd = directory / "passwd"
    passwd.write_text(Path("/etc/passwd").read_text() + "sshd:x:65533:65533::/run/sshd:/usr/sbin/nologin\n")
    script = f"mkdir -p /run/sshd && mount -n --bind '{passwd}' /etc/passwd && exec \"$0\" -D -e -f '{config}'"
    command = ["nsenter", f"--target={box.pid}", "--mount", "--net", "--", "unshare", "--mount", "sh", "-c", script]
    environment = {"LD_LIBRARY_PATH": ":".join(map(str, libraries(packages))), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    with (directory / "sshd.log").open("wb") as log:
        server = subprocess.Popen([*command, str(packages / "usr/sbin/sshd")], env=environment, stderr=log)
    (directory / "known").write_text(f"[{box.address}]:{SSH_PORT} {(directory / 'host.pub').read_text()}")
    settings = directory / "ssh_config"
    settings.write_text(
        f"Host builder\n  HostName {box.address}\n  Port {SSH_PORT}\n  User root\n"
        f"Host *\n  IdentityFile {directory}/user\n  IdentitiesOnly yes\n  UserKnownHostsFile {directory}/known\n"
    )
    tools = directory / "tools"
    tools.mkdir()
    (tools / "ssh").write_text(f"#!/bin/sh\nexec /usr/bin/ssh -F '{settings}' \"$@\"\n")
    (tools / "ssh").chmod(0o755)
    try:
        deadline = time.monotonic() + 10
        while subprocess.run([tools / "ssh", "builder", "true"], capture_output=True, check=False).returncode:
            assert server.poll() is None and time.monotonic() < deadline, (directory / "sshd.log").read_text()
            time.sleep(0.1)
        yield tools
    finally:
        server.terminate()
        server.wait()


def libraries(root: Path) -> list[Path]:
    """Return the directories with shared libraries."""
    return sorted({path.parent for path in root.glob("**/*.so*")})


def use_context(project: Project, name: str) -> None:
    """Set the context in the project's configuration."""
    file = project.root / ".lyra.toml"
    file.write_text(file.read_text() + f'\n[engine]\ncontext = "{name}"\n')
    project.commit(f"use {name}")


@contextmanager
def serve_buildkit(box: sandbox.Sandbox) -> Iterator[str]:
    """Serve the BuildKit of an engine on the loopback interface, for a `remote` builder."""
    hello = b"POST /grpc HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"

    opened: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX)
            opened.extend((connection, engine))
            engine.connect(str(box.socket))
            engine.sendall(hello)
            head = b""
            while b"\r\n\r\n" not in head:
                head += engine.recv(1)
            assert b" 101 " in head.splitlines()[0], head
            for source, target in ((connection, engine), (engine, connection)):
                threading.Thread(target=forward, args=(source, target), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for connection in opened:
                connection.close()


def forward(source: socket.socket, target: socket.socket) -> None:
    """Forward bytes until the source is closed."""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def run_buildx(client: dict[str, str], box: sandbox.Sandbox, *arguments: str) -> None:
    """Run buildx with the environment of a client."""
    command = [str(box.docker), "buildx", *arguments]
    result = subprocess.run(command, env={**os.environ, **client}, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
