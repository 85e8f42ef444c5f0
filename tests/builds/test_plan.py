"""Tests of planning builds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.builds.facts import reads_remote_files
from lyra_tasks.builds.plan import BuildFacts, BuildPlan, plan_build
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
REGISTRY_BASE = ResolvedBase(
    "alpine", LockedImage(reference="alpine:3", digest=f"sha256:{'b' * 64}"), f"docker-image://alpine@sha256:{'b' * 64}"
)


BASES = {"web": {"python:3": ROOTFS}, "db": {"python:3": ROOTFS, "alpine:3": REGISTRY_BASE}}


def plan(
    image: dict[str, Any] | None = None,
    flags: dict[str, bool] | None = None,
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
    defaults: dict[str, Any] = {
        "materials": BuildMaterials("/project", BASES, arguments),
        "version": "1.2.3", "image_tag": "1.2.3", "commit": "c0ffee", "is_dirty": False, "source_date_epoch": 7,
        "source_url": "https://example.org/shop", "image_store": "containerd",
        "inputs": {"web": {"context": "1"}, "db": {"context": "2"}},
    }  # fmt: skip
    return plan_build(config, BuildFacts(**{**defaults, **facts}), list_variants(config), **(flags or {}))


def target(build_plan: BuildPlan, name: str = "image-web") -> dict[str, Any]:
    definition: dict[str, Any] = build_plan.definition["target"][name]
    return definition


def test_all_images_are_in_one_definition() -> None:
    assert plan().definition["group"] == {"default": {"targets": ["image-web", "image-db"]}}


def test_rootfs_base_is_a_target_that_is_not_exported() -> None:
    build_plan = plan()
    assert target(build_plan, "base-python") == {"context": "/cache/rootfs", "output": ["type=cacheonly"]}
    assert target(build_plan)["contexts"] == {"python:3": "target:base-python"}


def test_registry_base_is_pinned_by_digest() -> None:
    assert target(plan(), "image-db")["contexts"]["alpine:3"] == f"docker-image://alpine@sha256:{'b' * 64}"


def test_each_platform_has_its_own_target_and_reference() -> None:
    arm = replace(ROOTFS, platform="linux/arm64", context="target:base-arm", target_name="base-arm")
    uses = {"python:3": arm, "python:3@linux/amd64": ROOTFS, "alpine:3@linux/amd64": REGISTRY_BASE}
    build_plan = plan(
        {"platforms": ["linux/amd64", "linux/arm64"]},
        platforms=["linux/amd64", "linux/arm64", "linux/s390x"],
        materials=BuildMaterials(
            "/project", {"web@linux/amd64": BASES["web"], "web@linux/arm64": uses, "db": BASES["db"]}
        ),
        inputs={"web@linux/amd64": {"context": "1"}, "web@linux/arm64": {"context": "1"}, "db": {"context": "2"}},
        images={"db": {"platforms": ["linux/s390x"]}},
    )
    names = ["linux-amd64-image-web", "linux-arm64-image-web", "image-db"]
    assert build_plan.definition["group"]["default"]["targets"] == names
    own, other, alone = (target(build_plan, name) for name in names)
    assert [definition["platforms"] for definition in (own, other, alone)] == [
        ["linux/amd64"],
        ["linux/arm64"],
        ["linux/s390x"],
    ]
    references = ["shop/web:1.2.3-linux-amd64", "shop/web:1.2.3-linux-arm64", "shop/db:1.2.3"]
    assert [image.reference for image in build_plan.images] == references
    assert own["contexts"] == {"python:3": "target:base-python"}
    assert other["contexts"] == {
        "python:3::linux/arm64": "target:base-arm",
        "python:3::linux/amd64": "target:base-python",
        "alpine:3": REGISTRY_BASE.context,
    }, "bases for the build platform and the target platform"
    assert other["labels"]["org.opencontainers.image.title"] == own["labels"]["org.opencontainers.image.title"]
    assert set(build_plan.images[1].bases) == set(uses)


def test_labels_have_the_commit_but_not_the_version() -> None:
    labels = target(plan())["labels"]
    assert labels["org.opencontainers.image.revision"] == "c0ffee"
    assert labels["org.opencontainers.image.source"] == "https://example.org/shop"
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert labels["org.opencontainers.image.base.name"] == "python:3"
    assert "1.2.3" not in str(labels)


def test_release_of_a_built_commit_changes_only_references() -> None:
    old, new = target(plan()), target(plan(version="2.0.0", image_tag="2.0.0"))
    assert old.pop("tags") == ["shop/web:1.2.3"]
    assert new.pop("tags") == ["shop/web:2.0.0"]
    assert old == new


def test_output_fits_the_image_store() -> None:
    assert target(plan())["output"] == ["type=image,oci-mediatypes=true"]
    assert target(plan(image_store="classic"))["output"] == ["type=docker"]


def test_flags_and_keys_reach_the_definition() -> None:
    image = {"dockerfile": "Dockerfile.web", "target": "runtime", "args": {"A": "1"}, "secrets": {"npm": "secrets/npm"}}
    web = target(plan(image, {"no_cache": True, "pull": True}))
    assert web["context"] == "/project/web"
    assert web["dockerfile"] == "/project/web/Dockerfile.web"
    assert (web["target"], web["args"]) == ("runtime", {"A": "1"})
    assert web["secret"] == ["id=npm,src=/project/secrets/npm"]
    assert (web["no-cache"], web["pull"]) == (True, True)
    assert "no-cache" not in target(plan())


def test_engine_without_named_contexts_gets_arguments() -> None:
    build_plan = plan(
        {"args": {"PYTHON": "python:3", "MODE": "fast"}},
        arguments={"web": {"PYTHON": "python:3"}, "db": {"BASE": "python:3", "TOOLS": "alpine:3"}},
    )
    tag = "127.0.0.1:1/lyra-base/python:aaaaaaaaaaaa"
    assert build_plan.base_targets == {"base-python": tag}
    base_target = target(build_plan, "base-python")
    assert (base_target["tags"], base_target["output"]) == ([tag], ["type=docker"])
    assert (target(build_plan)["args"], target(build_plan)["contexts"]) == ({"PYTHON": tag, "MODE": "fast"}, {})
    assert target(build_plan, "image-db")["args"] == {"BASE": tag, "TOOLS": f"alpine@sha256:{'b' * 64}"}


def test_engine_with_named_contexts_needs_no_prior_build() -> None:
    assert plan().base_targets == {}


def test_remote_builder_writes_archives_and_uses_caches() -> None:
    build_plan = plan(
        archive_directory="/run",
        builder=Builder("far", "remote", is_separate=True),
        caches={"web": {"cache-from": ["x"]}},
    )
    assert target(build_plan)["output"] == ["type=docker,oci-mediatypes=true,dest=/run/image-web.tar"]
    assert target(build_plan)["cache-from"] == ["x"]
    assert "cache-from" not in target(build_plan, "image-db")
    assert [image.archive for image in build_plan.images] == ["/run/image-web.tar", "/run/image-db.tar"]


def test_definition_covers_all_that_the_builder_is_told() -> None:
    def definition(image: dict[str, Any] | None = None, **facts: Any) -> str:
        return plan(image, **facts).images[0].definition

    same = definition()
    assert same == definition()
    variations = [
        definition({"args": {"A": "1"}}), definition({"target": "test"}), definition({"secrets": {"npm": "npm"}}),
        definition(commit="c0ffe1"), definition(source_date_epoch=8),
        definition(image_store="classic"), definition(source_url="https://example.org/other"),
        definition(archive_directory="/run/1"), definition(caches={"web": {"cache-from": ["x"]}}),
        definition(builder=Builder("far", "remote", is_separate=True)),
        definition(materials=BuildMaterials("/project", {**BASES, "web": {"python:3": REGISTRY_BASE}})),
        definition(materials=BuildMaterials("/elsewhere", BASES)),
        definition(
            materials=BuildMaterials("/project", {**BASES, "web": {"python:3": replace(ROOTFS, bake_target={})}})
        ),
    ]  # fmt: skip
    assert len({same, *variations}) == len(variations) + 1
    assert definition(image_tag="1.2.4") == same, "an unchanged image keeps its reference"
    assert definition(archive_directory="/run/1") == definition(archive_directory="/run/2")


def test_image_that_must_be_built_has_no_definition() -> None:
    assert plan(always_built=frozenset({"web"})).images[0].definition == ""
    assert plan(flags={"no_cache": True}).images[0].definition == ""
    assert plan(flags={"pull": True}).images[1].definition == ""


@pytest.mark.parametrize(
    ("instruction", "is_remote"),
    [
        ("ADD https://example.org/x /x", True),
        ("add --checksum=sha256:0 \\\n  http://example.org/x /x", True),
        ("ONBUILD ADD git@example.org:x.git /x", True),
        ("ADD $SOURCE /x", True),
        ("ADD x.tar /", False),
        ("COPY http:/x /", False),
        ("RUN wget https://example.org/x", False),
    ],
)
def test_add_of_something_remote_is_found(tmp_path: Path, instruction: str, is_remote: bool) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\n{instruction}\n")
    assert reads_remote_files(tmp_path / "Dockerfile") == is_remote
