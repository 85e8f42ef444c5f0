"""Measure Lyra against the plain tools, side by side on this machine: `./inv bench [--only ROW] [--json FILE]`.

Needs root on Debian or Ubuntu for its own engines. Ratios count, not seconds. Exits with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import build, clean, cold_start, compose, growth, inner_loop, lab, listing, memory, promote  # noqa: E402
from benchmarks.measure import Row  # noqa: E402
from lyra_tasks import console  # noqa: E402

ROWS = {
    "list": listing.measure_list,
    "build": build.measure_build,
    "compose": compose.measure_compose,
    "lab": lab.measure_lab,
    "inner-loop": inner_loop.measure_inner_loop,
    "promote": promote.measure_promote,
    "clean": clean.measure_clean,
    "growth": growth.measure_growth,
    "memory": memory.measure_memory,
    "cold-start": cold_start.measure_cold_start,
}
_HEADER = ("benchmark", "Lyra", "reference", "value", "ratio", "range", "goal", "result")


def main() -> int:
    """Run the selected benchmarks, by default all, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=ROWS, action="append", help="Run only this benchmark (repeatable)")
    parser.add_argument("--json", type=Path, help="Also write the results to FILE", metavar="FILE")
    parser.add_argument(
        "--markdown", type=Path, help="Also write a page with the results and this machine to FILE", metavar="FILE"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stops the engines as well
    rows: list[Row] = []
    for name in options.only or ROWS:
        console.info(f"measuring {name} …")
        rows += ROWS[name]()
        if options.json:  # an hour of measuring is not lost if the rest fails
            options.json.write_text(json.dumps(_document(rows), indent=2, ensure_ascii=False) + "\n")
        if options.markdown:
            options.markdown.write_text(_page(rows))
    console.print_table(_HEADER, [_cells(row) for row in rows])
    return 0 if all(row.is_met for row in rows) else 1


def _page(rows: list[Row]) -> str:
    """Return the results as Markdown."""
    machine = _document(rows)["machine"]
    lines = [
        "# Benchmark results",
        "",
        f"`./inv bench --markdown benchmarks/RESULTS.md` on {date.today()}: {machine['cpus']} CPUs",
        f"({machine['architecture']}), {console.format_bytes(machine['memory'])} of memory, Linux {machine['kernel']}, "
        f"Python {machine['python']}.",
        "Both sides run in turn. Times are medians; the range is that of the ratios of single rounds.",
        "",
        f"| {' | '.join(_HEADER)} |",
        f"|{'---|' * len(_HEADER)}",
    ]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in _cells(row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def _document(rows: list[Row]) -> dict[str, Any]:
    """Return the results with the properties of the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "machine": {
            "cpus": os.cpu_count(),
            "memory": memory,
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
        },
        "rows": [asdict(row) | {"ratio": round(row.ratio, 3), "is_met": row.is_met} for row in rows],
    }


def _cells(row: Row) -> tuple[str, ...]:
    ours, theirs = (
        console.format_bytes(value) if row.unit == "B" else f"{value:.2f} {row.unit}"
        for value in (row.ours, row.theirs)
    )
    result = console.style("met", "green") if row.is_met else console.style("missed", "red")
    spread = f"{min(row.ratios):.2f} … {max(row.ratios):.2f}" if row.ratios else ""
    return row.name, ours, row.reference, theirs, f"{row.ratio:.2f}", spread, f"≤ {row.goal:g}", result


if __name__ == "__main__":
    sys.exit(main())
