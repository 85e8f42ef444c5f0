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

_TIMEOUTS_S = (10, 600)  # seconds to connect, and between two bytes: a registry may think long about a large blob
_CHALLENGE_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Repository:
    """A repository of a registry, with a connection that is allowed to write to it."""

    host: str
    name: str
    session: Session

    def has_blob(self, digest: str) -> bool:
        """Whether the registry holds the blob already."""
        return self._request("HEAD", f"blobs/{digest}", allowed=(200, 404)).status_code == 200

    def put_blob(self, digest: str, content: IO[bytes]) -> None:
        """Upload a blob, the whole of `content`, in one request; the registry rejects it unless it has the digest."""
        upload = self._request("POST", "blobs/uploads/", allowed=(202,))
        if "Location" not in upload.headers:
            raise PreconditionError(f"{self.host} does not say where to upload to", hint="see that it is a registry")
        location = urljoin(upload.url, upload.headers["Location"])
        separator = "&" if "?" in location else "?"
        headers = {"Content-Type": "application/octet-stream"}
        self._request("PUT", f"{location}{separator}digest={digest}", allowed=(201,), data=content, headers=headers)

    def manifest_digest(self, tag: str) -> str:
        """The digest that a tag stands for, or nothing if there is no such tag."""
        accepted = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
        response = self._request("GET", f"manifests/{tag}", allowed=(200, 404), headers={"Accept": accepted})
        return _digest(response.content) if response.status_code == 200 else ""

    def put_manifest(self, reference: str, content: bytes, media_type: str) -> None:
        """Put a manifest or index under a tag or its digest; PreconditionError if it is another one afterwards."""
        headers = {"Content-Type": media_type}
        response = self._request("PUT", f"manifests/{reference}", allowed=(201,), data=content, headers=headers)
        stored_digest = response.headers.get("Docker-Content-Digest", _digest(content))
        if stored_digest != _digest(content):
            raise PreconditionError(
                f"{self.host} keeps {self.name}:{reference} as {stored_digest}, not as {_digest(content)}"
            )

    def _request(self, method: str, path: str, *, allowed: tuple[int, ...], **options: Any) -> Response:
        url = urljoin(f"{_api_url(self.host)}{self.name}/", path)
        response = self._send(method, url, **options)
        if response.status_code == 401:
            # a token is good for some minutes, and what was sent with it may have taken longer
            _authenticate(self.session, self.host, self.name, response.headers.get("WWW-Authenticate", ""))
            response = self._send(method, url, **options)
        if response.status_code not in allowed:
            raise _rejection_error(self.host, self.name, response)
        return response

    def _send(self, method: str, url: str, **options: Any) -> Response:
        body = options.get("data", b"")
        if not isinstance(body, bytes):
            body.seek(0)
        with _translate_errors(self.host):
            return self.session.request(method, url, timeout=_TIMEOUTS_S, allow_redirects=method != "PUT", **options)


def open_repository(host: str, name: str) -> Repository:
    """Open a repository for writing; PreconditionError if the registry does not answer or does not let us in."""
    import requests

    session = requests.Session()
    # a proxy or a .netrc of the environment is not meant for a registry of this machine
    session.trust_env = not is_loopback(host)
    with _translate_errors(host):
        response = session.get(_api_url(host), timeout=_TIMEOUTS_S)
    if response.status_code == 401:
        _authenticate(session, host, name, response.headers.get("WWW-Authenticate", ""))
    elif response.status_code != 200:
        raise _rejection_error(host, name, response)
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


def _api_url(host: str) -> str:
    return f"{'http' if is_loopback(host) else 'https'}://{host}/v2/"


def _authenticate(session: Session, host: str, name: str, challenge: str) -> None:
    """Give the session what the registry asks for: name and password, or a token that these are exchanged for."""
    user, password = _credentials(host)
    basic = (user, password) if user else None
    if challenge.lower().startswith("basic"):
        session.auth = basic
        return
    parameters = dict(_CHALLENGE_PARAMETER.findall(challenge))
    if "realm" not in parameters:
        raise PreconditionError(f"{host} asks for a sign-in that is not known: {challenge.split(' ')[0]}")
    query = {"service": parameters.get("service", ""), "scope": f"repository:{name}:pull,push"}
    with _translate_errors(host):
        response = session.get(parameters["realm"], params=query, auth=basic, timeout=_TIMEOUTS_S)
    if response.status_code != 200:
        raise _rejection_error(host, name, response)
    with _translate_errors(host):
        token_response = response.json()
    token = (
        token_response.get("token") or token_response.get("access_token") if isinstance(token_response, dict) else None
    )
    if not token:
        raise PreconditionError(f"what {host} sends to for a token gives none", hint=f"sign in: `docker login {host}`")
    session.headers["Authorization"] = f"Bearer {token}"


def _credentials(host: str) -> tuple[str, str]:
    """User and password for a registry as `docker login` keeps them, or nothing."""
    from docker.auth import load_config
    from docker.errors import DockerException

    try:
        credentials = load_config().resolve_authconfig(host) or {}
    except DockerException as error:
        raise PreconditionError(
            f"the credential helper for {host} failed", hint=f"see that `docker login {host}` works"
        ) from error
    get = {str(key).lower(): str(value) for key, value in credentials.items() if value}.get
    return get("username", ""), get("password", "")


@contextmanager
def _translate_errors(host: str) -> Iterator[None]:
    from requests.exceptions import RequestException

    try:
        yield
    except RequestException as error:
        raise PreconditionError(
            f"the registry {host} does not answer ({type(error).__name__})",
            hint="see that it runs and is reachable from here; plain HTTP is spoken on this machine alone",
        ) from error


def _rejection_error(host: str, name: str, response: Response) -> PreconditionError:
    if response.status_code in {401, 403}:
        return PreconditionError(f"{host} does not let us write to {name}", hint=f"sign in: `docker login {host}`")
    return PreconditionError(f"{host} refused {name}: {response.status_code} {response.reason}")


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
