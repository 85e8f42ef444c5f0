"""Digests of image references: from a registry, through the engine and with a short timeout, or from the engine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lyra_tasks.digests import sha256_digest
from lyra_tasks.engine.client.credentials import helper_failure, require_credential_helper
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.redaction import strip_url_credentials
from lyra_tasks.references import registry_host

if TYPE_CHECKING:
    import docker

LOOKUP_TIMEOUT_S = 10  # an engine waits twice as long for a silent name server alone

# The settings that every API version reports with the same meaning.
_CONTENT_SETTINGS = ("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "Labels", "ExposedPorts", "Volumes", "OnBuild")


class RegistryLookup:
    """Digests of references in registries, asked through the engine; an unreachable registry is asked only once."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client
        self._unreachable: dict[str, str] = {}

    def find_digest(self, reference: str) -> tuple[str, str]:
        """Return the digest of `reference` in its registry and "", or "" and the reason why there is none."""
        from docker.errors import APIError, DockerException
        from requests.exceptions import RequestException

        host = registry_host(reference)
        if host in self._unreachable:
            return "", self._unreachable[host]
        require_credential_helper(host)
        api: Any = self._client.api
        previous_timeout, api.timeout = api.timeout, LOOKUP_TIMEOUT_S
        try:
            return str(api.inspect_distribution(reference)["Descriptor"]["digest"]), ""
        except APIError as error:
            reason = strip_url_credentials(str(error.explanation or "unknown reason").splitlines()[0])[:300]
            if error.status_code is not None and error.status_code >= 500:
                self._unreachable[host] = reason
            return "", reason
        except RequestException as error:
            self._unreachable[host] = f"no answer within {LOOKUP_TIMEOUT_S} s ({type(error).__name__})"
            return "", self._unreachable[host]
        except DockerException as error:  # of the SDK itself, from the settings or a credential helper
            raise helper_failure(host) from error
        finally:
            api.timeout = previous_timeout


def find_local_image(client: docker.DockerClient, reference: str) -> dict[str, Any] | None:
    """Inspect an image in the engine; None if it is not there."""
    from docker.errors import APIError, ImageNotFound

    api: Any = client.api
    try:
        image: dict[str, Any] = api.inspect_image(reference)
    except ImageNotFound:
        return None
    except APIError as error:
        if error.status_code == 400:
            raise ConfigurationError(
                f"{reference!r} is not an image reference", hint="Write it as NAME:TAG or NAME@sha256:…"
            ) from error
        raise
    return image


def content_digest(image: dict[str, Any]) -> str:
    """Return a digest of the layers and settings of an inspected image, the same in every image store."""
    config = image.get("Config") or {}
    content = {
        "layers": list(image_diff_ids(image)),
        "platform": [image["Os"], image["Architecture"], image.get("Variant") or ""],
        **{key: config.get(key) or None for key in _CONTENT_SETTINGS},
    }
    return sha256_digest(json.dumps(content, sort_keys=True).encode())


def image_diff_ids(image: dict[str, Any]) -> tuple[str, ...]:
    """Return the diff ids of an inspected image's layers."""
    return tuple(image["RootFS"].get("Layers") or ())


def image_platform(image: dict[str, Any]) -> str:
    """Return the platform of an inspected image."""
    return "/".join(str(image[key]) for key in ("Os", "Architecture", "Variant") if image.get(key))


def is_for_platform(image: dict[str, Any], platform: str) -> bool:
    """Return whether an inspected image is for `platform`; a missing variant matches any."""
    pairs = zip(platform.split("/"), image_platform(image).split("/"), strict=False)
    return all(expected == actual for expected, actual in pairs)
