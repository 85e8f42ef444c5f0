"""The pages as HTML; all user input is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from guestbook.entries import LONGEST_MESSAGE, LONGEST_NAME, Entry

_COLOURS = {"light": ("#fdfcf8", "#22201c", "#7a5c1e"), "dark": ("#191b22", "#e8e6e0", "#d9b668")}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="/style.css">
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""

_FRONT = """<p>{greeting}{visitor}</p>
<form method="post" action="/entries">
<label>Name <input name="name" required maxlength="{longest_name}" value="{name}"></label>
<label>Message <input name="message" required maxlength="{longest_message}"></label>
<button>Sign</button>
</form>
<ol>
{entries}
</ol>
<footer>{visits}</footer>"""


def style(theme: str) -> str:
    """Return the style sheet of a theme."""
    paper, ink, accent = _COLOURS[theme]
    return (
        f":root {{ color-scheme: {theme}; background: {paper}; color: {ink} }}\n"
        "body { max-width: 40rem; margin: 2rem auto; padding: 0 1rem; font: 1.1rem/1.5 Georgia, serif }\n"
        f"h1, time {{ color: {accent} }}\n"
        "label { display: block; margin: .5rem 0 } ol { list-style: none; padding: 0 } li { margin: 1rem 0 }\n"
    )


def front_page(*, title: str, greeting: str, visitor: str, entries: Sequence[Entry], visits: int | None) -> str:
    """Return the front page: greeting, form and newest entries; `visits` is None if the counter is unavailable."""
    body = _FRONT.format(
        greeting=escape(greeting),
        visitor=escape(f", {visitor}") if visitor else "",
        name=escape(visitor),
        longest_name=LONGEST_NAME,
        longest_message=LONGEST_MESSAGE,
        entries="\n".join(map(_item, entries)) or "<li>No one has written yet.</li>",
        visits="visits: unknown" if visits is None else f"visits: {visits}",
    )
    return _PAGE.format(title=escape(title), body=body)


def admin_page(*, title: str, count: int, entries: Sequence[Entry]) -> str:
    """Return the administration page: the number of entries, and the newest ones."""
    body = f"<p>entries: {count}</p>\n<ol>\n{chr(10).join(map(_item, entries))}\n</ol>"
    return _PAGE.format(title=escape(f"{title}: administration"), body=body)


def _item(entry: Entry) -> str:
    time = escape(entry.time)
    return f'<li><b>{escape(entry.name)}</b> <time datetime="{time}">{time}</time><br>{escape(entry.message)}</li>'
