"""The rule about known vulnerabilities, checked by a promotion: what is known changes without any change here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lyra_tasks import console
from lyra_tasks.rules.catalogue import VULNERABILITIES
from lyra_tasks.rules.finding import RuleCheck
from lyra_tasks.vulnerabilities.document import SEVERITIES, ImageVulnerabilities, Vulnerability, VulnerabilityScan

_SCAN_SCOPE = "scan"


def check_vulnerabilities(scan: VulnerabilityScan) -> Iterator[RuleCheck]:
    """Yield the vulnerabilities from the severity `fail_on` on, each with a scope of its own for deviations.

    A scan that is missing or has old data fails, unless none is configured or `fail_on` is `never`.
    """
    is_demanded = scan.fail_on in SEVERITIES
    if scan.problem:
        problem = console.escape(scan.problem)
        yield RuleCheck(VULNERABILITIES, _SCAN_SCOPE, (problem,) if is_demanded else (), "" if is_demanded else problem)
    threshold = [*SEVERITIES, "never", ""].index(scan.fail_on)
    for key, image in scan.images.items():
        grave: dict[str, list[Vulnerability]] = {}
        for item in image.vulnerabilities:
            if item.rank >= threshold:
                grave.setdefault(item.id, []).append(item)
        for name, items in grave.items():
            yield RuleCheck(VULNERABILITIES, vulnerability_scope(key, name), (_describe(items),))
        note = _describe_gaps(image, threshold)
        if note or not grave:
            yield RuleCheck(VULNERABILITIES, f"images.{key}", skip_reason=note)


def announce_scan(scan: VulnerabilityScan) -> None:
    """Tell what a scan found, or why there is none; an old database is worth a warning."""
    if scan.problem:
        (console.warn if scan.fail_on else console.info)(f"Vulnerabilities: {console.escape(scan.problem)}")
    if scan.source is not None:
        source = console.escape(f"{scan.source.tool} {scan.source.version}".strip())
        console.info(f"Vulnerabilities by {source}, data of {scan.source.database_date[:10]}: {describe_counts(scan)}")


def describe_counts(scan: VulnerabilityScan) -> str:
    """Return the number of vulnerabilities of each severity, the gravest first."""
    counts = [f"{count} {severity}" for severity in reversed(SEVERITIES) if (count := scan.count(severity))]
    return ", ".join(counts) or "none"


def vulnerability_scope(build: str, name: str) -> str:
    """Return the scope of a vulnerability: `images.web:CVE-2026-1`, `images.web:CVE-2026-1@linux/arm64`."""
    image, at, platform = build.partition("@")
    return f"images.{image}:{console.escape(name)}{at}{platform}"


def _describe(items: Sequence[Vulnerability]) -> str:
    packages = ", ".join(dict.fromkeys(f"{item.package} {item.version}" for item in items))
    fixes = ", ".join(dict.fromkeys(item.fixed_in for item in items if item.fixed_in))
    return console.escape(f"{items[0].severity}: {packages}; {f'fixed in {fixes}' if fixes else 'no fix known'}")


def _describe_gaps(image: ImageVulnerabilities, threshold: int) -> str:
    """Return what a scan leaves open: packages that it does not know, and what nobody has rated."""
    unrated = sum(item.severity == "unknown" and item.rank < threshold for item in image.vulnerabilities)
    notes = []
    if image.unknown_packages or not image.packages:
        notes.append(f"{image.unknown_packages} of {image.packages + image.unknown_packages} packages not looked up")
    if unrated:
        notes.append(f"{console.format_count(unrated, 'vulnerability')} without a severity not judged")
    return "; ".join(notes)
