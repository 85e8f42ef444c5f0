from __future__ import annotations

import json
from pathlib import Path

import pytest

from lyra_tasks.errors import ConfigurationError
from lyra_tasks.rules import catalogue
from lyra_tasks.rules.catalogue import RULES, deviations_allowed
from lyra_tasks.rules.show import render_rules_page
from tests.conftest import REPOSITORY, Project

HEAD = 'schema = 1\n[project]\nname = "shop"\n[[deviations]]\n'
TAIL = '\nscope = "services.web"\nreason = "because"\nowner = "ada"\nexpires = 2999-12-31\n'


def test_rules_page_is_up_to_date() -> None:
    assert (REPOSITORY / "docs" / "rules.md").read_text() == render_rules_page(), (
        "docs/rules.md is stale: python -m lyra_tasks.rules.show > docs/rules.md"
    )


def test_every_rule_has_one_constant() -> None:
    names = {value for key, value in vars(catalogue).items() if key.isupper() and isinstance(value, str)}
    assert names == {rule.id for rule in RULES}
    assert len(names) == len(RULES)


def test_rule_set_version_changes_with_rules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = catalogue.rule_set_version()
    monkeypatch.setattr(catalogue, "RULES", RULES[1:])
    assert catalogue.rule_set_version() != before


@pytest.mark.parametrize("name", [name for name, is_allowed in deviations_allowed().items() if not is_allowed])
def test_deviation_is_refused_if_rule_allows_none(tmp_path: Path, name: str) -> None:
    from lyra_tasks.config.load import load_config

    file = tmp_path / ".lyra.toml"
    file.write_text(f'{HEAD}rule = "{name}"{TAIL}')
    with pytest.raises(ConfigurationError) as caught:
        load_config(tmp_path, rules=deviations_allowed())
    assert f'5: deviations[0].rule: "{name}" permits no deviation' in caught.value.details[0]


def test_unknown_rule_in_deviation_suggests_similar(lonely: Project) -> None:
    config = lonely.root / ".lyra.toml"
    config.write_text(config.read_text() + f'[[deviations]]\nrule = "container.egres"{TAIL}')
    result = lonely.lyra("test")
    assert result.code == 2
    assert 'unknown rule "container.egres"; did you mean "container.egress"?' in result.err


def test_rules_are_listed_and_explained(lonely: Project) -> None:
    listed = lonely.lyra("rules.list", "--json")
    assert [rule["id"] for rule in json.loads(listed.out)["rules"]] == [rule.id for rule in RULES]
    assert "container.read-only-root" in lonely.lyra("rules.list").out
    explained = lonely.lyra("rules.explain", "image.setuid")
    assert "CIS-DI-0008" in explained.out
    assert json.loads(lonely.lyra("rules.explain", "image.setuid", "--json").out)["allows_deviation"] is True
    wrong = lonely.lyra("rules.explain", "image.setui")
    assert wrong.code == 2
    assert "Did you mean image.setuid?" in wrong.err
