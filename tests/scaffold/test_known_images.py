"""What is known of common images, found by reference and version."""

from __future__ import annotations

import pytest

from lyra_tasks.config.models import Service
from lyra_tasks.scaffold.known_images import KNOWN_IMAGES, find_known_image, is_covered


@pytest.mark.parametrize(
    "reference",
    [
        "redis", "redis:7", "redis:7-alpine", "library/redis", "docker.io/redis:7", "docker.io/library/redis:7",
        "mirror.gcr.io/library/redis:7.2", "public.ecr.aws/docker/library/redis:7", "localhost:5000/redis",
        "1234.dkr.ecr.eu-west-1.amazonaws.com/docker-hub/library/redis:7", "registry.example.org/mirror/redis:7",
        "redis:7@sha256:" + "0" * 64, "registry.example.org:5000/redis@sha256:" + "0" * 64,
    ],
)  # fmt: skip
def test_reference_of_official_image_is_known(reference: str) -> None:
    image = find_known_image(reference)
    assert image is not None
    assert image.volumes == ("/data",)


@pytest.mark.parametrize(
    "reference",
    [
        "bitnami/redis:7", "acme/redis", "ghcr.io/acme/redis:7", "lscr.io/linuxserver/mariadb", "acme/library/shop",
        "redis-exporter", "registry.example.org/redis/shop", "", "UPPER", ":7", "@sha256:0",
    ],
)  # fmt: skip
def test_image_of_another_owner_is_not_known(reference: str) -> None:
    assert find_known_image(reference) is None


BEFORE, SINCE = ("/var/lib/postgresql/data",), ("/var/lib/postgresql",)


@pytest.mark.parametrize(
    ("reference", "volumes"),
    [
        ("postgres:9.6", BEFORE), ("postgres:16", BEFORE), ("postgres:17.5-alpine3.22", BEFORE),
        ("postgis/postgis:16-3.4", BEFORE), ("pgvector/pgvector:0.8.0-pg17", BEFORE),
        ("pgvector/pgvector:pg16", BEFORE), ("timescale/timescaledb:2.17.2-pg16", BEFORE),
        ("timescale/timescaledb:latest-pg17", BEFORE),
        ("postgres", SINCE), ("postgres:latest", SINCE), ("postgres:alpine", SINCE), ("postgres:bookworm", SINCE),
        ("postgres:alpine3.22", SINCE), ("postgres:20260101", SINCE), ("postgres:v16", BEFORE),
        ("postgres:18", SINCE), ("postgres:18.1-alpine", SINCE), ("postgres:19beta1", SINCE),
        ("pgvector/pgvector:0.8.1-pg18-trixie", SINCE), ("postgres@sha256:" + "0" * 64, SINCE),
    ],
)  # fmt: skip
def test_version_of_postgres_decides_where_data_is(reference: str, volumes: tuple[str, ...]) -> None:
    image = find_known_image(reference)
    assert image is not None
    assert image.volumes == volumes


def test_health_check_uses_programs_of_the_image() -> None:
    checks = {}
    for reference in ("memcached:1.6", "memcached:1.6-alpine", "mongo:4.4", "mongo:8", "mongo"):
        image = find_known_image(reference)
        assert image is not None
        checks[reference] = image.healthcheck[0]
    assert list(checks.values()) == ["bash", "nc", "mongo", "mongosh", "mongosh"]


def test_entries_are_consistent() -> None:
    for image in KNOWN_IMAGES:
        assert image.repositories
        paths = [*image.volumes, *image.tmpfs, *image.tmpfs_for.values()]
        for path in paths:
            assert not is_covered(path, [other for other in paths if other != path]), image.repositories
        if image.volumes:
            assert image.user, f"{image.repositories}: volumes need an owner"
        values = {"image": "known", "tmpfs": dict.fromkeys(image.tmpfs, "16m"), "user": image.user}
        Service.model_validate(values | {"limits": {"memory": image.memory, "disk": image.size}})


def test_run_directory_is_covered_under_both_names() -> None:
    assert is_covered("/var/run/postgresql", ["/run/postgresql"])
    assert is_covered("/run/postgresql", ["/var/run"])
    assert not is_covered("/var/runner", ["/run"])
    assert not is_covered("/data", ["/data/db"])
