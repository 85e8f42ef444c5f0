"""Volumes of services that run without root: what the rule says of an image is what its user can do."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager

import pytest

from lyra_tasks.config.load import load_config
from lyra_tasks.engine.buildx.save_stream import SaveStream, open_save_stream
from lyra_tasks.engine.client.connect import Engine
from lyra_tasks.engine.sandbox import Sandbox
from lyra_tasks.engine.workspace import open_workspace
from lyra_tasks.rules import scanning
from tests.conftest import Project
from tests.engine.vendors import docker

DOCKERFILE = """
USER 0:0
RUN ["/bin/busybox", "ln", "-s", "../one", "/www/link"]
RUN ["/bin/busybox", "ln", "-s", "/two", "/one"]
RUN ["/bin/busybox", "ln", "-s", "data", "/two"]
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
def test_user_writes_to_volumes_behind_links_and_of_its_groups(tiny: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (tiny.root / "app/data/deep").mkdir()
    (tiny.root / "app/data/deep/.keep").touch()
    (tiny.root / "app/group").write_text(GROUPS)
    for file, text in (("app/Dockerfile", DOCKERFILE), (".lyra.toml", VOLUMES)):
        with (tiny.root / file).open("a") as stream:
            stream.write(text)
    tiny.replace(".lyra.toml", "ports = { http = 8080 }\n", 'ports = { http = 8080 }\ngroup_add = ["keepers"]\n')
    tested = tiny.lyra("build", "test")
    assert tested.code == 0, tested.text
    assert count_reads(tiny, monkeypatch) == 2, "once, and once more for all links"
    tiny.replace(".lyra.toml", '["keepers"]', '["strangers"]')
    refused = tiny.lyra("build", "test")
    assert refused.code == 5, refused.text
    assert (
        "volume shared: user 65534:65534 cannot write: /shared belongs to 0:77 in the image (mode 0775)" in refused.err
    )
    assert "volume linked" not in refused.err


def count_reads(project: Project, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how often the engine sends the image when it is scanned anew."""
    for key, value in project.environment.items():
        monkeypatch.setenv(key, value)
    reads = []

    def open_counted(engine: Engine, images: Sequence[str]) -> AbstractContextManager[SaveStream]:
        reads.append(images)
        return open_save_stream(engine, images)

    monkeypatch.setattr(scanning, "open_save_stream", open_counted)
    work = open_workspace(load_config(project.root))
    shutil.rmtree(work.paths.state / "scans")
    scans = scanning.scan_project_images(work, {record.image: record for record in work.images.list_records()})
    work.mark_finished()
    assert scans["web"].volume_owners["/www/link/deep"].startswith("65534:65534 ")
    return len(reads)


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


CROSSED = """
[services.early.volumes.other]
path = "/data"
description = "what both keep, too"
size = "1m"
shared = "other"

[services.web.volumes.other]
path = "/nowhere"
description = "what both keep, too"
size = "1m"
shared = "other"

[[tests]]
name = "what the other wrote, this one reads"
service = "web"
exec = "echo kept > /nowhere/file && cat /nowhere/file"
output = "kept"
"""


@pytest.mark.usefixtures("named_contexts")
def test_shared_volume_is_as_the_image_with_its_directory_has_it(tiny: Project) -> None:
    """Whoever is created first: of each of two volumes, the other one of the services has the directory."""
    with (tiny.root / ".lyra.toml").open("a") as stream:
        stream.write(SHARING + CROSSED)
    tiny.replace(".lyra.toml", 'owner = "65534:65534"\n', 'shared = "pool"\n')
    tiny.replace(".lyra.toml", "[services.web]\n", '[services.web]\ndepends_on = ["early"]\n')
    tested = tiny.lyra("build", "test")
    assert tested.code == 0, tested.text


OTHER_IMAGE = """
[images.other]
context = "app"
target = "other"
"""
OTHER_STAGE = """
FROM scratch AS other
COPY bin /bin
COPY www /www
COPY --chown=12345:12345 data /nowhere
USER 12345:12345
CMD ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]
"""


@pytest.mark.usefixtures("named_contexts")
def test_images_that_share_a_volume_need_the_same_owner(tiny: Project, box: Sandbox) -> None:
    dockerfile = tiny.root / "app/Dockerfile"
    dockerfile.write_text(f"{OTHER_STAGE}\n{dockerfile.read_text()}")
    with (tiny.root / ".lyra.toml").open("a") as stream:
        stream.write(OTHER_IMAGE + SHARING.replace('image = "web"', 'image = "other"'))
    tiny.replace(".lyra.toml", 'owner = "65534:65534"\n', 'shared = "pool"\n')
    refused = tiny.lyra("build", "test")
    assert refused.code == 5, refused.text
    for message in (
        "volume data: user 65534:65534 cannot write: /nowhere belongs to 12345:12345 in the image other (mode 0755)",
        "volume data: user 12345:12345 cannot write: /data belongs to 65534:65534 in the image web (mode 0755)",
    ):
        assert message in refused.err
    assert [
        create_with_new_volume(box, order)
        for order in (("web:/data", "other:/nowhere"), ("other:/nowhere", "web:/data"))
    ] == ["65534:65534", "12345:12345"], "Docker takes the first one that has files"


def create_with_new_volume(box: Sandbox, mounts: Sequence[str]) -> str:
    """Create a container of each image, in this order, with one new volume; return whom it belongs to then."""
    docker(box, "volume", "create", "pool")
    containers = []
    for mount in mounts:
        name, path = mount.split(":")
        image = docker(box, "image", "ls", "--quiet", f"tiny/{name}").split()[0]
        containers.append(docker(box, "container", "create", f"--volume=pool:{path}", image).strip())
    stat = ("/bin/busybox", "stat", "-c", "%u:%g", "/pool")
    owner = docker(box, "run", "--rm", "--network=none", "--volume=pool:/pool:nocopy", image, *stat).strip()
    docker(box, "container", "rm", *containers)
    docker(box, "volume", "rm", "pool")
    return owner
