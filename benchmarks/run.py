"""Measures Lyra against the plain tools, side by side on this machine: `./inv bench [--only ROW] [--json FILE]`.

Needs root on Debian or Ubuntu, for engines of its own. Ratios count, not seconds; exits with 1 where a goal is missed.
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

from benchmarks import build, clean, growth, lab, listing, memory, promote  # noqa: E402
from benchmarks.measure import Row  # noqa: E402
from lyra_tasks import console  # noqa: E402

ROWS = {
    "list": listing.rows,
    "build": build.rows,
    "lab": lab.rows,
    "promote": promote.rows,
    "clean": clean.rows,
    "growth": growth.rows,
    "memory": memory.rows,
}


def main() -> int:
    """Measure what is asked for, all by default, and show it as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=ROWS, action="append", help="measure this only (repeatable)")
    parser.add_argument("--json", type=Path, help="write the results into this file, too")
    parser.add_argument("--markdown", type=Path, help="and as a page, with the facts of this machine, into this one")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the engines end, too
    found: list[Row] = []
    for name in options.only or ROWS:
        console.info(f"measuring {name} …")
        found += ROWS[name]()
    header = ("what", "ours", "against", "theirs", "ratio", "from … to", "goal", "")
    console.print_table(header, [_cells(row) for row in found])
    if options.json:
        options.json.write_text(json.dumps(_document(found), indent=2, ensure_ascii=False) + "\n")
    if options.markdown:
        options.markdown.write_text(_page(found))
    return 0 if all(row.kept for row in found) else 1


def _page(rows: list[Row]) -> str:
    """The results as a page of documentation."""
    machine = _document(rows)["machine"]
    lines = [
        "# Measured",
        "",
        f"`./inv bench --markdown benchmarks/RESULTS.md` on {date.today()}: {machine['cpus']} CPUs",
        f"({machine['architecture']}), {console.format_bytes(machine['memory'])} of memory, Linux {machine['kernel']}, "
        f"Python {machine['python']}.",
        "Both sides in one run, in turn; medians, and the ratios of the single rounds. Ratios count, not seconds.",
        "",
        "| what | ours | against | theirs | ratio | from … to | goal | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in _cells(row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def _document(rows: list[Row]) -> dict[str, Any]:
    """The results with the facts of the machine that they depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "machine": {
            "cpus": os.cpu_count(),
            "memory": memory,
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
        },
        "rows": [asdict(row) | {"ratio": round(row.ratio, 3), "kept": row.kept} for row in rows],
    }


def _cells(row: Row) -> tuple[str, ...]:
    ours, theirs = (
        console.format_bytes(value) if row.unit == "B" else f"{value:.2f} {row.unit}"
        for value in (row.ours, row.theirs)
    )
    kept = console.style("kept", "green") if row.kept else console.style("missed", "red")
    spread = f"{min(row.ratios):.2f} … {max(row.ratios):.2f}" if row.ratios else ""
    return row.what, ours, row.against, theirs, f"{row.ratio:.2f}", spread, f"≤ {row.goal:g}", kept


if __name__ == "__main__":
    sys.exit(main())
