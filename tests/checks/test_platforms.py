"""Which builds run in which lab of a test, decided without an engine."""

from __future__ import annotations

import pytest

from lyra_tasks.checks.groups import PlatformRun, collect_tested_builds, plan_platform_runs
from lyra_tasks.config.models import Configuration
from lyra_tasks.errors import PreconditionError

OWN, SECOND, FOREIGN = "linux/amd64", "linux/386", "linux/arm64"


def configuration(**images: list[str]) -> Configuration:
    return Configuration.model_validate(
        {
            "schema": 1,
            "project": {"name": "shop"},
            "proxima": {"platforms": [OWN, SECOND, FOREIGN]},
            "images": {name: {"context": ".", "platforms": platforms} for name, platforms in images.items()},
            "services": {name: {"image": name} for name in images} | {"redis": {"external": "redis:7"}},
        }
    )


def told(rounds: tuple[PlatformRun, ...]) -> list[tuple[str, str, dict[str, str]]]:
    return [(each.platform, each.label, {name: b.platform for name, b in each.builds.items()}) for each in rounds]


def test_there_is_a_lab_for_each_platform_that_the_engine_runs_its_own_first() -> None:
    config = configuration(web=[], db=[])
    assert told(plan_platform_runs(config, (OWN, SECOND), OWN)) == [
        (OWN, "", {"web": OWN, "db": OWN}),
        (SECOND, "@linux-386", {"web": SECOND, "db": SECOND}),
    ]
    assert told(plan_platform_runs(config, (OWN,), OWN)) == [(OWN, "", {"web": OWN, "db": OWN})]
    assert collect_tested_builds(config, plan_platform_runs(config, (OWN,), OWN)) == {f"web@{OWN}", f"db@{OWN}"}


def test_an_image_that_is_not_there_for_a_platform_runs_beside_the_others_for_one_that_it_is_for() -> None:
    config = configuration(web=[], db=[SECOND])
    rounds = plan_platform_runs(config, (OWN, SECOND), OWN)
    assert told(rounds) == [
        (OWN, "", {"web": OWN, "db": SECOND}),
        (SECOND, "@linux-386", {"web": SECOND, "db": SECOND}),
    ]
    assert collect_tested_builds(config, rounds) == {f"web@{OWN}", f"web@{SECOND}", "db"}


def test_no_lab_is_started_that_would_run_nothing_new() -> None:
    config = configuration(web=[OWN], db=[OWN])
    assert len(plan_platform_runs(config, (OWN, SECOND), OWN)) == 1


def test_a_service_that_cannot_run_at_all_is_named() -> None:
    with pytest.raises(PreconditionError) as caught:
        plan_platform_runs(configuration(web=[], db=[FOREIGN]), (OWN, SECOND), OWN)
    assert caught.value.details == (f"services.db: its image is for {FOREIGN}",)
    assert f"the engine runs {OWN} and {SECOND}" in caught.value.message
    assert caught.value.exit_code == 3
