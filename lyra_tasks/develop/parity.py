"""Compare a development lab with what Proxima runs."""

from __future__ import annotations

from collections.abc import Iterator

from lyra_tasks import console
from lyra_tasks.config.models import Service
from lyra_tasks.config.platforms import image_platforms, is_native_platform, list_variants, native_platform
from lyra_tasks.develop.lab import CreateResult
from lyra_tasks.engine.bases.inputs import find_base_uses
from lyra_tasks.engine.client.facts import parse_version_numbers
from lyra_tasks.engine.objects.containers import inspect_image
from lyra_tasks.engine.workspace import Workspace
from lyra_tasks.results.development import ParityGap


def find_parity_gaps(work: Workspace, result: CreateResult) -> list[ParityGap]:
    """Return the differences; `work` has the configuration as it is tested and promoted."""
    config, facts, lab, proxima = work.config, result.work.engine.facts, result.plan.lab, work.config.proxima
    gaps = []
    if not any(is_native_platform(platform, facts.platform) for platform in proxima.platforms):
        consequence = "emulated images are slower and may behave differently"
        gaps.append(ParityGap("platform", facts.platform, ", ".join(proxima.platforms), consequence))
    if parse_version_numbers(facts.version)[:2] != proxima.engine_version[:2]:
        consequence = "features of the newer engine fail on Proxima"
        if parse_version_numbers(facts.version) < proxima.engine_version:
            consequence = "the bundle cannot be rehearsed on this older engine"
        gaps.append(ParityGap("engine", facts.version, f"{proxima.min_engine} or newer", consequence))
    if proxima.cpus is not None and lab.cpus > proxima.cpus:
        gaps.append(ParityGap("CPUs", f"{lab.cpus:g}", f"{proxima.cpus:g}", "services may be slower on Proxima"))
    if proxima.memory is not None and lab.memory > proxima.memory:
        local, available = console.format_bytes(lab.memory), console.format_bytes(proxima.memory)
        gaps.append(ParityGap("memory", local, available, "services may run out of memory on Proxima"))
    for name, planned in lab.services.items():
        gaps += _compare_service(name, config.services[name], planned.service)
    return [*gaps, *_compare_images(work, result)]


def _compare_service(name: str, promoted: Service, dev_service: Service) -> Iterator[ParityGap]:
    if dev_service.egress and not promoted.egress:
        yield ParityGap(f"{name}, network", "egress", "no egress", "downloads at run time fail on Proxima")
    if promoted.read_only and not dev_service.read_only:
        yield ParityGap(f"{name}, root", "writable", "read-only", "writing outside of volumes fails on Proxima")
    if dev_service.command != promoted.command:
        yield ParityGap(f"{name}, command", "dev command", "test's command", "Proxima runs another program")
    for subject, local, on_proxima in (
        ("CPUs", f"{dev_service.limits.cpus:g}", f"{promoted.limits.cpus:g}"),
        ("memory", console.format_bytes(dev_service.limits.memory), console.format_bytes(promoted.limits.memory)),
        ("processes", f"{dev_service.limits.pids}", f"{promoted.limits.pids}"),
    ):
        if local != on_proxima:
            yield ParityGap(f"{name}, {subject}", local, on_proxima, "Proxima enforces the test's limits")


def _compare_images(work: Workspace, result: CreateResult) -> Iterator[ParityGap]:
    """Compare bases by the Dockerfile, and users with the image that was last built for a test, if any."""
    engine = result.work.engine  # `work` itself may not be connected
    for name in result.plan.lab.services:
        service = work.config.services[name]
        image = work.config.images.get(service.image)
        if image is None or not image.dev_target:
            continue
        dev_bases, promoted_bases = (
            _base_references(workspace, service.image, engine.facts.platform) for workspace in (result.work, work)
        )
        if dev_bases != promoted_bases:
            local, on_proxima = ", ".join(sorted(dev_bases)), ", ".join(sorted(promoted_bases))
            yield ParityGap(f"{name}, base", local, on_proxima, "libraries may differ")
        platform = native_platform(image_platforms(work.config, service.image), engine.facts.platform)
        record = work.images.read(service.image, platform)
        promoted_image = inspect_image(engine, record.image_id) if record is not None else None
        if promoted_image is not None and not service.user:
            dev_image = inspect_image(engine, str(result.plan.lab.services[name].payload["Image"]))
            dev_user = str((dev_image["Config"] if dev_image else {}).get("User") or "root")
            promoted_user = str(promoted_image["Config"].get("User") or "root")
            if dev_user != promoted_user:
                yield ParityGap(f"{name}, user", dev_user, promoted_user, "the users may access different files")


def _base_references(work: Workspace, image: str, engine: str) -> set[str]:
    platform = native_platform(image_platforms(work.config, image), engine)
    builds = [build for build in list_variants(work.config, [image]) if build.platform == platform]
    return {use.reference for uses in find_base_uses(work, builds).values() for use in uses}
