from __future__ import annotations

from pathlib import Path

import pytest

from lyra_tasks.errors import OvercommitError
from lyra_tasks.lab.admission import Capacity, Reservation, require_capacity

GIB = 1024**3


def of(cpus: float, memory: int) -> Capacity:
    return Capacity(cpus, memory, Path("unused"))


def test_what_fits_exactly_is_admitted() -> None:
    require_capacity(
        (Reservation("web", 0.1, GIB), Reservation("db", 0.2, GIB)),
        (Reservation("other", 0.7, 2 * GIB),),
        of(1.0, 4 * GIB),
    )


def test_too_many_cpus_are_refused_with_a_table_of_who_holds_what() -> None:
    with pytest.raises(OvercommitError) as caught:
        require_capacity(
            (Reservation("this run: web", 1.0, GIB),), (Reservation("shop lyra-1-db", 0.6, GIB),), of(1.5, 4 * GIB)
        )
    assert caught.value.exit_code == 3
    assert "1.6 CPUs of 1.5" in caught.value.message
    assert "memory" not in caught.value.message
    assert [line.split()[0] for line in caught.value.details] == ["shop", "this"]


def test_too_much_memory_is_refused_even_where_cpus_are_free() -> None:
    with pytest.raises(OvercommitError, match=r"3\.2 GB of memory of 2\.1 GB"):
        require_capacity((Reservation("web", 0.1, 3 * GIB),), (), of(8.0, 2 * GIB))
