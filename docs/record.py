"""Record a real `build test promote` of the demo as docs/images/run.svg.

python docs/record.py   (needs what the demo needs; run it after output has changed)
"""

from __future__ import annotations

import io
import os
import pty
import re
import sys
from pathlib import Path

import pyte
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, LINES = 112, 400
COMMAND = ["./inv", "build", "test", "promote"]


def run_in_terminal() -> pyte.Screen:
    """Run the command in a pseudo-terminal and return what it shows in the end."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    os.chdir(ROOT)

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 65536)
        stream.feed(data)
        return data

    if pty.spawn(["sh", "-c", f"stty cols {COLUMNS} rows {LINES}; exec {' '.join(COMMAND)}"], read) != 0:
        sys.exit(f"{' '.join(COMMAND)} failed")
    return screen


def main() -> None:
    """Write the picture."""
    screen = run_in_terminal()
    lines = [line.rstrip() for line in screen.display]
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text(f"$ {' '.join(COMMAND)}", style="bold"))
    for line in lines[: max(number for number, line in enumerate(lines) if line) + 1]:
        style = "green" if line.startswith("ok ") else "yellow" if line.startswith("warning:") else ""
        console.print(Text(line, style=style), highlight=False)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="lyra-tasks", unique_id="run"), flags=re.DOTALL)
    (ROOT / "docs" / "images" / "run.svg").write_text(svg, encoding="utf-8")  # no fonts from elsewhere


if __name__ == "__main__":
    main()
