"""Containers that may not run as they were made."""

from __future__ import annotations

import pytest

from lyra_tasks.errors import PreconditionError
from lyra_tasks.lab.admission import require_limits


@pytest.mark.parametrize(
    "said",
    [
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted.",
        "Your kernel does not support pids limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
    ],
)
def test_a_limit_that_the_engine_drops_is_refused(said: str) -> None:
    with pytest.raises(PreconditionError, match="does not enforce the limits of web") as caught:
        require_limits("web", ["something else", said])
    assert said in caught.value.message
    assert "something else" not in caught.value.message
    assert "controllers" in caught.value.hint


def test_what_the_engine_warns_of_beside_limits_is_no_fault() -> None:
    require_limits("web", ["Published ports"])
