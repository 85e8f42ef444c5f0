"""Tables and live lines on a terminal of 60 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress

import pyte
import pytest

SETUP = """
from lyra_tasks import console
names = {"build": "build", "promote": "lyra.promote", "test": "test"}
task = console.output_of_task(json_mode=False, quiet=False, program="./inv", commands=names)
task.__enter__()
"""
DIGEST = f"sha256:{'0123456789abcdef' * 2}"


def screen_after(code: str, **environment: str) -> tuple[list[str], str]:
    """Return the screen after a program in a terminal, and all that it has written."""
    controller, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 60, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", "COLUMNS": "200", **environment}
    process = subprocess.Popen(
        [sys.executable, "-c", SETUP + code], stdin=end, stdout=end, stderr=end, env=environment, start_new_session=True
    )
    os.close(end)
    raw = b""
    with suppress(OSError):  # how Linux reports that the other end is closed
        while chunk := os.read(controller, 1 << 16):
            raw += chunk
    os.close(controller)
    assert process.wait(60) == 0, raw
    screen = pyte.Screen(60, 30)
    pyte.Stream(screen).feed(raw.decode())
    return [line.rstrip() for line in screen.display if line.strip()], raw.decode()


def test_table_wraps_cells_between_words() -> None:
    text = "a text of several words that is wider than its column"
    screen, _ = screen_after(f"console.print_table(('name', 'digest', 'text'), [('a', {DIGEST!r}, {text!r})])")
    assert screen == [
        f"name  {'digest':<39}  text",
        f"a     {DIGEST}  a text of",
        " " * 47 + "several words",
        " " * 47 + "that is wider",
        " " * 47 + "than its",
        " " * 47 + "column",
    ]


def test_last_column_is_wrapped_and_a_long_word_in_it_stays_whole() -> None:
    rows = [("one", "some words that do not fit into the line of a narrow terminal"), ("two", "short"), ("3", "x" * 70)]
    screen, _ = screen_after(f"console.print_table(('name', 'text'), {rows!r})")
    assert screen == [
        "name  text",
        "one   some words that do not fit into the line of a narrow",
        "      terminal",
        "two   short",
        "3     " + "x" * 54,
        "x" * 16,
    ]


def test_table_wider_than_terminal_becomes_lines_that_can_be_copied() -> None:
    screen, _ = screen_after(f"console.print_table(('name', 'digest'), [('web-server-with-a-long-name', {DIGEST!r})])")
    assert screen == ["name    web-server-with-a-long-name", f"digest  {DIGEST}"]


@pytest.mark.parametrize(("encoding", "frames"), [("utf-8", "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"), ("ascii", "|/-\\\\")])
def test_live_lines_stay_below_everything_else(encoding: str, frames: str) -> None:
    code = """
import time
with console.progress('[red]packing[/red]'):
    for number in range(3):
        console.print(f'line {number}')
        console.info('info')
        console.print_raw('#1 raw', '[web 1/2] RUN ' + 'x' * 100)
        time.sleep(0.15)
        console.count_bytes(1 << 20)
        time.sleep(0.15)
"""
    screen, raw = screen_after(code, PYTHONIOENCODING=encoding, NO_COLOR="1")
    assert screen == ["line 0", "info", "line 1", "info", "line 2", "info"]
    live = re.findall(rf"[{frames}] \[red\][^\r\n\x1b]*", raw)
    assert any(re.search(r"3\.0 MiB, \d+\.\d MiB/s", line) for line in live), live
    assert any("[web 1/2] RUN xxx" in line for line in live)
    assert max(map(len, live)) <= 60


def test_lines_below_a_message_are_not_wrapped() -> None:
    message, line = "a message of several words, which is wider than the terminal is", "a line of a log  " * 5
    screen, raw = screen_after(f"console.print({message!r}, [{line!r}, '`build`'])")
    assert screen[:2] == ["a message of several words, which is wider than the terminal", "is"]
    assert line in raw and screen[-1] == "`build`"


def test_commands_in_messages_name_the_program_but_not_keys_and_foreign_text() -> None:
    code = (
        "details = ['`test -f x` failed, `docker ps`']\n"
        "console.error('`build` is stale', 'Run `build test promote`; `promote = true`', details)\n"
        "console.print_verbatim('`build`')\n"
        "console.print_json('`build`')\n"
    )
    screen, _ = screen_after(code)
    assert screen == [
        "error: `./inv build` is stale",
        "  `test -f x` failed, `docker ps`",
        "hint: Run `./inv build test lyra.promote`; `promote = true`",
        "`build`",
        '"`build`"',
    ]
