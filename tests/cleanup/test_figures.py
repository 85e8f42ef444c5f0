"""The engine's own figures, which a cleaning shows."""

from __future__ import annotations

from typing import Any

import pytest
from docker.errors import APIError

from lyra_tasks.engine import space
from lyra_tasks.errors import PreconditionError


@pytest.mark.parametrize("full", [True, False])
def test_an_engine_whose_disk_is_too_full_to_count_can_be_cleaned(monkeypatch: pytest.MonkeyPatch, full: bool) -> None:
    engine: Any = None

    def refuse(*_: object) -> None:
        raise APIError("500", explanation="mkdir /run/data/tmp: no space left on device" if full else "not today")

    monkeypatch.setattr(space, "_disk_use", refuse)
    if full:
        assert space.figures(engine) is None
    else:
        with pytest.raises(PreconditionError, match="not today"):
            space.figures(engine)


@pytest.mark.parametrize("times", [2, 100])
def test_the_engine_counts_again_where_somebody_else_removed_what_it_was_counting(
    monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    engine: Any = None
    refusals = iter(range(times))

    def count(*_: object) -> dict[str, int]:
        if next(refusals, None) is not None:
            raise APIError("404", explanation="NotFound: snapshot sha256:0f does not exist: not found")
        return {"LayersSize": 7}

    monkeypatch.setattr(space, "_disk_use", count)
    monkeypatch.setattr(space, "_BETWEEN", 0)
    if times == 2:
        assert space.figures(engine) == space.Figures(7, 0)
    else:
        with pytest.raises(PreconditionError, match="not found"):
            space.figures(engine)
