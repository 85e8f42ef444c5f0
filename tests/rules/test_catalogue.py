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


def test_the_page_of_docs_is_what_the_catalogue_says() -> None:
    assert (REPOSITORY / "docs" / "rules.md").read_text() == render_rules_page(), (
        "docs/rules.md is stale: python -m lyra_tasks.rules.show > docs/rules.md"
    )


def test_every_id_of_the_catalogue_is_one_rule_and_every_rule_has_an_id_there() -> None:
    names = {value for key, value in vars(catalogue).items() if key.isupper() and isinstance(value, str)}
    assert names == {rule.id for rule in RULES}
    assert len(names) == len(RULES)


def test_the_set_of_rules_is_another_one_as_soon_as_a_rule_asks_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = catalogue.rule_set_version()
    monkeypatch.setattr(catalogue, "RULES", RULES[1:])
    assert catalogue.rule_set_version() != before


@pytest.mark.parametrize("name", [name for name, may in deviations_allowed().items() if not may])
def test_what_no_reason_can_replace_takes_no_deviation(tmp_path: Path, name: str) -> None:
    from lyra_tasks.config.load import load_config

    file = tmp_path / ".lyra.toml"
    file.write_text(f'{HEAD}rule = "{name}"{TAIL}')
    with pytest.raises(ConfigurationError) as caught:
        load_config(tmp_path, rules=deviations_allowed())
    assert f'5: deviations[0].rule: no deviation goes around "{name}"' in caught.value.details[0]


def test_a_deviation_from_an_unknown_rule_is_refused_with_the_nearest_one(lonely: Project) -> None:
    config = lonely.root / ".lyra.toml"
    config.write_text(config.read_text() + f'[[deviations]]\nrule = "container.egres"{TAIL}')
    result = lonely.lyra("test")
    assert result.code == 2
    assert '"container.egres" is not a rule; did you mean "container.egress"?' in result.err


def test_the_words_list_and_explain_the_rules(lonely: Project) -> None:
    listed = lonely.lyra("rules.list", "--json")
    assert [each["id"] for each in json.loads(listed.out)["rules"]] == [rule.id for rule in RULES]
    assert "container.read-only-root" in lonely.lyra("rules.list").out
    explained = lonely.lyra("rules.explain", "image.setuid")
    assert "CIS-DI-0008" in explained.out
    assert json.loads(lonely.lyra("rules.explain", "image.setuid", "--json").out)["deviable"] is True
    wrong = lonely.lyra("rules.explain", "image.setui")
    assert wrong.code == 2
    assert "did you mean image.setuid?" in wrong.err
