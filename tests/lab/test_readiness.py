"""When a service is probed while it starts."""

from __future__ import annotations

import pytest

from lyra_tasks.lab.readiness import ProbeSchedule


def test_first_probe_leaves_a_silent_service_a_moment() -> None:
    schedule = ProbeSchedule(100.0)
    assert not schedule.is_due(100.0, 0)
    assert schedule.is_due(100.05, 0)


def test_first_line_of_a_service_is_a_reason_to_probe() -> None:
    assert ProbeSchedule(100.0).is_due(100.01, 80)


@pytest.mark.parametrize(("log_size", "pause"), [(80, 0.15), (90, 0.045)])
def test_new_output_shortens_the_pause_after_a_failure(log_size: int, pause: float) -> None:
    schedule = ProbeSchedule(100.0)
    assert schedule.is_due(100.01, 80)
    schedule.postpone(100.1)
    assert not schedule.is_due(100.1 + pause - 0.01, log_size)
    assert schedule.is_due(100.1 + pause + 0.01, log_size)


def test_pauses_of_a_service_that_always_writes_grow() -> None:
    schedule, now, starts = ProbeSchedule(0.0), 0.0, []
    while now < 10:
        if schedule.is_due(now, round(now * 100) + 1):
            starts.append(now)
            schedule.postpone(now)
        now += 0.01
    assert len(starts) < 40
    assert starts[-1] - starts[-2] == pytest.approx(0.3, abs=0.02)
