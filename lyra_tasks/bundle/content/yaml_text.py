"""Write YAML in which every text is a text for readers of YAML 1.1 and of YAML 1.2.

PyYAML leaves texts plain that its own resolver takes for texts, but other readers for numbers: `1e3`, `08`, `0o7`.
"""

from __future__ import annotations

import re
from typing import Any

# A text that begins with a letter or a slash can be no number, date or indicator, only one of the reserved words.
_PLAIN_TEXT = re.compile(r"[A-Za-z/](?:[A-Za-z0-9_./@-]|:(?=[A-Za-z0-9/])|[ ](?=[A-Za-z0-9]))*")
_RESERVED_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"})


def render_yaml(document: Any) -> str:
    """Return a document of tables, lists, texts, numbers and booleans as YAML, one line per text, in ASCII."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """A dumper that quotes every text that is not plainly a text."""

    def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = None if _is_plain(text) else "'" if text.isascii() and text.isprintable() else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    return str(yaml.dump(document, Dumper=Dumper, sort_keys=False, default_flow_style=False, width=float("inf")))


def _is_plain(text: str) -> bool:
    return _PLAIN_TEXT.fullmatch(text) is not None and text.casefold() not in _RESERVED_WORDS
