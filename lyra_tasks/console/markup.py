"""Put values of others into documents: Markdown and XML."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence

from lyra_tasks.console.text import escape, sanitize

# A backslash before punctuation, emphasis, code, links, entities; `_` inside of a word is plain.
_MARKDOWN = re.compile(r"\\(?=[!-/:-@\[-`{-~])|[`*\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|~(?=~)|&(?=#?\w+;)")
_BLOCK_START = re.compile(r"^(\s*)([#+=-])")
_BACKTICKS = re.compile("`+")


def escape_markdown(value: object) -> str:
    """Return a value as plain text of one line in a Markdown document."""
    text = _MARKDOWN.sub(r"\\\g<0>", escape(value))
    return text.replace("<", "&lt;").replace(">", "&gt;")


def escape_markdown_lines(text: str) -> str:
    """Return lines as plain text in a Markdown document, none of them a heading or an item of a list."""
    return "\n".join(_BLOCK_START.sub(r"\1\\\2", escape_markdown(line)) for line in text.split("\n"))


def format_code(value: object) -> str:
    """Return a value as a code span of a Markdown document."""
    text = escape(value)
    longest = max(map(len, _BACKTICKS.findall(text)), default=0)
    if not longest:
        return f"`{text}`"
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}"


def format_commands(*lines: str) -> str:
    """Return shell commands as a code block of a Markdown document."""
    return "\n".join(("```", *lines, "```", ""))


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the cells are Markdown."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def sanitize_xml(root: ET.Element) -> ET.Element:
    """Make characters that XML cannot contain visible escapes in all texts and attributes; return `root`."""
    for element in root.iter():
        element.text = sanitize(element.text) if element.text else element.text
        for name, value in element.attrib.items():
            element.set(name, sanitize(value))
    return root
