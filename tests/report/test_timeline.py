"""The log lines that belong to the events of a timeline."""

from __future__ import annotations

from lyra_tasks.report.timeline import LineQuery, find_lines


def test_lines_are_found_in_one_pass() -> None:
    lines = [(0.0, "zero"), (1.0, "one"), (1.0, "uno"), (2.0, "two"), (9.0, "nine")]
    queries = {
        LineQuery(1.5): "uno",
        LineQuery(-1.0): "",
        LineQuery(2.0): "two",
        LineQuery(99.0): "nine",
        LineQuery(5.0, since=1.0): "one",
        LineQuery(5.0, since=0.5): "one",
        LineQuery(5.0, since=2.5): "",
        LineQuery(99.0, since=9.5): "",
        LineQuery(99.0, since=-1.0): "zero",
    }
    assert find_lines(iter(lines), list(queries)) == list(queries.values())
    assert find_lines(iter([]), list(queries)) == [""] * len(queries)
