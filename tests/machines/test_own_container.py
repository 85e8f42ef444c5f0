"""The container of this program is recognized by what the engine mounts into it."""

from __future__ import annotations

import pytest

from lyra_tasks.engine.client.own_container import parse_container_id

CONTAINER = "0123456789abcdef" * 4
MOUNTS = "23 1 0:21 / /proc rw - proc proc rw\n650 639 254:1 {} /etc/hostname rw,relatime - ext4 /dev/vda1 rw\n"


@pytest.mark.parametrize(
    ("root", "container"),
    [
        (f"/var/lib/docker/containers/{CONTAINER}/hostname", CONTAINER),
        (f"/docker/containers/{CONTAINER}/resolv.conf", CONTAINER),
        (f"/containers/{CONTAINER}/hosts", CONTAINER),
        (f"/var/lib/docker/containers/{CONTAINER}/other", ""),
        (f"/var/lib/kubelet/pods/{CONTAINER}/etc-hosts", ""),
        ("/", ""),
    ],
)
def test_own_container_is_read_from_mounts(root: str, container: str) -> None:
    assert parse_container_id(MOUNTS.format(root)) == container
