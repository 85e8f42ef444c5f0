from __future__ import annotations

from dataclasses import replace
from typing import Any

from lyra_tasks.builds.plan import BuildFacts, BuildFlags, BuildPlan, plan_build
from lyra_tasks.config.models import Configuration
from lyra_tasks.config.platforms import list_variants
from lyra_tasks.dockerfile.lock_file import LockedImage, LockedRootfs
from lyra_tasks.engine.bases.materials import BuildMaterials
from lyra_tasks.engine.bases.resolve import ResolvedBase
from lyra_tasks.engine.buildx.builder import Builder

ROOTFS = ResolvedBase(
    "python",
    LockedRootfs(
        suite="bookworm", variant="custom", packages=("python3",), architecture="amd64", sha256="a" * 64,
        source_date_epoch=1, resolved=(), tools={},
    ),
    "target:base-python",
    target_name="base-python",
    bake_target={"context": "/cache/rootfs"},
    tag="127.0.0.1:1/lyra-base/python:aaaaaaaaaaaa",
)  # fmt: skip
PULLED = ResolvedBase(
    "alpine", LockedImage(reference="alpine:3", digest=f"sha256:{'b' * 64}"), f"docker-image://alpine@sha256:{'b' * 64}"
)


BASES = {"web": {"python:3": ROOTFS}, "db": {"python:3": ROOTFS, "alpine:3": PULLED}}


def planned(
    image: dict[str, Any] | None = None,
    flags: BuildFlags | None = None,
    arguments: dict[str, dict[str, str]] | None = None,
    images: dict[str, dict[str, Any]] | None = None,
    platforms: list[str] | None = None,
    **facts: Any,
) -> BuildPlan:
    config = Configuration.model_validate(
        {
            "schema": 1,
            "project": {"name": "shop", "licenses": "MIT"},
            "proxima": {"platforms": platforms or ["linux/amd64"]},
            "images": {
                "web": {"context": "web", **(image or {})},
                "db": {"context": "db", **(images or {}).get("db", {})},
            },
        }
    )
    every: dict[str, Any] = {
        "materials": BuildMaterials("/project", BASES, arguments),
        "version": "1.2.3", "image_tag": "1.2.3", "commit": "c0ffee", "dirty": False, "epoch": 7,
        "source": "https://example.org/shop", "store": "containerd",
        "inputs": {"web": {"context": "1"}, "db": {"context": "2"}},
    }  # fmt: skip
    return plan_build(config, BuildFacts(**{**every, **facts}), list_variants(config), flags or BuildFlags())


def target(result: BuildPlan, name: str = "image-web") -> dict[str, Any]:
    found: dict[str, Any] = result.definition["target"][name]
    return found


def test_all_images_are_in_one_definition_and_are_built_together() -> None:
    assert planned().definition["group"] == {"default": {"targets": ["image-web", "image-db"]}}


def test_a_base_that_is_made_here_is_a_target_that_is_built_once_and_never_exported() -> None:
    result = planned()
    assert target(result, "base-python") == {"context": "/cache/rootfs", "output": ["type=cacheonly"]}
    assert target(result)["contexts"] == {"python:3": "target:base-python"}


def test_a_base_from_a_registry_is_pinned_by_digest() -> None:
    assert target(planned(), "image-db")["contexts"]["alpine:3"] == f"docker-image://alpine@sha256:{'b' * 64}"


