"""Volumes of services that run without root: what the rule says of an image is what its user can do."""

from __future__ import annotations

import pytest

from tests.conftest import Project

DOCKERFILE = """
USER 0:0
RUN ["/bin/busybox", "ln", "-s", "../data", "/www/link"]
RUN ["/bin/busybox", "mkdir", "-m", "0775", "/shared"]
RUN ["/bin/busybox", "chown", "0:77", "/shared"]
COPY group /etc/group
USER 65534:65534
"""
GROUPS = "keepers:x:77:\nstrangers:x:78:\n"
VOLUMES = """
[services.web.volumes.linked]
path = "/www/link/deep"
description = "where a link leads"
size = "1m"

[services.web.volumes.shared]
path = "/shared"
description = "for the whole group"
size = "1m"

[[tests]]
name = "both volumes can be written"
service = "web"
exec = "echo kept > /data/deep/file && echo kept > /shared/file"
"""


@pytest.mark.usefixtures("named_contexts")
def test_user_writes_to_volumes_behind_links_and_of_its_groups(tiny: Project) -> None:
    (tiny.root / "app/data/deep").mkdir()
    (tiny.root / "app/data/deep/.keep").touch()
    (tiny.root / "app/group").write_text(GROUPS)
    for file, text in (("app/Dockerfile", DOCKERFILE), (".lyra.toml", VOLUMES)):
        with (tiny.root / file).open("a") as stream:
            stream.write(text)
    tiny.replace(".lyra.toml", "ports = { http = 8080 }\n", 'ports = { http = 8080 }\ngroup_add = ["keepers"]\n')
    tested = tiny.lyra("build", "test")
    assert tested.code == 0, tested.text
    tiny.replace(".lyra.toml", '["keepers"]', '["strangers"]')
    refused = tiny.lyra("build", "test")
    assert refused.code == 5, refused.text
    assert (
        "volume shared: user 65534:65534 cannot write: /shared belongs to 0:77 in the image (mode 0775)" in refused.err
    )
    assert "volume linked" not in refused.err


SHARING = """
[services.early]
image = "web"
limits = { cpus = 0.2, memory = "16m", pids = 16, disk = "8m" }
ports = { http = 8080 }
healthcheck = { http = "GET /", retries = 10, interval = "500ms", timeout = "1s" }

[services.early.volumes.data]
path = "/nowhere"
description = "what both keep"
size = "1m"
shared = "pool"

[[tests]]
name = "what one wrote, the other reads"
service = "early"
exec = "echo kept > /nowhere/file && cat /nowhere/file"
output = "kept"
"""


@pytest.mark.usefixtures("named_contexts")
@pytest.mark.parametrize("first", ["early", "web"])
def test_shared_volume_is_as_the_image_with_its_directory_has_it(tiny: Project, first: str) -> None:
    with (tiny.root / ".lyra.toml").open("a") as stream:
        stream.write(SHARING)
    tiny.replace(".lyra.toml", 'owner = "65534:65534"\n', 'shared = "pool"\n')
    service, dependency = ("web", "early") if first == "early" else ("early", "web")
    tiny.replace(".lyra.toml", f"[services.{service}]\n", f'[services.{service}]\ndepends_on = ["{dependency}"]\n')
    tested = tiny.lyra("build", "test")
    assert tested.code == 0, tested.text
