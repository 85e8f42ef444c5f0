"""What an image reference is now: in a registry, asked through the engine within a bounded time, or in the engine."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lyra_tasks.errors import ConfigurationError
from lyra_tasks.redaction import strip_url_credentials

if TYPE_CHECKING:
    import docker

LOOKUP_TIMEOUT_S = 10  # seconds; an unanswered name server alone takes an engine twice as long

# What makes up an image whatever engine shows it: these keys are in every API version, and mean the same.
_CONTENT_SETTINGS = ("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "Labels", "ExposedPorts", "Volumes", "OnBuild")


class RegistryLookup:
    """Digests of references, asked for through the engine; a registry that was silent once is not asked again."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client
        self._unreachable: dict[str, str] = {}

    def find_digest(self, reference: str) -> tuple[str, str]:
        """The digest that a registry gives for `reference`, and an empty reason; or no digest and the reason."""
        from docker.errors import APIError, DockerException
        from requests.exceptions import RequestException

        host = registry_host(reference)
        if host in self._unreachable:
            return "", self._unreachable[host]
        try:
            with _short_timeout(self._client) as api:
                response = api.inspect_distribution(reference)
            return str(response["Descriptor"]["digest"]), ""
        except APIError as error:
            reason = _shorten_reason(str(error.explanation or "no reason given"))
            if error.status_code is not None and error.status_code >= 500:
                self._unreachable[host] = reason
            return "", reason
        except (DockerException, RequestException) as error:
            self._unreachable[host] = f"no answer within {LOOKUP_TIMEOUT_S} s ({type(error).__name__})"
            return "", self._unreachable[host]


def find_local_image(client: docker.DockerClient, reference: str) -> dict[str, Any] | None:
    """What the engine says about an image that it holds, or None."""
    from docker.errors import APIError, ImageNotFound

    api: Any = client.api
    try:
        image: dict[str, Any] = api.inspect_image(reference)
    except ImageNotFound:
        return None
    except APIError as error:
        if error.status_code == 400:
            raise ConfigurationError(
                f"{reference!r} is not an image reference", hint="write it as NAME:TAG or NAME@sha256:…"
            ) from error
        raise
    return image


def content_digest(image: dict[str, Any]) -> str:
    """A digest of layers and settings of an inspected image; its id would be another one in another image store."""
    config = image.get("Config") or {}
    content = {
        "layers": image["RootFS"].get("Layers") or [],
        "platform": [image["Os"], image["Architecture"], image.get("Variant") or ""],
        **{key: config.get(key) or None for key in _CONTENT_SETTINGS},
    }
    return f"sha256:{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}"


def image_platform(image: dict[str, Any]) -> str:
    """The platform of an inspected image."""
    return "/".join(str(image[key]) for key in ("Os", "Architecture", "Variant") if image.get(key))


def is_for_platform(image: dict[str, Any], platform: str) -> bool:
    """Whether an inspected image is for `platform`; what either leaves unsaid of the variant is no difference."""
    pairs = zip(platform.split("/"), image_platform(image).split("/"), strict=False)
    return all(expected == actual for expected, actual in pairs)


def registry_host(reference: str) -> str:
    """The registry of a reference, as Docker reads it: `docker.io` unless the first part looks like a host."""
    first, slash, _ = reference.partition("/")
    return first if slash and (re.search(r"[.:]", first) or first == "localhost") else "docker.io"


def pin_reference(reference: str, digest: str) -> str:
    """`reference` with the digest that it must have."""
    return reference if "@" in reference else f"{reference}@{digest}"


def strip_tag(reference: str) -> str:
    """The name in a reference, with neither tag nor digest."""
    return re.sub(r":[^:/]+$", "", reference.partition("@")[0])


@contextmanager
def _short_timeout(client: docker.DockerClient) -> Iterator[Any]:
    api: Any = client.api
    previous_timeout, api.timeout = api.timeout, LOOKUP_TIMEOUT_S
    try:
        yield api
    finally:
        api.timeout = previous_timeout


def _shorten_reason(reason: str) -> str:
    return strip_url_credentials(reason.splitlines()[0])[:300]
