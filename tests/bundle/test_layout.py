"""The names in a bundle fit together."""

from __future__ import annotations

import re

import pytest

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import require_valid_name
from lyra_tasks.bundle.format.manifest import BundledImage


def test_every_file_of_a_bundle_can_be_summed_but_the_sums_themselves() -> None:
    names = [value for key, value in vars(layout).items() if key.isupper() and isinstance(value, str)]
    assert len(set(names)) == len(names)
    for name in set(names) - layout.NOT_IN_CHECKSUMS:
        require_valid_name(name)


@pytest.mark.parametrize("version", ["1.2.0", "1.2.1-dev.3+gabcdef0", "1.2.0-rc.1+gabc.dirty.0123abcd"])
@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm/v7"])
def test_an_archive_is_named_as_the_description_allows(version: str, platform: str) -> None:
    name = layout.image_file("web", version, platform)
    assert name == f"images/web-{version}-{platform.replace('/', '-')}.tar"
    pattern = next(each.pattern for each in BundledImage.model_fields["file"].metadata if hasattr(each, "pattern"))
    assert re.fullmatch(pattern, name)
