"""A registry client for uploads: blobs and manifests keep their digests.

It follows the OCI distribution specification (https://github.com/opencontainers/distribution-spec). Credentials come
from the configuration of the `docker` command and appear neither in arguments nor in messages.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urljoin

from lyra_tasks.digests import sha256_digest
from lyra_tasks.documents import parse_foreign_json, shorten, translate_failures
from lyra_tasks.engine.client.credentials import find_registry_credentials
from lyra_tasks.errors import PreconditionError
from lyra_tasks.processes import call_with_timeout

if TYPE_CHECKING:
    from requests import Response, Session

_TIMEOUTS_S = (10, 600)  # to connect, and between two bytes: a registry may process a large blob for minutes
_EXCHANGE_TIMEOUT_S = 120.0
_MAX_TOKEN_BYTES = 1024**2
_TOKEN = re.compile(r"[!-~]+")
_CHALLENGE_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Repository:
    """A repository of a registry, with a session that may write to it."""

    host: str
    name: str
    session: Session

    def has_blob(self, digest: str) -> bool:
        """Return whether the registry has a blob."""
        return self._request("HEAD", f"blobs/{digest}", allowed=(200, 404)).status_code == 200

    def put_blob(self, digest: str, content: IO[bytes]) -> None:
        """Upload a blob in one request; the registry rejects content with another digest."""
        upload = self._request("POST", "blobs/uploads/", allowed=(202,))
        if "Location" not in upload.headers:
            raise PreconditionError(
                f"Cannot upload to {self.host}: it returned no upload location", hint="Check that it is a registry"
            )
        location = urljoin(upload.url, upload.headers["Location"])
        separator = "&" if "?" in location else "?"
        headers = {"Content-Type": "application/octet-stream"}
        self._request("PUT", f"{location}{separator}digest={digest}", allowed=(201,), data=content, headers=headers)

    def manifest_digest(self, tag: str) -> str:
        """Return the digest of a tag, or "" if the tag does not exist."""
        accepted = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
        response = self._request("GET", f"manifests/{tag}", allowed=(200, 404), headers={"Accept": accepted})
        return sha256_digest(response.content) if response.status_code == 200 else ""

    def put_manifest(self, reference: str, content: bytes, media_type: str) -> None:
        """Upload a manifest or index under a tag or its digest, which the registry must confirm."""
        headers = {"Content-Type": media_type}
        response = self._request("PUT", f"manifests/{reference}", allowed=(201,), data=content, headers=headers)
        digest = sha256_digest(content)
        stored_digest = response.headers.get("Docker-Content-Digest", digest)
        if stored_digest != digest:
            raise PreconditionError(
                f"{self.host} stored {self.name}:{reference} as {stored_digest} instead of {digest}"
            )

    def _request(self, method: str, path: str, *, allowed: tuple[int, ...], **options: Any) -> Response:
        url = urljoin(f"{_api_url(self.host)}{self.name}/", path)
        response = self._send(method, url, **options)
        if response.status_code == 401:
            # A token is valid for some minutes, and a large upload may take longer.
            _authenticate(self.session, self.host, self.name, response.headers.get("WWW-Authenticate", ""))
            response = self._send(method, url, **options)
        if response.status_code not in allowed:
            raise _rejection_error(self.host, self.name, response)
        return response

    def _send(self, method: str, url: str, **options: Any) -> Response:
        body = options.get("data", b"")
        if not isinstance(body, bytes):
            body.seek(0)

        def send() -> Response:
            return self.session.request(method, url, timeout=_TIMEOUTS_S, allow_redirects=method != "PUT", **options)

        with _translate_errors(self.host):
            return _exchange(self.host, send) if isinstance(body, bytes) else send()


def open_repository(host: str, name: str) -> Repository:
    """Open a repository for writing."""
    import requests

    session = requests.Session()
    # The proxies and .netrc of the environment are not for a registry on this machine.
    session.trust_env = not is_loopback(host)
    with _translate_errors(host):
        response = _exchange(host, lambda: session.get(_api_url(host), timeout=_TIMEOUTS_S))
    if response.status_code == 401:
        _authenticate(session, host, name, response.headers.get("WWW-Authenticate", ""))
    elif response.status_code != 200:
        raise _rejection_error(host, name, response)
    return Repository(host, name, session)


def is_loopback(host: str) -> bool:
    """Return whether a registry is on this machine, where it is contacted by plain HTTP."""
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
    """Authenticate the session as the challenge requires: by password, or by a token requested with it."""
    user, password = find_registry_credentials(host)
    basic = (user, password) if user else None
    if challenge.lower().startswith("basic"):
        session.auth = basic
        return
    parameters = dict(_CHALLENGE_PARAMETER.findall(challenge))
    if "realm" not in parameters:
        raise PreconditionError(f"Unknown authentication scheme of {host}: {shorten(challenge.partition(' ')[0])}")
    query = {"service": parameters.get("service", ""), "scope": f"repository:{name}:pull,push"}
    with _translate_errors(host):
        realm = parameters["realm"]
        response = _exchange(host, lambda: session.get(realm, params=query, auth=basic, timeout=_TIMEOUTS_S))
    if response.status_code != 200:
        raise _rejection_error(host, name, response)
    with translate_failures(
        lambda problem: PreconditionError(
            f"The token server of {host} sent no token: {problem}", hint=f"Run `docker login {shlex.quote(host)}`"
        )
    ):
        document = parse_foreign_json(response.content, max_bytes=_MAX_TOKEN_BYTES)
    token = document.get("token") or document.get("access_token") if isinstance(document, dict) else None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise PreconditionError(
            f"The token server of {host} returned no token", hint=f"Run `docker login {shlex.quote(host)}`"
        )
    session.headers["Authorization"] = f"Bearer {token}"


def _exchange(host: str, send: Callable[[], Response]) -> Response:
    """Return the response to a small request, which must be complete in time however slowly it arrives."""
    try:
        return call_with_timeout(_EXCHANGE_TIMEOUT_S, send)
    except TimeoutError as error:
        raise PreconditionError(
            f"Registry {host} did not answer within {_EXCHANGE_TIMEOUT_S:g} s", hint="Check that it works, and retry"
        ) from error


@contextmanager
def _translate_errors(host: str) -> Iterator[None]:
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (RequestException, HTTPError, UnicodeError) as error:
        raise PreconditionError(
            f"Registry {host} does not respond ({type(error).__name__})",
            hint="Check that it is running and reachable; plain HTTP is only used on this machine",
        ) from error


def _rejection_error(host: str, name: str, response: Response) -> PreconditionError:
    if response.status_code in {401, 403}:
        return PreconditionError(f"Access to {name} denied by {host}", hint=f"Run `docker login {shlex.quote(host)}`")
    status = f"{response.status_code} {shorten(response.reason)}"
    return PreconditionError(f"Request for {name} rejected by {host}: {status}")
