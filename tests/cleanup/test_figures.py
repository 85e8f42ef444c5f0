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
