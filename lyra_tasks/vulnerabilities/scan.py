"""Scan the packages of images as `[scan]` says; whatever prevents that is told in the result."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path

from lyra_tasks import console
from lyra_tasks.config.models import Scan
from lyra_tasks.documents import DocumentError, translate_failures
from lyra_tasks.errors import PreconditionError
from lyra_tasks.files import quote_path
from lyra_tasks.images.stream.packages import ImagePackages, list_packages
from lyra_tasks.vulnerabilities.debian_tracker import DebianTracker, collect_sources, has_version_rules
from lyra_tasks.vulnerabilities.document import (
    ImageVulnerabilities,
    ScanSource,
    VulnerabilityScan,
    sort_vulnerabilities,
)
from lyra_tasks.vulnerabilities.programs import ProgramAnswer, scan_with_grype, scan_with_trivy

NOT_CONFIGURED = "not scanned: .lyra.toml has no [scan]"


def scan_packages(
    images: Mapping[str, ImagePackages], scan: Scan | None, root: Path, today: datetime.date
) -> VulnerabilityScan:
    """Return the vulnerabilities of images by image and platform.

    A tool that is missing or fails, data that cannot be read or is too old: each is the `problem` of the result.
    """
    if scan is None:
        return VulnerabilityScan(problem=NOT_CONFIGURED)
    database = root / Path(scan.database).expanduser()
    try:
        with translate_failures(lambda problem: PreconditionError(f"{scan.tool}: {problem}")):
            source, found = _scan(images, scan, database)
    except PreconditionError as error:
        return VulnerabilityScan(problem=f"not scanned: {error.message}", fail_on=scan.fail_on)
    return VulnerabilityScan(
        source=source, problem=_find_age_problem(source, scan, today), fail_on=scan.fail_on, images=found
    )


def _scan(
    images: Mapping[str, ImagePackages], scan: Scan, database: Path
) -> tuple[ScanSource, dict[str, ImageVulnerabilities]]:
    if not database.exists():
        raise DocumentError(f"scan.database: {quote_path(database)} does not exist")
    with console.progress(f"looking up the packages of {', '.join(images)} with {scan.tool}"):
        if scan.tool == "debian-tracker":
            return _scan_with_tracker(images, database)
        run = scan_with_grype if scan.tool == "grype" else scan_with_trivy
        answers = {name: run(_format_list(name, packages), database) for name, packages in images.items()}
    first = next(iter(answers.values()))
    source = ScanSource(tool=scan.tool, version=first.version, database_date=_normalize_time(first.database_date))
    return source, {name: _summarize(answer, images[name]) for name, answer in answers.items()}


def _scan_with_tracker(
    images: Mapping[str, ImagePackages], database: Path
) -> tuple[ScanSource, dict[str, ImageVulnerabilities]]:
    if not has_version_rules():
        raise DocumentError("debian-inspector is not installed: pip install 'lyra-tasks[debian]'")
    tracker = DebianTracker(database, collect_sources(list(images.values())))
    source = ScanSource(tool="debian-tracker", version="", database_date=tracker.date)
    return source, {name: tracker.look_up(packages) for name, packages in images.items()}


def _format_list(name: str, packages: ImagePackages) -> bytes:
    from lyra_tasks.images.package_list import build_package_list  # its library takes long to load

    return json.dumps(build_package_list(name, packages)).encode()


def _summarize(answer: ProgramAnswer, packages: ImagePackages) -> ImageVulnerabilities:
    return ImageVulnerabilities(
        vulnerabilities=sort_vulnerabilities(answer.vulnerabilities), packages=len(list_packages(packages))
    )


def _normalize_time(text: str) -> str:
    """Return a time in RFC 3339 in UTC, without fractions of a second."""
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise DocumentError("the date of its database has no time zone")
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _find_age_problem(source: ScanSource, scan: Scan, today: datetime.date) -> str:
    date = datetime.datetime.fromisoformat(source.database_date).date()
    if (today - date).days <= scan.max_age_days:
        return ""
    days = console.format_count(scan.max_age_days, "day")
    return f"the data of {scan.tool} is of {date}, more than {days} old (scan.max_age_days)"
