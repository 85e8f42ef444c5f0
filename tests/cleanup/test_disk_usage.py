"""Disk usage that the engine reports during a cleanup."""

from __future__ import annotations

from typing import Any

import pytest
from docker.errors import APIError

from lyra_tasks.engine.objects import disk_usage
from lyra_tasks.errors import PreconditionError


@pytest.mark.parametrize("full", [True, False])
def test_disk_usage_of_full_disk_is_unknown(monkeypatch: pytest.MonkeyPatch, full: bool) -> None:
    engine: Any = None

    def refuse(*_: object) -> None:
        raise APIError("500", explanation="mkdir /run/data/tmp: no space left on device" if full else "not today")

    monkeypatch.setattr(disk_usage, "_query_disk_usage", refuse)
    if full:
        assert disk_usage.read_disk_usage(engine) is None
    else:
        with pytest.raises(PreconditionError, match="not today"):
            disk_usage.read_disk_usage(engine)


@pytest.mark.parametrize("times", [2, 100])
def test_disk_usage_is_read_again_after_concurrent_removal(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    engine: Any = None
    refusals = iter(range(times))

    def count(*_: object) -> dict[str, int]:
        if next(refusals, None) is not None:
            raise APIError("404", explanation="NotFound: snapshot sha256:0f does not exist: not found")
        return {"LayersSize": 7}

    monkeypatch.setattr(disk_usage, "_query_disk_usage", count)
    monkeypatch.setattr(disk_usage, "_RETRY_INTERVAL_S", 0)
    if times == 2:
        assert disk_usage.read_disk_usage(engine) == disk_usage.DiskUsage(7, 0)
    else:
        with pytest.raises(PreconditionError, match="not found"):
            disk_usage.read_disk_usage(engine)
