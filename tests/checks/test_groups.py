"""Groups of checks: order, batches, names, and their results as JUnit."""

from __future__ import annotations

from typing import Any

from lyra_tasks.checks.groups import PlannedGroup, batch_parallel, group_tests, qualified_name
from lyra_tasks.checks.results import build_junit
from lyra_tasks.config.models import Test
from lyra_tasks.lab.plan import plan_empty_lab
from lyra_tasks.records.evidence import CheckResult, Evidence, ServiceUsage, SetKey
from tests.lab.test_plan import make_plan

MIB = 1024**2
LIMITS = {"cpus": 0.5, "memory": "64m", "disk": "8m"}


def checks_of(*pairs: tuple[str, str]) -> list[Test]:
    return [Test(name=name, service="web", log="x", group=group) for name, group in pairs]


def group(name: str, *, needs_lab: bool = True) -> PlannedGroup:
    lab = make_plan({"web": {"image": "web", "limits": LIMITS}}) if needs_lab else plan_empty_lab("r1", 9)
    return PlannedGroup(name, lab, ())


def names(batches: tuple[tuple[PlannedGroup, ...], ...]) -> list[list[str]]:
    return [[member.name for member in batch] for batch in batches]


def test_group_tests_keeps_order_of_file() -> None:
    groups = group_tests(checks_of(("a", ""), ("b", "slow"), ("c", ""), ("d", "fast"), ("e", "slow")))
    assert {key: [test.name for test in tests] for key, tests in groups.items()} == {
        "": ["a", "c"], "slow": ["b", "e"], "fast": ["d"],
    }  # fmt: skip


def test_batches_respect_cpus_and_memory() -> None:
    groups = [group(""), group("one"), group("two")]
    assert names(batch_parallel(groups, 1.5, 999 * MIB)) == [["", "one", "two"]]
    assert names(batch_parallel(groups, 1.0, 999 * MIB)) == [["", "one"], ["two"]]
    assert names(batch_parallel(groups, 9.0, 2 * 72 * MIB)) == [["", "one"], ["two"]]
    assert names(batch_parallel(groups, 0.1, 999 * MIB)) == [[""], ["one"], ["two"]]


def test_batches_add_group_without_services_to_any() -> None:
    assert names(batch_parallel([group("one"), group("images", needs_lab=False)], 0.5, 72 * MIB)) == [["one", "images"]]
    assert names(batch_parallel([], 1.0, MIB)) == []


def test_labs_of_one_run_share_no_object_names() -> None:
    services: dict[str, Any] = {"web": {"image": "web", "ports": {"http": 80}, "volumes": {"d": {"path": "/d"}}}}
    labs = [make_plan(services), make_plan(services, group="a", number=2), make_plan(services, group="a-web", number=3)]
    objects = [
        name
        for lab in labs
        for name in (*lab.networks, *lab.volumes, lab.holder, *(service.container for service in lab.services.values()))
    ]
    assert len(objects) == len(set(objects))
    for lab in labs:
        lab_objects = (
            *lab.networks,
            *lab.volumes,
            lab.holder,
            *(service.container for service in lab.services.values()),
        )
        assert all(name.startswith(lab.prefix) for name in lab_objects)
        others = set(objects) - set(lab_objects)
        assert not any(name.startswith(lab.prefix) for name in others), (
            "removing one lab would remove objects of another"
        )
    empty_lab = plan_empty_lab(labs[0].run, 4)
    assert not any(name.startswith(empty_lab.prefix) for name in objects)
    assert [lab.logs_path for lab in labs] == ["logs", "logs/a", "logs/a-web"]


def test_bind_mounted_files_are_separate_per_lab() -> None:
    services = {"web": {"image": "web", "configs": {"site": {"path": "/site", "source": "site"}}}}
    lab = make_plan(services, supports_subpaths=False, group="a", number=2)
    sources = [mount["Source"] for mount in lab.services["web"].payload["HostConfig"]["Mounts"] if "Source" in mount]
    assert sources == ["/f/2/web/configs/site"]


def test_junit_has_suite_per_group_with_its_services() -> None:
    usage = ServiceUsage(
        memory_peak=1, memory_limit=2, cpu_peak=0.1, cpu_limit=0.5, pids_peak=1, pids_limit=9,
        oom_killed=False, exit_code=None, samples=1,
    )  # fmt: skip
    checks = [
        CheckResult(name="one", kind="log", service="web", outcome="passed", seconds=1.0),
        CheckResult(name="two", kind="log", service="web", outcome="failed", seconds=2.0, group="slow"),
    ]
    evidence = Evidence(
        set=SetKey(images={}, test_doubles={}, effective_hash=""),
        part_hashes={},
        passed=False,
        run="r1",
        started_at="",
        seconds=2.5,
        engine={},
        checks=checks,
        rules=[],
        usage={"web": usage, qualified_name("slow", "web"): usage},
    )
    root = build_junit(evidence)
    assert (root.get("tests"), root.get("failures"), root.get("time")) == ("2", "1", "2.500")
    suites = [(suite.get("name"), suite.get("tests"), suite.get("failures")) for suite in root]
    assert suites == [("lyra r1", "1", "0"), ("lyra r1 slow", "1", "1"), ("rules", "0", "0")]
    for suite in root[:2]:
        assert {element.get("name", "").split(".")[0] for element in suite.iter("property")} == {"web"}
        assert len(list(suite.iter("property"))) == len(ServiceUsage.model_fields)
