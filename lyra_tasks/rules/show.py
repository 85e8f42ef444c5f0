"""What `rules.list` and `rules.explain` show."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from lyra_tasks import console
from lyra_tasks.rules.catalogue import RULES, Rule, find_rule, rule_set_version


def print_rules() -> None:
    """The whole catalogue."""
    if console.is_json_mode():
        return console.print_json({"rule_set": rule_set_version(), "rules": [_rule_document(rule) for rule in RULES]})
    rows = [(rule.id, rule.severity, rule.runbook, rule.requirement) for rule in RULES]
    return console.print_table(("rule", "severity", "runbook", "what it asks"), rows)


def print_rule(name: str) -> None:
    """One rule; UsageError for an id that there is not."""
    match = find_rule(name)
    if console.is_json_mode():
        return console.print_json(_rule_document(match))
    console.print(f"{console.style(match.id, 'bold')} ({match.severity}, {match.runbook})")
    lines = {
        "asks": match.requirement,
        "why": match.rationale,
        "keep it": match.fix,
        "checked by": ", ".join(match.checked_by),
        "elsewhere": "; ".join(match.references),
        "deviation": f'[[deviations]] with rule = "{match.id}"' if match.allows_deviation else "none goes around it",
    }
    for key, text in lines.items():
        if text:
            console.print(f"  {key:<11}{text}")
    return None


def _rule_document(rule: Rule) -> dict[str, Any]:
    return asdict(rule) | {"checked": list(rule.checked_by), "refers": list(rule.references)}


_PAGE_HEAD = """# Rules

What is asked of images, containers and bundles, and why. This page is made from the catalogue in
`lyra_tasks/rules/catalogue.py`: change that, then
`python -m lyra_tasks.rules.show > docs/rules.md`. `./inv rules.list` shows the same table, `./inv rules.explain ID` one
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


def render_rules_page() -> str:
    """The page as Markdown."""
    rows = [
        f"| [`{rule.id}`](#{_anchor(rule.id)}) | {rule.severity} | {rule.runbook} | {', '.join(rule.checked_by)} |"
        for rule in RULES
    ]
    table = "\n".join(["| rule | severity | runbook | looked at by |", "|---|---|---|---|", *rows])
    return "\n".join([_PAGE_HEAD, table, "", *map(_render_rule, RULES)])


def _render_rule(rule: Rule) -> str:
    lines = [
        f"## {rule.id}",
        "",
        rule.requirement,
        "",
        f"*Why:* {rule.rationale}",
        "",
        f"*How to keep it:* {rule.fix}",
        "",
    ]
    if rule.references:
        lines += [f"*Asked for elsewhere:* {'; '.join(rule.references)}.", ""]
    if not rule.allows_deviation:
        lines += ["No deviation goes around it.", ""]
    return "\n".join(lines)


def _anchor(name: str) -> str:
    """As Markdown renderers name the anchor of a heading."""
    return name.replace(".", "")


if __name__ == "__main__":
    sys.stdout.write(render_rules_page())
