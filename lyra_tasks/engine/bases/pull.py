"""Find a locked image in the engine, or pull it by its digest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lyra_tasks import console
from lyra_tasks.dockerfile.lock_file import LockedImage
from lyra_tasks.engine.bases.inputs import BaseRequest
from lyra_tasks.engine.bases.registry import content_digest, find_local_image, image_platform, is_for_platform
from lyra_tasks.engine.bases.resolve import missing_pin_error
from lyra_tasks.engine.client.credentials import require_credential_helper
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.objects.inventory import IMAGE
from lyra_tasks.engine.objects.ownership import OwnedObject
from lyra_tasks.errors import PreconditionError
from lyra_tasks.redaction import strip_url_credentials
from lyra_tasks.references import familiar_reference, registry_host, strip_tag

if TYPE_CHECKING:
    from lyra_tasks.engine.workspace import Workspace

_MAX_REASON_LENGTH = 300
_NO_PLATFORM = re.compile(r"no match for platform|no matching manifest|does not match the specified platform")


@contextmanager
def find_or_pull(work: Workspace, request: BaseRequest, pin: LockedImage, reference: str) -> Iterator[str]:
    """Yield a name of a locked image in the engine, `reference` if it has that already.

    If it had to be pulled, its name is removed again at the end. Raises PreconditionError if it is not available.
    """
    client = work.engine.client
    if pin.local:
        for name in (pin.reference, reference):
            image = find_local_image(client, name)
            if image is not None and content_digest(image) == pin.digest:
                yield name
                return
        raise missing_pin_error(request, pin, f"the engine does not have this {pin.reference}")
    name = familiar_reference(f"{strip_tag(pin.reference)}@{pin.digest}")
    image = find_local_image(client, name)
    if image is not None and is_for_platform(image, request.platform):
        yield name
        return
    is_new = image is None
    if is_new:
        work.owner.record_image_intents(work.engine, [name], private=True)
    try:
        _pull(work, request, pin, name)
        yield name
    finally:
        if is_new:
            _remove_pulled_name(work, name)


def _pull(work: Workspace, request: BaseRequest, pin: LockedImage, name: str) -> None:
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException

    repository, _, digest = name.partition("@")
    require_credential_helper(registry_host(repository))
    api: Any = work.engine.stream_api
    reason = ""
    with console.progress(f"pulling {request.name} for {request.platform}"):
        try:
            lines = api.pull(repository, tag=digest, platform=request.platform, stream=True, decode=True)
            reason = next((str(line["error"]) for line in lines if "error" in line), "")
        except APIError as error:
            reason = str(error.explanation or error)
        except (DockerException, RequestException) as error:
            reason = str(error)
    if not reason and work.engine.facts.store == "containerd":
        return  # which of several platforms is inspected is up to the engine
    image = find_local_image(work.engine.client, name)
    if image is not None and is_for_platform(image, request.platform):
        return
    if image is not None or _NO_PLATFORM.search(reason):
        raise missing_platform_error(request, f"only for {image_platform(image)}" if image is not None else reason)
    first_line = strip_url_credentials((reason or "unknown reason").splitlines()[0])[:_MAX_REASON_LENGTH]
    raise missing_pin_error(request, pin, f"not available from the registry: {console.escape(first_line)}")


def missing_platform_error(request: BaseRequest, reason: str) -> PreconditionError:
    """Return the error for an image that its origin does not have for the requested platform."""
    service = request.locations[0].split(".")[1]
    return PreconditionError(
        f"{request.name} is not available for {request.platform}: {console.escape(reason)[:_MAX_REASON_LENGTH]}",
        hint=f"Set `platform` in [services.{service}] or change `proxima.platforms`, or name another image in [bases]",
        details=request.locations,
    )


def _remove_pulled_name(work: Workspace, name: str) -> None:
    """Remove the name that an image was pulled by, which nobody had before; the project's own reference keeps it."""
    from docker.errors import APIError, ImageNotFound

    image = find_local_image(work.engine.client, name)
    with translate_errors(f"removing {name}"):
        try:
            work.engine.api.remove_image(name)
        except ImageNotFound:
            pass
        except APIError as error:
            console.warn(f"Cannot remove {name}, which was pulled: {error.explanation}")
            return
    image_id = str(image["Id"]) if image is not None else name
    work.owner.record_removed(work.engine, [OwnedObject(IMAGE, name, image_id, work.run)])