def test_each_platform_of_an_image_is_a_target_with_a_reference_of_its_own() -> None:
    arm = replace(ROOTFS, platform="linux/arm64", context="target:base-arm", target_name="base-arm")
    uses = {"python:3": arm, "python:3@linux/amd64": ROOTFS, "alpine:3@linux/amd64": PULLED}
    result = planned(
        {"platforms": ["linux/amd64", "linux/arm64"]},
        platforms=["linux/amd64", "linux/arm64", "linux/s390x"],
        materials=BuildMaterials(
            "/project", {"web@linux/amd64": BASES["web"], "web@linux/arm64": uses, "db": BASES["db"]}
        ),
        inputs={"web@linux/amd64": {"context": "1"}, "web@linux/arm64": {"context": "1"}, "db": {"context": "2"}},
        images={"db": {"platforms": ["linux/s390x"]}},
    )
    names = ["linux-amd64-image-web", "linux-arm64-image-web", "image-db"]
    assert result.definition["group"]["default"]["targets"] == names
    own, other, alone = (target(result, name) for name in names)
    assert [each["platforms"] for each in (own, other, alone)] == [["linux/amd64"], ["linux/arm64"], ["linux/s390x"]]
    references = ["shop/web:1.2.3-linux-amd64", "shop/web:1.2.3-linux-arm64", "shop/db:1.2.3"]
    assert [each.reference for each in result.images] == references
    assert own["contexts"] == {"python:3": "target:base-python"}
    assert other["contexts"] == {
        "python:3::linux/arm64": "target:base-arm",
        "python:3::linux/amd64": "target:base-python",
        "alpine:3": PULLED.context,
    }, "a base for the platform that builds, beside that of the image"
    assert other["labels"]["org.opencontainers.image.title"] == own["labels"]["org.opencontainers.image.title"]
    assert set(result.images[1].bases) == set(uses)


def test_labels_carry_the_commit_and_never_the_version() -> None:
    labels = target(planned())["labels"]
    assert labels["org.opencontainers.image.revision"] == "c0ffee"
    assert labels["org.opencontainers.image.source"] == "https://example.org/shop"
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert labels["org.opencontainers.image.base.name"] == "python:3"
    assert "1.2.3" not in str(labels)


def test_a_release_of_a_built_commit_changes_nothing_but_the_reference() -> None:
    before, after = target(planned()), target(planned(version="2.0.0", image_tag="2.0.0"))
    assert before.pop("tags") == ["shop/web:1.2.3"]
    assert after.pop("tags") == ["shop/web:2.0.0"]
    assert before == after


def test_the_output_fits_the_image_store() -> None:
    assert target(planned())["output"] == ["type=image,oci-mediatypes=true"]
    assert target(planned(store="classic"))["output"] == ["type=docker"]


def test_flags_and_keys_reach_the_definition() -> None:
    image = {"dockerfile": "Dockerfile.web", "target": "runtime", "args": {"A": "1"}, "secrets": {"npm": "secrets/npm"}}
    found = target(planned(image, BuildFlags(no_cache=True, pull=True)))
    assert found["context"] == "/project/web"
    assert found["dockerfile"] == "/project/web/Dockerfile.web"
    assert (found["target"], found["args"]) == ("runtime", {"A": "1"})
    assert found["secret"] == ["id=npm,src=/project/secrets/npm"]
    assert (found["no-cache"], found["pull"]) == (True, True)
    assert "no-cache" not in target(planned())


def test_an_engine_without_named_contexts_gets_its_bases_as_arguments_and_those_made_here_first() -> None:
    result = planned(
        {"args": {"PYTHON": "python:3", "MODE": "fast"}},
        arguments={"web": {"PYTHON": "python:3"}, "db": {"BASE": "python:3", "TOOLS": "alpine:3"}},
    )
    tag = "127.0.0.1:1/lyra-base/python:aaaaaaaaaaaa"
    assert result.base_targets == {"base-python": tag}
    made = target(result, "base-python")
    assert (made["tags"], made["output"]) == ([tag], ["type=docker"])
    assert (target(result)["args"], target(result)["contexts"]) == ({"PYTHON": tag, "MODE": "fast"}, {})
    assert target(result, "image-db")["args"] == {"BASE": tag, "TOOLS": f"alpine@sha256:{'b' * 64}"}


def test_an_engine_with_named_contexts_needs_no_build_before_the_build() -> None:
    assert planned().base_targets == {}


def test_what_is_built_elsewhere_comes_as_archives_and_with_its_caches() -> None:
    result = planned(
        archives="/run", builder=Builder("far", "remote", is_separate=True), caches={"web": {"cache-from": ["x"]}}
    )
    assert target(result)["output"] == ["type=docker,oci-mediatypes=true,dest=/run/image-web.tar"]
    assert target(result)["cache-from"] == ["x"]
    assert "cache-from" not in target(result, "image-db")
    assert [image.archive for image in result.images] == ["/run/image-web.tar", "/run/image-db.tar"]
