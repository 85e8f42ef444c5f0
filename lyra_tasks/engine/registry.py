"""What an image reference is now: in a registry, asked through the engine within a bounded time, or in the engine."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lyra_tasks.config.text import public
from lyra_tasks.errors import ConfigurationError

if TYPE_CHECKING:
    import docker

PATIENCE = 10  # seconds; an unanswered name server alone takes an engine twice as long

# What makes up an image whatever engine shows it: these keys are in every API version, and mean the same.
_SETTINGS = ("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "Labels", "ExposedPorts", "Volumes", "OnBuild")


class Registry:
    """Digests of references, asked for through the engine; a registry that was silent once is not asked again."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client
        self._silent: dict[str, str] = {}

    def digest(self, reference: str) -> tuple[str, str]:
        """The digest that a registry gives for `reference`, and an empty reason; or no digest and the reason."""
        from docker.errors import APIError, DockerException
        from requests.exceptions import RequestException

        host = host_of(reference)
        if host in self._silent:
            return "", self._silent[host]
        try:
            with _impatient(self._client) as api:
                answer = api.inspect_distribution(reference)
            return str(answer["Descriptor"]["digest"]), ""
        except APIError as error:
            reason = _public(str(error.explanation or "no reason given"))
            if error.status_code is not None and error.status_code >= 500:
                self._silent[host] = reason
            return "", reason
        except (DockerException, RequestException) as error:
            self._silent[host] = f"no answer within {PATIENCE} s ({type(error).__name__})"
            return "", self._silent[host]


def held(client: docker.DockerClient, reference: str) -> dict[str, Any] | None:
    """What the engine says about an image that it holds, or None."""
    from docker.errors import APIError, ImageNotFound

    api: Any = client.api
    try:
        found: dict[str, Any] = api.inspect_image(reference)
    except ImageNotFound:
        return None
    except APIError as error:
        if error.status_code == 400:
            raise ConfigurationError(
                f"{reference!r} is not an image reference", hint="write it as NAME:TAG or NAME@sha256:…"
            ) from error
        raise
    return found


def content_digest(image: dict[str, Any]) -> str:
    """A digest of layers and settings of an inspected image; its id would be another one in another image store."""
    config = image.get("Config") or {}
    content = {
        "layers": image["RootFS"].get("Layers") or [],
        "platform": [image["Os"], image["Architecture"], image.get("Variant") or ""],
        **{key: config.get(key) or None for key in _SETTINGS},
    }
    return f"sha256:{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}"


def platform_of(image: dict[str, Any]) -> str:
    """The platform of an inspected image."""
    return "/".join(str(image[key]) for key in ("Os", "Architecture", "Variant") if image.get(key))


def is_for(image: dict[str, Any], platform: str) -> bool:
    """Whether an inspected image is for `platform`; what either leaves unsaid of the variant is no difference."""
    pairs = zip(platform.split("/"), platform_of(image).split("/"), strict=False)
    return all(wanted == found for wanted, found in pairs)


def host_of(reference: str) -> str:
    """The registry of a reference, as Docker reads it: `docker.io` unless the first part looks like a host."""
    first, slash, _ = reference.partition("/")
    return first if slash and (re.search(r"[.:]", first) or first == "localhost") else "docker.io"


def pinned(reference: str, digest: str) -> str:
    """`reference` with the digest that it must have."""
    return reference if "@" in reference else f"{reference}@{digest}"


def without_tag(reference: str) -> str:
    """The name in a reference, with neither tag nor digest."""
    return re.sub(r":[^:/]+$", "", reference.partition("@")[0])


@contextmanager
def _impatient(client: docker.DockerClient) -> Iterator[Any]:
    api: Any = client.api
    usual, api.timeout = api.timeout, PATIENCE
    try:
        yield api
    finally:
        api.timeout = usual


def _public(reason: str) -> str:
    return public(reason.splitlines()[0])[:300]
