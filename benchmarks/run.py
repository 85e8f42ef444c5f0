"""Measures Lyra against the plain tools, side by side on this machine: `python benchmarks/run.py [--only ROW]`.

Needs root on Debian or Ubuntu, for engines of its own. Ratios count, not seconds; exits with 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import build, clean, listing, promote  # noqa: E402
from benchmarks.measure import Row  # noqa: E402
from lyra_tasks import console  # noqa: E402

ROWS = {"list": listing.rows, "build": build.rows, "promote": promote.rows, "clean": clean.rows}


def main() -> int:
    """Measure what is asked for, all by default, and show it as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=ROWS, action="append", help="measure this only (repeatable)")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the engines end, too
    found: list[Row] = []
    for name in parser.parse_args().only or ROWS:
        console.note(f"measuring {name} …")
        found += ROWS[name]()
    header = ("what", "ours", "against", "theirs", "ratio", "goal", "")
    console.table(header, [_cells(row) for row in found])
    return 0 if all(row.kept for row in found) else 1


def _cells(row: Row) -> tuple[str, ...]:
    ours, theirs = (
        console.size(value) if row.unit == "B" else f"{value:.2f} {row.unit}" for value in (row.ours, row.theirs)
    )
    kept = console.style("kept", "green") if row.kept else console.style("missed", "red")
    return row.what, ours, row.against, theirs, f"{row.ratio:.2f}", f"≤ {row.goal:g}", kept


if __name__ == "__main__":
    sys.exit(main())
