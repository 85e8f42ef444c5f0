"""Tasks about the configuration and the rules: `init`, `config.*` and `rules.*`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.context import Context

from lyra_tasks import console
from lyra_tasks.tasks.session import call_directory, workspace
from lyra_tasks.tasks.task import task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lyra_tasks.results import InitResult, JsonValue, Rule, RuleCatalogue, Setting


@task("config.show")
def config_show(c: Context, json: bool = False, quiet: bool = False) -> tuple[Setting, ...]:
    """Show the effective configuration and its origins."""
    from lyra_tasks.config.show import show_settings

    return show_settings(workspace().loaded)


@task("config.schema")
def config_schema(c: Context, quiet: bool = False) -> Mapping[str, JsonValue]:
    """Print the JSON Schema of .lyra.toml, for editors."""
    from lyra_tasks.config.schema import build_json_schema

    schema = build_json_schema()
    console.print_json(schema)
    return schema


@task("init", iterable=("compose",), compose="Read this Compose file, wherever it is (repeatable)")
def init(
    c: Context,
    compose: str | Sequence[str] | None = None,
    dry_run: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> InitResult:
    """Write .lyra.toml and tasks.py for the project that is here."""
    from pathlib import Path

    from lyra_tasks.scaffold.plan import plan_init
    from lyra_tasks.scaffold.project_files import inspect_project
    from lyra_tasks.scaffold.run import show_init_plan, show_init_result, write_init_files

    root = Path.cwd() / call_directory()
    plan = plan_init(inspect_project(root, tuple(compose or ())))
    if dry_run:
        return show_init_plan(plan)
    return show_init_result(write_init_files(plan, root), root)


@task("rules.list")
def rules_list(c: Context, json: bool = False, quiet: bool = False) -> RuleCatalogue:
    """List all rules with severity and rule of the runbook."""
    from lyra_tasks.rules.show import show_rules

    return show_rules()


@task("rules.explain", positional=("rule",), rule="The id of a rule; `rules.list` shows all")
def rules_explain(c: Context, rule: str, json: bool = False, quiet: bool = False) -> Rule:
    """Explain a rule: its reason and how to comply."""
    from lyra_tasks.rules.show import show_rule

    return show_rule(rule)
