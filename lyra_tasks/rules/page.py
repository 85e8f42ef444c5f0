"""`docs/rules.md`, made from the catalogue: `python -m lyra_tasks.rules.page > docs/rules.md` writes it anew."""

from __future__ import annotations

import sys

from lyra_tasks.rules.catalogue import RULES, Rule

_HEAD = """# Rules

What is asked of images, containers and bundles, and why. This page is made from the catalogue in
`lyra_tasks/rules/catalogue.py`: change that, then
`python -m lyra_tasks.rules.page > docs/rules.md`. `./inv rules.list` shows the same table, `./inv rules.explain ID` one
rule.

An **error** ends the word that looks at it with 5; a **warning** is told and recorded, and ends nothing. Every result,
kept or not, stands beside the test results: in `tests.json`, in JUnit's `tests.xml` as the suite `rules`, in the
evidence and in `PROMOTION.md`.

Going around a rule takes a reason in `.lyra.toml`:

```toml
[[deviations]]
rule = "container.read-only-root"
scope = "services.web"       # or a pattern: "services.*"
reason = "the vendor's start script rewrites its own configuration"
owner = "ada"
expires = 2027-03-31
```

It is told with every test and travels in the bundle (`PROMOTION.md`, `evidence/deviations.json`). One that has expired
fails with 5, one that nothing needs any more is told, and one for a rule that does not exist, or that no reason can
replace, is a fault in the configuration (2).
"""


def page() -> str:
    """The page as Markdown."""
    rows = [
        f"| [`{rule.id}`](#{_anchor(rule.id)}) | {rule.severity} | {rule.runbook} | {', '.join(rule.checked)} |"
        for rule in RULES
    ]
    table = "\n".join(["| rule | severity | runbook | looked at by |", "|---|---|---|---|", *rows])
    return "\n".join([_HEAD, table, "", *map(_section, RULES)])


def _section(rule: Rule) -> str:
    lines = [f"## {rule.id}", "", rule.asks, "", f"*Why:* {rule.why}", "", f"*How to keep it:* {rule.keep}", ""]
    if rule.refers:
        lines += [f"*Asked for elsewhere:* {'; '.join(rule.refers)}.", ""]
    if not rule.deviable:
        lines += ["No deviation goes around it.", ""]
    return "\n".join(lines)


def _anchor(name: str) -> str:
    """As Markdown renderers name the anchor of a heading."""
    return name.replace(".", "")


if __name__ == "__main__":
    sys.stdout.write(page())
