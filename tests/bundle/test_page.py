"""Commands in `PROMOTION.md` can be pasted into a shell."""

from __future__ import annotations

import re
import shlex

from lyra_tasks.bundle.content.page import _head, _images, _service, _trust
from lyra_tasks.bundle.format.manifest import ImageOrigin, Requirements, TestDouble
from tests.bundle.test_compose import services
from tests.bundle.test_receive_script import DIGESTS, MANIFEST, with_images


def test_page_quotes_signer() -> None:
    lines = [line for line in _trust("Ada o'Lovelace").splitlines() if "--signer" in line or "-I" in line]
    by_hand, by_script = (shlex.split(line.partition("`")[2].partition("`")[0] or line) for line in lines)
    assert by_hand[by_hand.index("-I") + 1] == by_script[by_script.index("--signer") + 1] == "Ada o'Lovelace"


def test_page_quotes_volume_path() -> None:
    (web,) = services({"web": {"image": "web", "volumes": {"data": {"path": "/my $data"}}}})
    (command,) = re.findall("`(docker compose cp .*?)`", _service(web))
    assert shlex.split(command)[3:] == ["web:/my $data", "-", ">", "web-data.tar"]


def test_page_lists_platforms_of_all_images_only() -> None:
    (image,) = MANIFEST.images
    arm = image.model_copy(update={"platform": "linux/arm64"})
    door = image.model_copy(update={"name": "door"})
    proxima = Requirements(platforms=["linux/amd64", "linux/arm64"], min_engine="20.10")
    manifest = with_images(image, arm, manifest=MANIFEST.model_copy(update={"proxima": proxima}))
    assert "or newer on linux/amd64, linux/arm64.\n" in _head(manifest)
    assert "or newer on linux/amd64.\n" in _head(with_images(image, arm, door, manifest=manifest))


def test_page_names_archives_origins_and_test_doubles() -> None:
    (image,) = MANIFEST.images
    origin = ImageOrigin(reference="docker.io/library/redis:7", digest=DIGESTS[3], source="registry")
    cache = image.model_copy(update={"name": "cache", "references": ["shop/cache:1"], "origin": origin})
    double = TestDouble(service="mail", reference="mailpit:1")
    manifest = with_images(image, cache, manifest=MANIFEST.model_copy(update={"test_doubles": [double]}))
    page = _images(manifest)
    assert f"`{manifest.archives[0].file}` (1000 B) has all images for linux/amd64." in page
    assert f"| shop/cache:1 | docker.io/library/redis:7 | `{DIGESTS[3]}` | registry |" in page
    assert "Not included, since only tests run it:\n\n| service | image |\n|---|---|\n| mail | mailpit:1 |" in page
    own = _images(MANIFEST)
    assert "Third-party" not in own and "Not included" not in own
