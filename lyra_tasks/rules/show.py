"""Show the rule catalogue, or render it as `docs/rules.md`.

`python -m lyra_tasks.rules.show > docs/rules.md` updates the page.
"""

from __future__ import annotations

import sys

from lyra_tasks import console
from lyra_tasks.results.configuration import Rule, RuleCatalogue
from lyra_tasks.rules.catalogue import RULES, find_rule, rule_set_version


def show_rules() -> RuleCatalogue:
    """Show the whole catalogue."""
    catalogue = RuleCatalogue(rule_set_version(), RULES)
    if not console.print_result(catalogue):
        rows = [(rule.id, rule.severity, rule.runbook, rule.requirement) for rule in RULES]
        console.print_table(("rule", "severity", "runbook", "requirement"), rows)
    return catalogue


def show_rule(name: str) -> Rule:
    """Show one rule."""
    rule = find_rule(name)
    if console.print_result(rule):
        return rule
    console.print(f"{console.style(rule.id, 'bold')} ({rule.severity}, {rule.runbook})")
    lines = {
        "requirement": rule.requirement,
        "rationale": rule.rationale,
        "fix": rule.fix,
        "checked by": ", ".join(rule.checked_by),
        "references": "; ".join(rule.references),
        "deviation": f'[[deviations]] with rule = "{rule.id}"' if rule.allows_deviation else "not allowed",
    }
    for key, text in lines.items():
        if text:
            console.print(f"  {key:<13}{text}")
    return rule


_PAGE_HEAD = """# Rules

Requirements for images, containers and bundles, and their rationale. This page is generated from
`lyra_tasks/rules/catalogue.py`: change that, then run `python -m lyra_tasks.rules.show > docs/rules.md`.
`./inv rules.list` prints the same table, `./inv rules.explain ID` one rule.

An **error** makes the command that checks it exit with 5; a **warning** is only reported and recorded. All results are
recorded with the test results: in `tests.json`, in JUnit's `tests.xml` as the suite `rules`, in the evidence and in
`PROMOTION.md`.

A deviation from a rule needs a reason in `.lyra.toml`:

```toml
[[deviations]]
rule = "container.read-only-root"
scope = "services.web"       # or a pattern: "services.*"
reason = "the vendor's start script rewrites its own configuration"
owner = "ada"
expires = 2027-03-31
```

Every test reports it, and the bundle contains it (`PROMOTION.md`, `evidence/deviations.json`). An expired deviation
fails with 5, and an unused one is reported. A deviation from an unknown rule, or from one that allows none, is a
configuration error (2).
"""


def render_rules_page() -> str:
    """Return the page as Markdown."""
    rows = [
        f"| [`{rule.id}`](#{rule.id.replace('.', '')}) | {rule.severity} | {rule.runbook} "
        f"| {', '.join(rule.checked_by)} |"
        for rule in RULES
    ]
    table = "\n".join(["| rule | severity | runbook | checked by |", "|---|---|---|---|", *rows])
    return "\n".join([_PAGE_HEAD, table, "", *map(_render_rule, RULES)])


def _render_rule(rule: Rule) -> str:
    paragraphs = [f"## {rule.id}", rule.requirement, f"*Rationale:* {rule.rationale}", f"*Fix:* {rule.fix}"]
    if rule.references:
        paragraphs.append(f"*References:* {'; '.join(rule.references)}.")
    if not rule.allows_deviation:
        paragraphs.append("Deviations are not allowed.")
    return "".join(f"{paragraph}\n\n" for paragraph in paragraphs).removesuffix("\n")


if __name__ == "__main__":
    sys.stdout.write(render_rules_page())
