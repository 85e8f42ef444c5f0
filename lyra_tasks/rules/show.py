"""What `rules.list` and `rules.explain` show."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lyra_tasks import console
from lyra_tasks.rules.catalogue import RULES, Rule, rule, rule_set


def listed() -> None:
    """The whole catalogue."""
    if console.is_json():
        return console.document({"rule_set": rule_set(), "rules": [_document(each) for each in RULES]})
    rows = [(each.id, each.severity, each.runbook, each.asks) for each in RULES]
    return console.table(("rule", "severity", "runbook", "what it asks"), rows)


def explained(name: str) -> None:
    """One rule; UsageError for an id that there is not."""
    found = rule(name)
    if console.is_json():
        return console.document(_document(found))
    console.say(f"{console.style(found.id, 'bold')} ({found.severity}, {found.runbook})")
    lines = {
        "asks": found.asks,
        "why": found.why,
        "keep it": found.keep,
        "checked by": ", ".join(found.checked),
        "elsewhere": "; ".join(found.refers),
        "deviation": f'[[deviations]] with rule = "{found.id}"' if found.deviable else "none goes around it",
    }
    for key, text in lines.items():
        if text:
            console.say(f"  {key:<11}{text}")
    return None


def _document(each: Rule) -> dict[str, Any]:
    return asdict(each) | {"checked": list(each.checked), "refers": list(each.refers)}
