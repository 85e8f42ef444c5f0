"""Which builds run in which lab, planned without an engine."""

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
            "services": {name: {"image": name} for name in images} | {"redis": {"image": "redis:7", "platform": OWN}},
        }
    )


def summarize(platform_runs: tuple[PlatformRun, ...]) -> list[tuple[str, str, dict[str, str]]]:
    return [
        (run.platform, run.label, {name: build.platform for name, build in run.builds.items()}) for run in platform_runs
    ]


def test_platform_runs_start_with_own_platform() -> None:
    config = configuration(web=[], db=[])
    assert summarize(plan_platform_runs(config, (OWN, SECOND), OWN)) == [
        (OWN, "", {"web": OWN, "db": OWN, "redis": OWN}),
        (SECOND, "@linux-386", {"web": SECOND, "db": SECOND, "redis": OWN}),
    ]
    assert summarize(plan_platform_runs(config, (OWN,), OWN)) == [(OWN, "", {"web": OWN, "db": OWN, "redis": OWN})]
    assert collect_tested_builds(config, plan_platform_runs(config, (OWN,), OWN)) == {
        f"web@{OWN}",
        f"db@{OWN}",
        "redis",
    }


def test_platform_run_uses_other_build_of_missing_image() -> None:
    config = configuration(web=[], db=[SECOND])
    platform_runs = plan_platform_runs(config, (OWN, SECOND), OWN)
    assert summarize(platform_runs) == [
        (OWN, "", {"web": OWN, "db": SECOND, "redis": OWN}),
        (SECOND, "@linux-386", {"web": SECOND, "db": SECOND, "redis": OWN}),
    ]
    assert collect_tested_builds(config, platform_runs) == {f"web@{OWN}", f"web@{SECOND}", "db", "redis"}


def test_platform_run_without_new_builds_is_skipped() -> None:
    config = configuration(web=[OWN], db=[OWN])
    assert len(plan_platform_runs(config, (OWN, SECOND), OWN)) == 1


def test_unrunnable_service_is_named() -> None:
    with pytest.raises(PreconditionError) as caught:
        plan_platform_runs(configuration(web=[], db=[FOREIGN]), (OWN, SECOND), OWN)
    assert caught.value.details == (f"services.db: its image is for {FOREIGN}",)
    assert f"the engine runs {OWN} and {SECOND}" in caught.value.message
    assert caught.value.exit_code == 3
