"""A registry, written to by the OCI distribution API: blobs and manifests keep the digests that they have.

https://github.com/opencontainers/distribution-spec. Credentials are those of the `docker` command (its configuration
and credential helpers); they are neither in arguments nor in messages.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urljoin

from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    from requests import Response, Session

_PATIENCE = (10, 600)  # seconds to connect, and between two bytes: a registry may think long about a large blob
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Repository:
    """A repository of a registry, with a connection that is allowed to write to it."""

    host: str
    name: str
    session: Session

    def has_blob(self, digest: str) -> bool:
        """Whether the registry holds the blob already."""
        return self._ask("HEAD", f"blobs/{digest}", allowed=(200, 404)).status_code == 200

    def put_blob(self, digest: str, content: IO[bytes]) -> None:
        """Upload a blob, the whole of `content`, in one request; the registry rejects it unless it has the digest."""
        begun = self._ask("POST", "blobs/uploads/", allowed=(202,))
        if "Location" not in begun.headers:
            raise PreconditionError(f"{self.host} does not say where to upload to", hint="see that it is a registry")
        place = urljoin(begun.url, begun.headers["Location"])
        separator = "&" if "?" in place else "?"
        headers = {"Content-Type": "application/octet-stream"}
        self._ask("PUT", f"{place}{separator}digest={digest}", allowed=(201,), data=content, headers=headers)

    def manifest_digest(self, tag: str) -> str:
        """The digest that a tag stands for, or nothing if there is no such tag."""
        accepted = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
        answer = self._ask("GET", f"manifests/{tag}", allowed=(200, 404), headers={"Accept": accepted})
        return _digest(answer.content) if answer.status_code == 200 else ""

    def put_manifest(self, reference: str, content: bytes, media_type: str) -> None:
        """Put a manifest or index under a tag or its digest; PreconditionError if it is another one afterwards."""
        headers = {"Content-Type": media_type}
        answer = self._ask("PUT", f"manifests/{reference}", allowed=(201,), data=content, headers=headers)
        told = answer.headers.get("Docker-Content-Digest", _digest(content))
        if told != _digest(content):
            raise PreconditionError(f"{self.host} keeps {self.name}:{reference} as {told}, not as {_digest(content)}")

    def _ask(self, method: str, path: str, *, allowed: tuple[int, ...], **more: Any) -> Response:
        url = urljoin(f"{_base(self.host)}{self.name}/", path)
        answer = self._send(method, url, **more)
        if answer.status_code == 401:
            # a token is good for some minutes, and what was sent with it may have taken longer
            _sign_in(self.session, self.host, self.name, answer.headers.get("WWW-Authenticate", ""))
            answer = self._send(method, url, **more)
        if answer.status_code not in allowed:
            raise _refusal(self.host, self.name, answer)
        return answer

    def _send(self, method: str, url: str, **more: Any) -> Response:
        body = more.get("data", b"")
        if not isinstance(body, bytes):
            body.seek(0)
        with _faults(self.host):
            return self.session.request(method, url, timeout=_PATIENCE, allow_redirects=method != "PUT", **more)


def repository(host: str, name: str) -> Repository:
    """Open a repository for writing; PreconditionError if the registry does not answer or does not let us in."""
    import requests

    session = requests.Session()
    # a proxy or a .netrc of the environment is not meant for a registry of this machine
    session.trust_env = not is_loopback(host)
    with _faults(host):
        answer = session.get(_base(host), timeout=_PATIENCE)
    if answer.status_code == 401:
        _sign_in(session, host, name, answer.headers.get("WWW-Authenticate", ""))
    elif answer.status_code != 200:
        raise _refusal(host, name, answer)
    return Repository(host, name, session)


def is_loopback(host: str) -> bool:
    """Whether a registry is on this machine; only there is plain HTTP spoken."""
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _base(host: str) -> str:
    return f"{'http' if is_loopback(host) else 'https'}://{host}/v2/"


def _sign_in(session: Session, host: str, name: str, challenge: str) -> None:
    """Give the session what the registry asks for: name and password, or a token that these are exchanged for."""
    user, password = _credentials(host)
    basic = (user, password) if user else None
    if challenge.lower().startswith("basic"):
        session.auth = basic
        return
    asked = dict(_PARAMETER.findall(challenge))
    if "realm" not in asked:
        raise PreconditionError(f"{host} asks for a sign-in that is not known: {challenge.split(' ')[0]}")
    wanted = {"service": asked.get("service", ""), "scope": f"repository:{name}:pull,push"}
    with _faults(host):
        answer = session.get(asked["realm"], params=wanted, auth=basic, timeout=_PATIENCE)
    if answer.status_code != 200:
        raise _refusal(host, name, answer)
    with _faults(host):
        told = answer.json()
    token = told.get("token") or told.get("access_token") if isinstance(told, dict) else None
    if not token:
        raise PreconditionError(f"what {host} sends to for a token gives none", hint=f"sign in: `docker login {host}`")
    session.headers["Authorization"] = f"Bearer {token}"


def _credentials(host: str) -> tuple[str, str]:
    """User and password for a registry as `docker login` keeps them, or nothing."""
    from docker.auth import load_config
    from docker.errors import DockerException

    try:
        found = load_config().resolve_authconfig(host) or {}
    except DockerException as error:
        raise PreconditionError(
            f"the credential helper for {host} failed", hint=f"see that `docker login {host}` works"
        ) from error
    get = {str(key).lower(): str(value) for key, value in found.items() if value}.get
    return get("username", ""), get("password", "")


@contextmanager
def _faults(host: str) -> Iterator[None]:
    from requests.exceptions import RequestException

    try:
        yield
    except RequestException as error:
        raise PreconditionError(
            f"the registry {host} does not answer ({type(error).__name__})",
            hint="see that it runs and is reachable from here; plain HTTP is spoken on this machine alone",
        ) from error


def _refusal(host: str, name: str, answer: Response) -> PreconditionError:
    if answer.status_code in {401, 403}:
        return PreconditionError(f"{host} does not let us write to {name}", hint=f"sign in: `docker login {host}`")
    return PreconditionError(f"{host} refused {name}: {answer.status_code} {answer.reason}")


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
