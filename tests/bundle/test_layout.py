"""File names of a bundle."""

from __future__ import annotations

import re

import pytest

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.checksums import require_valid_name
from lyra_tasks.bundle.format.manifest import BundledImage


def test_all_file_names_are_valid_in_checksums() -> None:
    names = [value for key, value in vars(layout).items() if key.isupper() and isinstance(value, str)]
    assert len(set(names)) == len(names)
    for name in set(names) - layout.NOT_IN_CHECKSUMS:
        require_valid_name(name)


@pytest.mark.parametrize("version", ["1.2.0", "1.2.1-dev.3+gabcdef0", "1.2.0-rc.1+gabc.dirty.0123abcd"])
@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm/v7"])
def test_archive_name_matches_the_manifest_pattern(version: str, platform: str) -> None:
    name = layout.image_file("web", version, platform)
    assert name == f"images/web-{version}-{platform.replace('/', '-')}.tar"
    pattern = next(item.pattern for item in BundledImage.model_fields["file"].metadata if hasattr(item, "pattern"))
    assert re.fullmatch(pattern, name)
