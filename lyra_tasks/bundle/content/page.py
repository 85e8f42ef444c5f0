"""`PROMOTION.md`: instructions for the operator on Proxima, in the order in which they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lyra_tasks import console
from lyra_tasks.bundle.content.environment import PromotedService, list_variables
from lyra_tasks.bundle.content.operating import render_operating_steps
from lyra_tasks.bundle.diff import BundleDiff
from lyra_tasks.bundle.format.layout import CHANGES_FILE, RULES_FILE, VULNERABILITIES_FILE
from lyra_tasks.bundle.format.manifest import BundledArchive, Manifest
from lyra_tasks.config.deployment import config_path, publish_variable, secret_variable
from lyra_tasks.config.models import Deviation
from lyra_tasks.console.markup import escape_markdown, escape_markdown_lines, format_code, format_table
from lyra_tasks.records.evidence import Evidence, RuleResult
from lyra_tasks.rules.catalogue import TEST_PLATFORM
from lyra_tasks.rules.vulnerabilities import describe_counts
from lyra_tasks.vulnerabilities.document import VulnerabilityScan

_MAX_PACKAGE_CHANGES = 30


def render_promotion_page(
    manifest: Manifest,
    services: Sequence[PromotedService],
    evidence: Evidence,
    rules: Sequence[RuleResult],
    deviations: Sequence[Deviation],
    signer: str,
    diff: BundleDiff | None,
    scan: VulnerabilityScan | None = None,
) -> str:
    """Return the page as Markdown; `signer` is empty if the bundle is not signed."""
    head = (
        _head(manifest),
        _changes(diff),
        render_operating_steps(manifest, services, signer, diff),
        _images(manifest),
    )
    results = (_tests(evidence, rules), _rules(evidence, rules), _vulnerabilities(scan), _deviations(deviations))
    return "\n".join((*head, *(_service(service) for service in services), *results))


def _head(manifest: Manifest) -> str:
    source = f" of {escape_markdown(manifest.source.url)}" if manifest.source.url else ""
    dirty = ", with uncommitted changes: not for production" if manifest.source.dirty else ""
    return (
        f"# {escape_markdown(manifest.project)} {manifest.version}\n\n{escape_markdown_lines(manifest.description)}\n\n"
        f"Built from commit `{manifest.source.commit}`{source} of {manifest.created}{dirty}. "
        f"Needs Docker Engine {manifest.proxima.min_engine} or newer on "
        f"{', '.join(manifest.platforms)}.\n"
    )


def _changes(diff: BundleDiff | None) -> str:
    if diff is None:
        return f"## What changed\n\nNo earlier bundle to compare with. The commits are in `{CHANGES_FILE}`.\n"
    head = f"## What changed since {escape_markdown(diff.before)}\n\n"
    if not diff.changes:
        return f"{head}No visible changes. The commits are in `{CHANGES_FILE}`.\n"
    package_changes = [change for change in diff.changes if change.section in {"packages", "layers"}]
    omitted_changes = set(package_changes[_MAX_PACKAGE_CHANGES:])
    rows = [tuple(map(escape_markdown, change.row)) for change in diff.changes if change not in omitted_changes]
    omitted_count = len(omitted_changes)
    more = (
        f"\n{console.format_count(omitted_count, 'more change')} of packages and layers not shown here.\n"
        if omitted_count
        else ""
    )
    return (
        f"{head}{format_table(('section', 'name', 'before', 'after'), rows)}{more}\n"
        f"The commits are in `{CHANGES_FILE}`.\n"
    )


def describe_archive(archive: BundledArchive) -> str:
    """Return the line on an archive, which is another one in a pack."""
    return f"`{archive.file}` ({console.format_bytes(archive.size)}) has all images for {archive.platform}.\n"


def _images(manifest: Manifest) -> str:
    archives = "".join(map(describe_archive, manifest.archives))
    rows = [
        (image.references[0], image.platform, console.format_bytes(sum(image.layer_sizes.values())),
         f"`{image.config_digest}`", f"`{image.manifest_digest}`")
        for image in manifest.images
    ]  # fmt: skip
    origins = [
        (image.references[0], escape_markdown(image.origin.reference), f"`{image.origin.digest}`",
         escape_markdown(image.origin.source))
        for image in manifest.images
        if image.origin
    ]  # fmt: skip
    doubles = [(double.service, escape_markdown(double.reference)) for double in manifest.test_doubles]
    return (
        f"## Images\n\n{archives}Images that share a layer share its bytes there, and in the engine.\n\n"
        + format_table(("image", "platform", "compressed", "config digest", "manifest digest"), rows)
        + (
            f"\nThird-party images:\n\n{format_table(('image', 'origin', 'digest', 'source'), origins)}"
            if origins
            else ""
        )
        + (
            f"\nNot included, since only tests run it:\n\n{format_table(('service', 'image'), doubles)}"
            if doubles
            else ""
        )
        + "\n`docker image inspect --format '{{.Id}}' IMAGE` gives the config digest on a classic image store, and the "
        "manifest digest on a containerd image store.\n"
    )


def _service(service: PromotedService) -> str:
    config, effective = service.config, service.effective
    limits = (
        f"Runs as user {format_code(effective.user or 'root')} with {console.format_count(config.limits.cpus, 'CPU')}, "
        f"{console.format_bytes(config.limits.memory)} of memory and "
        f"{console.format_bytes(effective.memory - config.limits.memory)} for tmpfs, "
        f"{console.format_count(config.limits.pids, 'process')}"
        f"{', a read-only root file system' if config.read_only else ''}"
        f"{', outgoing network access' if config.egress else ''}. {_health(service)}"
    )
    parts = [f"## Service {service.name}\n\n{limits}\n"]
    tables = (
        (
            ("variable", "required", "default", "description"),
            [
                (format_code(variable["name"]), "yes" if variable["required"] else "no", _default(variable),
                 escape_markdown(variable["description"]) or f"set by the {variable['from']}")
                for variable in list_variables(service)
            ],
        ),
        (
            ("secret file", "set by", "description"),
            [
                (format_code(secret.path), f"`{secret_variable(service.name, key)}`",
                 escape_markdown(secret.description))
                for key, secret in config.secrets.items()
            ],
        ),
        (
            ("volume", "size", "owner", "description"),
            [
                (format_code(volume.path), console.format_bytes(volume.size), volume.owner_text,
                 escape_markdown(volume.description) + (f" (shared as {volume.shared})" if volume.shared else ""))
                for key, volume in config.volumes.items()
            ],
        ),
        (
            ("port", "name", "address set by", "default"),
            [
                (str(port), key, f"`{publish_variable(service.name, key)}`", service.publish_addresses[key] or "none")
                for key, port in config.ports.items()
            ],
        ),
        (
            ("config", "file in the bundle", "description"),
            [
                (format_code(file.path), format_code(f"deploy/{config_path(service.name, key, file)}"),
                 escape_markdown(file.description))
                for key, file in config.configs.items()
            ],
        ),
    )  # fmt: skip
    parts += [format_table(header, rows) for header, rows in tables if rows]
    return "\n".join(parts)


def _health(service: PromotedService) -> str:
    """Return a sentence on how the service's health is checked."""
    check = service.config.healthcheck
    if service.config.oneshot:
        return "Runs once and must exit with 0."
    if check is not None and check.exec is not None:
        command = check.exec if isinstance(check.exec, str) else " ".join(check.exec)
        return f"Health check: {format_code(command)} every {check.interval:g} s."
    if check is not None:
        target = format_code(check.http) if check.http else f"a connection to port {check.tcp}"
        return f"The tests waited for {target}; nothing checks that here."
    return "Health check: that of the image." if service.effective.has_healthcheck else "No health check."


