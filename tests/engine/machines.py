"""Engines as other machines: at an address of their own, over TCP with TLS and over SSH, as Docker contexts."""

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
    """An engine that is reached over the network alone, by the Docker context `context`."""

    box: sandbox.Sandbox
    context: str

    def docker(self, *words: str) -> str:
        """What the engine itself answers, without the network."""
        command = [str(self.box.docker), *words]
        done = subprocess.run(command, env=self.box.environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def left(self) -> str:
        """Everything in the engine that somebody made."""
        lists = (("ps", "--all"), ("image", "ls", "--all"), ("volume", "ls"), ("network", "ls", "-f", "type=custom"))
        return "".join(self.docker(*words, "--quiet") for words in lists)


def openssl(folder: Path, *words: str) -> None:
    """Run openssl in a folder."""
    subprocess.run(["openssl", *words], cwd=folder, capture_output=True, check=True)


def authority(folder: Path) -> Path:
    """A throwaway certificate authority, and the certificate of a client."""
    folder.mkdir(parents=True)
    new = ("-newkey", "rsa:2048", "-nodes", "-sha256", "-days", _DAYS)
    openssl(folder, "req", "-x509", *new, "-subj", "/CN=authority", "-keyout", "ca-key.pem", "-out", "ca.pem")
    certificate(folder, "client", "extendedKeyUsage=clientAuth")
    return folder


def certificate(folder: Path, name: str, extension: str) -> None:
    """`NAME.pem` and `NAME-key.pem`, signed by the folder's authority."""
    new = ("-newkey", "rsa:2048", "-nodes", "-sha256")
    openssl(folder, "req", "-new", *new, "-subj", f"/CN={name}", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr")
    (folder / f"{name}.ext").write_text(extension + "\n")
    openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
        "-days", _DAYS, "-sha256", "-extfile", f"{name}.ext", "-out", f"{name}.pem",
    )  # fmt: skip


def every_address() -> str:
    """Every address that a sandbox may get, as names of a certificate."""
    return ",".join(f"IP:{subnet.broadcast_address - 1}" for _, subnet in network.list_free_links([]))


def with_tls(state: Path, cache: Path, keys: Path, **options: Any) -> sandbox.Sandbox:
    """A sandbox engine that also listens on its own address, for clients of the authority in `keys` alone."""
    usual = start.create_daemon_config

    def listening(plan: start.SandboxPlan) -> dict[str, Any]:
        files = {"tlscacert": "ca.pem", "tlscert": "server.pem", "tlskey": "server-key.pem"}
        config = usual(plan)
        return config | {
            "hosts": [*config["hosts"], f"tcp://0.0.0.0:{TLS_PORT}"],
            "tlsverify": True,
            **{key: str(keys / name) for key, name in files.items()},
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "daemon_config", listening)
        return sandbox.launch_sandbox(state, cache=cache, **options)


def add_context(client: sandbox.Sandbox, config: Path, name: str, endpoint: str) -> None:
    """Make a Docker context in the client folder `config`, or change it, with an engine's own command."""
    known = config / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    command = [str(client.docker), "context", "update" if known.exists() else "create", name, "--docker", endpoint]
    subprocess.run(command, env={"DOCKER_CONFIG": str(config), "PATH": "/usr/bin"}, capture_output=True, check=True)


def client_folder(folder: Path, client: sandbox.Sandbox) -> Path:
    """A `DOCKER_CONFIG` with the plugins of an engine's packages and nothing else."""
    folder.mkdir(parents=True)
    (folder / "cli-plugins").symlink_to(client.config_dir / "cli-plugins")
    return folder


@contextmanager
def ssh_server(box: sandbox.Sandbox, folder: Path, cache: Path) -> Iterator[Path]:
    """An sshd where the engine's network and files are, at the engine's address; yields a folder for PATH with an `ssh`
    that has a throwaway key for it.
    """
    folder.mkdir(parents=True)
    packages = unpacked_sshd(cache, folder / "packages")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    config = folder / "sshd_config"
    config.write_text(
        f"Port {SSH_PORT}\nListenAddress {box.address}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nPidFile none\n"
        "SetEnv PATH=/run/engine/cli:/usr/bin:/bin DOCKER_HOST=unix:///run/lyra/docker.sock\n"
    )
    passwd = folder / "passwd"
    passwd.write_text(Path("/etc/passwd").read_text() + "sshd:x:65533:65533::/run/sshd:/usr/sbin/nologin\n")
    inside = f"mkdir -p /run/sshd && mount -n --bind '{passwd}' /etc/passwd && exec \"$0\" -D -e -f '{config}'"
    command = ["nsenter", f"--target={box.pid}", "--mount", "--net", "--", "unshare", "--mount", "sh", "-c", inside]
    environment = {"LD_LIBRARY_PATH": ":".join(map(str, libraries(packages))), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    with (folder / "sshd.log").open("wb") as log:
        server = subprocess.Popen([*command, str(packages / "usr/sbin/sshd")], env=environment, stderr=log)
    (folder / "known").write_text(f"[{box.address}]:{SSH_PORT} {(folder / 'host.pub').read_text()}")
    settings = folder / "ssh_config"
    settings.write_text(
        f"Host builder\n  HostName {box.address}\n  Port {SSH_PORT}\n  User root\n"
        f"Host *\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known\n"
    )
    tools = folder / "tools"
    tools.mkdir()
    (tools / "ssh").write_text(f"#!/bin/sh\nexec /usr/bin/ssh -F '{settings}' \"$@\"\n")
    (tools / "ssh").chmod(0o755)
    try:
        deadline = time.monotonic() + 10
        while subprocess.run([tools / "ssh", "builder", "true"], capture_output=True, check=False).returncode:
            assert server.poll() is None and time.monotonic() < deadline, (folder / "sshd.log").read_text()
            time.sleep(0.1)
        yield tools
    finally:
        server.terminate()
        server.wait()


def unpacked_sshd(cache: Path, into: Path) -> Path:
    """An OpenSSH server out of its package, and the libraries that it needs; nothing is installed."""
    return unpacked(into, cache, "openssh-server", "libwrap0", "libnsl2", "libtirpc3")


def libraries(root: Path) -> list[Path]:
    """The folders that hold shared libraries."""
    return sorted({path.parent for path in root.glob("**/*.so*")})


def use_context(project: Project, name: str) -> None:
    """Write the context into the project's configuration."""
    file = project.root / ".lyra.toml"
    file.write_text(file.read_text() + f'\n[engine]\ncontext = "{name}"\n')
    project.commit(f"use {name}")


@contextmanager
def buildkit(box: sandbox.Sandbox) -> Iterator[str]:
    """The BuildKit of an engine as a server of its own on this machine's loopback: what a `remote` builder talks to."""
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
                threading.Thread(target=pass_on, args=(source, target), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for each in opened:
                each.close()


def pass_on(source: socket.socket, target: socket.socket) -> None:
    """Everything that comes, until it ends."""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def buildx(client: dict[str, str], box: sandbox.Sandbox, *words: str) -> None:
    """Run buildx as the owner of a client folder."""
    command = [str(box.docker), "buildx", *words]
    done = subprocess.run(command, env={**os.environ, **client}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
