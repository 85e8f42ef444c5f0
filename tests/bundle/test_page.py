"""Commands in `PROMOTION.md` can be pasted into a shell."""

from __future__ import annotations

import re
import shlex

from lyra_tasks.bundle.content.page import _head, _service, _trust
from lyra_tasks.bundle.format.manifest import Requirements
from tests.bundle.test_compose import services
from tests.bundle.test_receive_script import MANIFEST


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
    arm = image.model_copy(update={"platform": "linux/arm64", "file": "images/arm.tar"})
    door = image.model_copy(update={"name": "door", "file": "images/door.tar"})
    proxima = Requirements(platforms=["linux/amd64", "linux/arm64"], min_engine="20.10")
    manifest = MANIFEST.model_copy(update={"proxima": proxima, "images": [image, arm]})
    assert "or newer on linux/amd64, linux/arm64.\n" in _head(manifest)
    assert "or newer on linux/amd64.\n" in _head(manifest.model_copy(update={"images": [image, arm, door]}))
