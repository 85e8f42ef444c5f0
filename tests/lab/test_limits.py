"""Warnings of the engine about limits that it does not enforce."""

from __future__ import annotations

import pytest

from lyra_tasks.errors import PreconditionError
from lyra_tasks.lab.admission import require_limits


@pytest.mark.parametrize(
    "warning",
    [
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted.",
        "Your kernel does not support pids limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
    ],
)
def test_limits_dropped_by_engine_are_refused(warning: str) -> None:
    with pytest.raises(PreconditionError, match="does not enforce the limits of web") as caught:
        require_limits("web", ["something else", warning])
    assert warning in caught.value.message
    assert "something else" not in caught.value.message
    assert "controllers" in caught.value.hint


def test_limits_ignore_other_engine_warnings() -> None:
    require_limits("web", ["Published ports"])
