"""Admission of labs by their CPUs and memory, and limits that the engine does not enforce."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.errors import OvercommitError, PreconditionError
from lyra_tasks.lab.admission import Capacity, Reservation, count_parallel_builds, require_capacity, require_limits

GIB = 1024**3


def capacity(cpus: float, memory: int) -> Capacity:
    return Capacity(cpus, memory, Path("unused"))


def test_capacity_exact_fit_is_accepted() -> None:
    require_capacity(
        (Reservation("web", 0.1, GIB), Reservation("db", 0.2, GIB)),
        (Reservation("other", 0.7, 2 * GIB),),
        capacity(1.0, 4 * GIB),
    )


def test_capacity_excess_cpus_lists_all_reservations() -> None:
    with pytest.raises(OvercommitError) as caught:
        require_capacity(
            (Reservation("this run: web", 1.0, GIB),),
            (Reservation("shop lyra-1-db", 0.6, GIB),),
            capacity(1.5, 4 * GIB),
        )
    assert caught.value.exit_code == 3
    assert "1.6 CPUs requested, 1.5 available" in caught.value.message
    assert "memory" not in caught.value.message
    assert [line.split()[4] for line in caught.value.details] == ["shop", "this"]


def test_capacity_excess_memory_is_refused_despite_free_cpus() -> None:
    with pytest.raises(OvercommitError, match=r"3\.0 GiB of memory requested, 2\.0 GiB available"):
        require_capacity((Reservation("web", 0.1, 3 * GIB),), (), capacity(8.0, 2 * GIB))


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


@pytest.mark.parametrize(
    ("cpus", "reserved", "expected"),
    [(1.5, [], 2), (1.5, [0.5], 1), (1.5, [1.0, 0.5], 1), (1.5, [4.0], 1), (6.0, [0.1, 0.2, 2.7], 3), (0.2, [], 1)],
)
def test_parallel_builds_follow_what_environments_leave(cpus: float, reserved: list[float], expected: int) -> None:
    reservations = [Reservation("lab", share, 1) for share in reserved]
    assert count_parallel_builds(cpus, reservations) == expected
