"""Record real runs of the demo: `build test promote` as docs/images/run.svg, `create --watch` in docs/commands.md.

python docs/record.py   (needs what the demo needs; run it after output has changed)
"""

from __future__ import annotations

import io
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyte
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, LINES = 112, 400
TASKS = ["build", "test", "promote"]
LYRA = [sys.executable, "-m", "lyra_tasks"]
AUTHOR = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
LOOP_COLUMNS = 80
LOOP_BEGIN, LOOP_END = "<!-- docs/record.py replaces this -->\n", "<!-- end of the recording -->\n"


@contextmanager
def copy_demo() -> Iterator[Path]:
    """Yield a repository with the demo, whose leftovers are removed at the end."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "guestbook"
        shutil.copytree(ROOT / "dockerfiles", root / "dockerfiles")
        shutil.copy(ROOT / ".lyra.toml", root)
        (root / ".gitignore").write_text(".lyra/\n/promotion/\n")
        run_git(root, "init", "--quiet")
        run_git(root, "remote", "add", "origin", "https://git.example.org/guestbook.git")
        commit(root)
        try:
            yield root
        finally:
            run_lyra(root, "clean", "--all", "--yes", "--quiet")


def run_git(root: Path, *arguments: str) -> None:
    """Run a command of git that must succeed."""
    subprocess.run(["git", *arguments], cwd=root, check=True)


def run_lyra(root: Path, *arguments: str) -> None:
    """Run tasks that must succeed."""
    subprocess.run([*LYRA, *arguments], cwd=root, check=True)


def commit(root: Path) -> None:
    """Commit everything."""
    run_git(root, "add", "--all")
    run_git(root, *AUTHOR, "commit", "--quiet", "--message", "demo")


def record_release(root: Path) -> pyte.Screen:
    """Return what a terminal shows of `build test promote` for a version, with an engine that is not running yet."""
    commit(root)  # the lock file
    run_git(root, *AUTHOR, "tag", "--annotate", "--message", "first version", "v1.0.0")
    run_lyra(root, "clean", "--quiet")
    run_lyra(root, "engine.down", "--quiet")
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    os.chdir(root)

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 65536)
        stream.feed(data)
        return data

    script = f"stty cols {COLUMNS} rows {LINES}; exec {shlex.join([*LYRA, *TASKS])}"
    try:
        if pty.spawn(["sh", "-c", script], read) != 0:
            sys.exit(f"{' '.join(TASKS)} failed")
    finally:
        os.chdir(ROOT)
    return screen


def record_loop(root: Path) -> str:
    """Return what a terminal of 80 columns shows of `create --watch` while a page is edited and the service breaks."""
    run_lyra(root, "create", "--quiet")
    return _watch_edits(root)


def _watch_edits(root: Path) -> str:
    page = root / "dockerfiles" / "web" / "guestbook" / "pages.py"
    text = page.read_text()
    screen = pyte.Screen(LOOP_COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    process, terminal = pty.fork()
    if not process:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background would ignore it
        os.chdir(root)
        script = f"stty cols {LOOP_COLUMNS} rows {LINES}; exec {shlex.join(LYRA)} create --watch"
        os.execvp("sh", ["sh", "-c", script])  # noqa: S606
    steps: list[tuple[str, Callable[[], object]]] = [
        ("watching ", lambda: page.write_text(text.replace("<h1>", "<h1>Dear visitor: "))),
        ("restarted in", lambda: page.write_text("import nothing_of_that_name")),
        ("web exited with code", lambda: page.write_text(text)),
        ("restarted in", lambda: os.write(terminal, b"\x03")),
    ]
    seen = b""
    while steps:
        data = os.read(terminal, 65536)
        stream.feed(data)
        seen += data
        if steps[0][0].encode() in seen:
            time.sleep(1.5)  # for what the service prints, and for readers of files with coarse times
            steps.pop(0)[1]()
            seen = b""
    with suppress(OSError):  # the terminal is closed at the end
        while data := os.read(terminal, 65536):
            stream.feed(data)
    os.waitpid(process, 0)
    return "\n".join(line.rstrip() for line in screen.display).strip()


def write_loop(recorded: str) -> None:
    """Replace the recorded run in the page about commands."""
    page = ROOT / "docs" / "commands.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(LOOP_BEGIN)
    _, _, after = rest.partition(LOOP_END)
    block = "".join(f"    {line}".rstrip() + "\n" for line in ["$ lyra create --watch", *recorded.splitlines()])
    page.write_text(f"{before}{LOOP_BEGIN}\n{block}\n{LOOP_END}{after}", encoding="utf-8")


def write_picture(screen: pyte.Screen) -> None:
    """Draw the screen as a picture."""
    lines = [line.rstrip() for line in screen.display]
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text(f"$ lyra {' '.join(TASKS)}", style="bold"))
    for line in lines[: max(number for number, line in enumerate(lines) if line) + 1]:
        style = "green" if line.startswith("ok ") else "yellow" if line.startswith("warning:") else ""
        console.print(Text(line, style=style), highlight=False)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="lyra-tasks", unique_id="run"), flags=re.DOTALL)
    (ROOT / "docs" / "images" / "run.svg").write_text(svg, encoding="utf-8")  # no fonts from elsewhere


def main() -> None:
    """Write the picture and the text."""
    with copy_demo() as root:
        write_loop(record_loop(root))
        if sys.argv[1:] != ["loop"]:
            write_picture(record_release(root))


if __name__ == "__main__":
    main()