def _tests(evidence: Evidence, rules: Sequence[RuleResult]) -> str:
    rows = [
        (
            check.outcome,
            escape_markdown(check.title),
            check.service,
            f"in run {format_code(check.cached_from)}" if check.cached_from else f"{check.seconds:.2f} s",
        )
        for check in evidence.checks
    ]
    peaks = [
        (escape_markdown(name),
         f"{console.format_bytes(usage.memory_peak)} of {console.format_bytes(usage.memory_limit)}",
         f"{usage.cpu_peak:.2f} of {usage.cpu_limit:g}", f"{usage.pids_peak} of {usage.pids_limit}")
        for name, usage in sorted(evidence.usage.items())
    ]  # fmt: skip
    engine = evidence.engine
    return (
        f"## Tests\n\nRun `{evidence.run}` on Docker Engine {escape_markdown(engine['version'])} "
        f"({escape_markdown(engine['store'])} image store), "
        f"{evidence.started_at}. This bundle contains exactly the tested images{_untested_note(rules)}.\n\n"
        + format_table(("result", "check", "service", "time"), rows)
        + "\n"
        + format_table(("service", "peak memory", "peak CPU", "peak processes"), peaks)
    )


def _untested_note(rules: Sequence[RuleResult]) -> str:
    """Return a remark on images that were not run by any test."""
    untested_images = [
        format_code(result.scope.removeprefix("images."))
        for result in rules
        if result.rule == TEST_PLATFORM and result.outcome != "passed"
    ]
    return f", except that no test ran {' and '.join(untested_images)}" if untested_images else ""


