"""The rule `proxima.engine`: what older engines cannot load or run is known before the bundle is there."""

from __future__ import annotations

from typing import Any

import pytest

from lyra_tasks.config.models import Configuration
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.rules.catalogue import PROXIMA_ENGINE
from lyra_tasks.rules.engine_support import check_engine_health_check, check_engine_settings
from lyra_tasks.rules.images import check_image_record
from tests.conftest import Project

IMAGE = {"Healthcheck": {"Test": ["CMD", "/check"], "StartInterval": 10**9}}


def configure(engine: str, **tables: Any) -> Configuration:
    return Configuration.model_validate(
        {
            "schema": 1,
            "project": {"name": "shop"},
            "proxima": {"min_engine": engine},
            "images": {"web": {"context": "."}},
            "services": {"web": {"image": "web"}},
        }
        | tables
    )


@pytest.mark.parametrize(
    ("engine", "compression", "expected"),
    [
        ("20.10", None, ""),
        ("20.10", "gzip", ""),
        ("20.10", "zstd", "zstd"),
        ("23.0", "zstd", ""),
        ("19.03", None, "selects a platform"),
    ],
)
def test_settings_beyond_oldest_engine_are_violations(engine: str, compression: str | None, expected: str) -> None:
    promotion = {"compression": compression} if compression else {}
    check = check_engine_settings(configure(engine, promotion=promotion))
    assert bool(check.messages) == bool(expected)
    assert expected in "".join(check.messages)
    assert not check.messages or f"proxima.min_engine is {engine}" in check.messages[0]


@pytest.mark.parametrize(
    ("engine", "table", "image", "is_violated"),
    [
        ("20.10", {}, IMAGE, True),
        ("25.0", {}, IMAGE, False),
        ("20.10", {"healthcheck": {"exec": ["/other"]}}, IMAGE, False),
        ("20.10", {"healthcheck": {"tcp": 80}, "ports": {"http": 80}}, IMAGE, True),
        ("20.10", {}, {"Healthcheck": {"Test": ["CMD", "/check"]}}, False),
    ],
)
def test_start_interval_needs_engine(
    engine: str, table: dict[str, Any], image: dict[str, Any], is_violated: bool
) -> None:
    config = configure(engine, services={"web": {"image": "web", **table}})
    check = check_engine_health_check("web", config.services["web"], image, config.proxima)
    assert bool(check.messages) == is_violated
    assert not is_violated or "needs Docker Engine 25.0" in check.messages[0]


@pytest.mark.parametrize(("layers", "is_violated"), [(125, False), (126, True)])
def test_number_of_layers_is_limited(layers: int, is_violated: bool) -> None:
    record = ImageRecord.model_validate(
        {
            **dict.fromkeys(ImageRecord.model_fields.keys() - {"schema_"}, "x"),
            "diff_ids": ["sha256:1"] * layers,
            "size": 1,
            "dirty": False,
            "inputs": {},
            "bases": {},
            "platform": "linux/amd64",
            "origin": None,
        }
    )
    checks = {check.rule: check for check in check_image_record("web", record, configure("20.10").proxima)}
    assert bool(checks[PROXIMA_ENGINE].messages) == is_violated


def test_build_refuses_zstd_for_oldest_engine(lonely: Project) -> None:
    config = lonely.root / ".lyra.toml"
    config.write_text(config.read_text() + '\n[proxima]\nmin_engine = "20.10"\n[promotion]\ncompression = "zstd"\n')
    outcome = lonely.lyra("build")
    assert outcome.code == 5, outcome.text
    assert "needs Docker Engine 23.0, proxima.min_engine is 20.10" in outcome.text
    assert "proxima.engine" in outcome.text
    assert "23.0" in lonely.lyra("rules.explain", "proxima.engine").out
