"""The rule `proxima.engine`: what the oldest engine on Proxima cannot load or run, by the documentation of Docker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lyra_tasks.config.models import Configuration, Proxima, Service
from lyra_tasks.records.images import ImageRecord
from lyra_tasks.rules.catalogue import PROXIMA_ENGINE
from lyra_tasks.rules.finding import RuleCheck

# The oldest that loads zstd layers, measured on 20.10, 26.1 and 28.5
_MIN_ZSTD_ENGINE = (23, 0)
# https://docs.docker.com/reference/api/engine/version-history/: the platform of a container is new in API 1.41, the
# start interval of a health check in API 1.44
_MIN_PLATFORM_ENGINE = (20, 10)
_MIN_START_INTERVAL_ENGINE = (25, 0)
# Of `docker load` on the classic image store, whatever the storage driver (maxLayerDepth in Moby's layer package)
_MAX_LAYERS = 125


def check_engine_settings(config: Configuration) -> RuleCheck:
    """Check the settings of the bundle against the oldest engine of Proxima."""
    engine = config.proxima.engine_version
    messages = []
    if engine < _MIN_PLATFORM_ENGINE:
        messages.append(_needs("deploy/compose.yaml selects a platform, which", _MIN_PLATFORM_ENGINE, config.proxima))
    if config.promotion.compression == "zstd" and engine < _MIN_ZSTD_ENGINE:
        messages.append(_needs('promotion.compression = "zstd"', _MIN_ZSTD_ENGINE, config.proxima))
    return RuleCheck(PROXIMA_ENGINE, "proxima", tuple(messages))


def check_layer_count(name: str, record: ImageRecord) -> RuleCheck:
    """Check whether a classic image store, the only one of older engines, loads an image with so many layers."""
    count = len(record.diff_ids)
    message = f"the image has {count} layers, but Docker's classic image store loads at most {_MAX_LAYERS}"
    return RuleCheck(PROXIMA_ENGINE, f"images.{name}", (message,) if count > _MAX_LAYERS else ())


def check_engine_health_check(
    name: str, service: Service, image_config: Mapping[str, Any], proxima: Proxima
) -> RuleCheck:
    """Check whether the oldest engine of Proxima probes as the image's HEALTHCHECK asks."""
    check = service.healthcheck
    is_replaced = check is not None and (check.exec is not None or check.disable)
    start_interval = (image_config.get("Healthcheck") or {}).get("StartInterval")
    has_problem = start_interval and not is_replaced and proxima.engine_version < _MIN_START_INTERVAL_ENGINE
    message = _needs("HEALTHCHECK --start-interval", _MIN_START_INTERVAL_ENGINE, proxima)
    consequence = "; older ones wait for the first probe as long as for the others"
    return RuleCheck(PROXIMA_ENGINE, f"services.{name}", (message + consequence,) if has_problem else ())


def _needs(feature: str, engine: tuple[int, int], proxima: Proxima) -> str:
    return f"{feature} needs Docker Engine {engine[0]}.{engine[1]}, proxima.min_engine is {proxima.min_engine}"
