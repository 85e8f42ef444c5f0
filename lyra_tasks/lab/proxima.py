"""How a development lab differs from what Proxima runs, and why that matters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lyra_tasks import console
from lyra_tasks.config.models import Configuration, Service
from lyra_tasks.config.platforms import own_platform, platforms_of, runs_on, variants
from lyra_tasks.engine import objects
from lyra_tasks.engine.connect import EngineFacts, version_numbers
from lyra_tasks.engine.inputs import base_uses
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.lab.dev import Created


@dataclass(frozen=True)
class Difference:
    """One thing that is otherwise in the lab than on Proxima."""

    what: str
    here: str
    there: str
    why: str


def differences(work: Workspace, created: Created) -> list[Difference]:
    """What differs, for people to read; `work` has the configuration as it is tested and promoted."""
    names = tuple(created.plan.lab.services)
    found = list(of_engine(work.config, created.work.engine.facts))
    found += of_capacity(work.config, created.plan.lab.cpus, created.plan.lab.memory)
    for name in names:
        service, planned = work.config.services[name], created.plan.lab.services[name].service
        found += of_service(name, service, planned)
    found += _of_images(work, created)
    return found


def of_engine(config: Configuration, facts: EngineFacts) -> Iterator[Difference]:
    """Platform and engine."""
    if not any(runs_on(each, facts.platform) for each in config.proxima.platforms):
        there = ", ".join(config.proxima.platforms)
        yield Difference("platform", facts.platform, there, "images are emulated here, slower and not quite the same")
    if version_numbers(facts.version)[:2] != config.proxima.engine_version[:2]:
        why = "the bundle must load on the older one, and what only the newer one knows fails there"
        if version_numbers(facts.version) < config.proxima.engine_version:
            why = "what works here works there; the bundle cannot be tried on this engine"
        yield Difference("engine", facts.version, f"{config.proxima.min_engine} or newer", why)


def of_capacity(config: Configuration, cpus: float, memory: int) -> Iterator[Difference]:
    """What the lab may use together, against what Proxima has."""
    proxima = config.proxima
    if proxima.cpus is not None and cpus > proxima.cpus:
        yield Difference("CPUs", f"{cpus:g}", f"{proxima.cpus:g}", "what is quick here may be slow there")
    if proxima.memory is not None and memory > proxima.memory:
        here, there = console.size(memory), console.size(proxima.memory)
        yield Difference("memory", here, there, "what fits here may be killed there")


def of_service(name: str, tested: Service, developed: Service) -> Iterator[Difference]:
    """What the dev table loosens or changes."""
    if developed.egress and not tested.egress:
        yield Difference(f"{name}, network", "a way out", "none", "what is fetched at run time is missing there")
    if tested.read_only and not developed.read_only:
        yield Difference(f"{name}, root", "writable", "read-only", "what is written outside of volumes fails there")
    if developed.command != tested.command:
        yield Difference(
            f"{name}, command", "its dev command", "the image's or its own", "another program starts there"
        )
    for what, here, there in (
        ("CPUs", f"{developed.limits.cpus:g}", f"{tested.limits.cpus:g}"),
        ("memory", console.size(developed.limits.memory), console.size(tested.limits.memory)),
        ("processes", f"{developed.limits.pids}", f"{tested.limits.pids}"),
    ):
        if here != there:
            yield Difference(f"{name}, {what}", here, there, "the limits of the test hold there")


def of_users(name: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[Difference]:
    """Users of the development image and of the one that is promoted."""
    mine, other = str(here.get("User") or "root"), str(there.get("User") or "root")
    if mine != other:
        yield Difference(f"{name}, user", mine, other, "files that one may read or write, the other may not")


def _of_images(work: Workspace, created: Created) -> Iterator[Difference]:
    """Bases by the Dockerfile; users by the image that was built last to be tested, if there is one."""
    engine = created.work.engine  # `work` may never have been connected
    for name in created.plan.lab.services:
        service = work.config.services[name]
        image = work.config.images.get(service.image or "")
        if image is None or not image.dev_target or service.image is None:
            continue
        here, there = (_bases(each, service.image, engine.facts.platform) for each in (created.work, work))
        if here != there:
            why = "other libraries and another C library, perhaps"
            yield Difference(f"{name}, base", ", ".join(sorted(here)), ", ".join(sorted(there)), why)
        platform = own_platform(platforms_of(work.config, service.image), engine.facts.platform)
        record = work.images.read(service.image, platform)
        tested = objects.inspect_image(engine, record.engine_id) if record is not None else None
        if tested is not None and not service.user:
            seen = objects.inspect_image(engine, str(created.plan.lab.services[name].payload["Image"]))
            yield from of_users(name, seen["Config"] if seen else {}, tested["Config"])


def _bases(work: Workspace, image: str, engine: str) -> set[str]:
    platform = own_platform(platforms_of(work.config, image), engine)
    builds = [each for each in variants(work.config, [image]) if each.platform == platform]
    return {each.reference for uses in base_uses(work, builds).values() for each in uses}
