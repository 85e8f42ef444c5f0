"""Check the images of services: an own name or a reference, and not a misspelt name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lyra_tasks.config.models import Service
from lyra_tasks.config.validation.positions import Location
from lyra_tasks.config.validation.problems import Problem, quote_text
from lyra_tasks.references import normalize_reference, strip_tag
from lyra_tasks.suggest import is_misspelling

_MAX_REPOSITORY_LENGTH = 255  # https://pkg.go.dev/github.com/distribution/reference#RepositoryNameTotalLengthMax
_IMAGE_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}")


def check_image(location: Location, service: Service, project: str, document: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems of a service's image; an own image also counts if its table in `document` is not valid."""
    tables = document.get("images")
    own_images = tables.keys() if isinstance(tables, dict) else ()
    if service.image in own_images:
        if service.platform is not None:
            message = f"is for third-party images; set platforms in [images.{service.image}]"
            yield Problem((*location, "platform"), message)
        return
    yield from _check_reference((*location, "image"), service.image, project, own_images)
    name = location[-1]
    if name in own_images:
        message = f"runs the third-party image {quote_text(service.image)}, and [images.{name}] has the same name"
        yield Problem(location, f"{message}: rename one, since a third-party image has the name of its service")
    if service.dev is not None and service.dev.source is not None:
        yield Problem((*location, "dev", "source"), "a third-party image has no source here; remove it")


def _check_reference(
    location: Location, reference: str, project: str, own_images: Collection[str]
) -> Iterator[Problem]:
    if _IMAGE_ID.fullmatch(reference):
        yield Problem(location, "is the id of an image, which only one engine knows; write its reference")
        return
    if len(strip_tag(reference)) > _MAX_REPOSITORY_LENGTH:
        yield Problem(location, f"is longer than an engine takes, {_MAX_REPOSITORY_LENGTH} characters without the tag")
        return
    written_name = strip_tag(reference).removeprefix(f"{project}/")
    nearest = [name for name in own_images if name == written_name or is_misspelling(written_name, name)]
    if nearest:
        own_name = written_name if written_name in nearest else nearest[0]
        yield Problem(
            location,
            f"{quote_text(reference)} is not defined in [images]; did you mean {quote_text(own_name)}? "
            f"A third-party image of this name is written {quote_text(normalize_reference(reference))}",
        )