def _rules(evidence: Evidence, rules: Sequence[RuleResult]) -> str:
    """Count passed rules, those of the test as its report does, and list all others."""
    passed = [(result.rule, result.scope) for result in rules if result.outcome == "passed"]
    tested = {(result.rule, result.scope) for result in evidence.rules}
    passed_count = sum(check in tested for check in passed)
    rows = [
        (result.outcome, f"`{result.rule}`", escape_markdown(result.scope), escape_markdown(result.message))
        for result in rules
        if result.outcome != "passed"
    ]
    table = format_table(("outcome", "rule", "scope", "message"), rows) if rows else "All rules passed.\n"
    more_count = len(passed) - passed_count
    more = f", and {more_count} more at the promotion" if more_count else ""
    count = f"{console.format_count(passed_count, 'rule check')} passed in the test{more}"
    return f"## Rules\n\n{count}; all results are in `{RULES_FILE}`.\n\n{table}"


def _vulnerabilities(scan: VulnerabilityScan | None) -> str:
    """Return what was looked up, in which data, and how much was found; the rules name what needed a deviation."""
    lines = ["## Known vulnerabilities\n"]
    if scan is None or scan.problem:
        lines.append(f"{escape_markdown(scan.problem if scan else 'not scanned')}.\n")
    if scan is not None and scan.source is not None:
        tool = escape_markdown(f"{scan.source.tool} {scan.source.version}".strip())
        lines.append(
            f"{describe_counts(scan)}, by {tool} in data of {escape_markdown(scan.source.database_date)}; all are in "
            f"`{VULNERABILITIES_FILE}`. Look the package lists in `evidence/` up again while this version runs.\n"
        )
    return "\n".join(lines)


def _deviations(deviations: Sequence[Deviation]) -> str:
    if not deviations:
        return "## Deviations\n\nNone.\n"
    rows = [
        (
            deviation.rule,
            escape_markdown(deviation.scope),
            escape_markdown(deviation.reason),
            escape_markdown(deviation.owner),
            str(deviation.expires),
        )
        for deviation in deviations
    ]
    return "## Deviations\n\n" + format_table(("rule", "scope", "reason", "owner", "expires"), rows)


def _default(variable: Mapping[str, Any]) -> str:
    default = format_code(variable["default"]) if variable["default"] else ""
    return "(secret)" if variable["secret"] else default
