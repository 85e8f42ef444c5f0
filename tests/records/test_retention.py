"""Tests of the plan of what goes by itself."""

from __future__ import annotations

from lyra_tasks.records.retention import (
    Limits,
    StoredItem,
    StoredReference,
    select_expired,
    select_expired_references,
)


def expired_evidence(sizes: list[int], needed: set[str], limits: Limits) -> list[str]:
    runs = [StoredItem(f"r{number}", number, size) for number, size in enumerate(sizes)]
    return [run.name for run in select_expired(runs, needed, limits)]


def test_evidence_within_the_limits_stays() -> None:
    assert expired_evidence([5, 5, 5], {"r2"}, Limits(3, 15)) == []


def test_oldest_evidence_goes_by_number() -> None:
    assert expired_evidence([1, 1, 1, 1], {"r3"}, Limits(2, 100)) == ["r1", "r0"]


def test_oldest_evidence_goes_by_size_without_gaps() -> None:
    assert expired_evidence([1, 9, 5, 5], {"r3"}, Limits(50, 12)) == ["r1", "r0"]


def test_needed_evidence_stays_and_counts() -> None:
    assert expired_evidence([8, 1, 1, 8], {"r0", "r3"}, Limits(50, 10)) == ["r2", "r1"]
    assert expired_evidence([1, 1, 1, 1], {"r0", "r1", "r3"}, Limits(2, 100)) == ["r2"]


def expired_references(names: list[str], needed: set[str], limit: int) -> list[str]:
    references = [StoredReference(name, f"run{number}") for number, name in enumerate(names)]
    return [reference.name for reference in select_expired_references(references, needed, limit)]


def test_newest_references_of_each_repository_stay() -> None:
    names = ["app/web:1", "app/db:1", "app/web:2", "app/web:3", "app/db:2"]
    assert expired_references(names, {"app/web:3"}, 2) == ["app/web:1"]


def test_needed_references_stay_and_count() -> None:
    names = ["app/web:1", "app/web:2", "app/web:3", "app/web:4"]
    assert expired_references(names, {"app/web:1", "app/web:2"}, 2) == ["app/web:4", "app/web:3"]
    assert expired_references(names, set(names), 1) == []


def test_registry_with_a_port_counts_as_one_repository() -> None:
    names = ["localhost:5000/app:1", "localhost:5000/app:2", "localhost:5000/other:1"]
    assert expired_references(names, set(), 1) == ["localhost:5000/app:1"]
