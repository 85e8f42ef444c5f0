"""Render `page.html` from the documents of a bundle or a run; the template engine escapes all values."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from lyra_tasks import console
from lyra_tasks.files import write_file
from lyra_tasks.records.documents import ReportDocuments, read_run_documents
from lyra_tasks.report.changes import list_changed_services, list_marks, list_removed_settings, select_changes
from lyra_tasks.report.images import count_new_bytes, measure_images
from lyra_tasks.report.timeline import build_timelines

if TYPE_CHECKING:
    from jinja2 import Template

REPORT_NAME = "report.html"

_DIRECTORY = Path(__file__).parent
_MAX_VULNERABILITIES = 20
_SEVERITIES = ("critical", "high", "medium", "low", "unknown", "negligible")
_VULNERABILITY_KEYS = ("severity", "id", "package", "version", "fixed_in")
_IMAGE_KINDS = frozenset({"stage", "structure"})
_PACKAGE_KINDS = {"deb": "Debian", "apk": "Alpine", "pypi": "Python", "npm": "npm", "rpm": "RPM", "golang": "Go"}


def render_report(documents: ReportDocuments) -> str:
    """Return the report as one HTML page without scripts or requests; equal documents give equal bytes."""
    style = (_DIRECTORY / "style.css").read_text(encoding="utf-8")
    manifest, previous, tests = documents.manifest, documents.previous, documents.tests
    changes = previous.get("changes", ())
    shown_changes, more_changes = select_changes(changes)
    rules = documents.rules.get("results", tests["rules"])
    return _load_template().render(
        style=style,
        style_digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        of_bundle=bool(manifest),
        tests=tests,
        failed=[check for check in tests["checks"] if check["outcome"] != "passed"],
        passed=[check for check in tests["checks"] if check["outcome"] == "passed"],
        check_note=_describe_order(tests["checks"]),
        rules=rules,
        promotion_passed=_count_passed(rules) - _count_passed(tests["rules"]),
        violations=[result for result in tests["rules"] if result["outcome"] == "failed"],
        signer=_find_signer(documents.provenance),
        changes=shown_changes,
        more_changes=more_changes,
        change_count=len(changes),
        changed=list_marks(changes),
        changed_services=list_changed_services(changes),
        removed=list_removed_settings(changes),
        vulnerabilities=documents.vulnerabilities,
        vulnerability_rows=(rows := _list_vulnerabilities(documents.vulnerabilities)),
        severity_counts=_count_severities(rows),
        max_vulnerabilities=_MAX_VULNERABILITIES,
        timelines=build_timelines(documents),
        manifest=manifest,
        previous=previous,
        images=measure_images(manifest, previous) if manifest else (),
        new_bytes=count_new_bytes(manifest, previous) if manifest else 0,
        packages={name: _list_packages(sbom) for name, sbom in sorted(documents.sboms.items())},
        services=documents.environment.get("services", {}),
        deviations=documents.deviations.get("deviations", []),
        provenance=_summarize_provenance(documents.provenance),
    )


def preload_template() -> None:
    """Load the template in the background: it takes 60 ms and is needed last."""
    Thread(target=_load_template, daemon=True).start()


@cache
def _load_template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_DIRECTORY),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_sanitize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["size"] = console.format_bytes
    environment.filters["number_of"] = console.format_count
    environment.filters["moment"] = _format_timestamp
    return environment.get_template("page.html")


def _sanitize(value: object) -> object:
    """Make control and invisible characters of a text visible escapes: they can make a name look like another."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return console.sanitize(value)
    return value


def _describe_order(checks: Sequence[Mapping[str, Any]]) -> str:
    """Return what is true of the order and the surroundings of these checks."""
    kinds = {check["kind"] for check in checks}
    groups = {check["group"] for check in checks if check["kind"] not in _IMAGE_KINDS}
    texts = []
    if groups:
        texts.append("Checks of services ran against the running containers, one after the other")
        if len(groups) > 1:
            texts[0] += " within each group; each group had containers of its own, and groups ran at the same time"
    if kinds & _IMAGE_KINDS:
        texts.append("Stages and structures are checks of images, without any service; all stages were built together")
    failed_first = (
        " What failed is above, and first here." if any(check["outcome"] != "passed" for check in checks) else ""
    )
    return ". ".join(texts) + ("." if texts else "No check was run.") + failed_first


def _count_passed(rules: Iterable[Mapping[str, Any]]) -> int:
    return sum(result["outcome"] == "passed" for result in rules)


def _list_vulnerabilities(document: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the vulnerabilities of all images, the gravest first; the same one in several images is one row."""
    images_by_row: dict[tuple[str, ...], list[str]] = {}
    for name, image in document.get("images", {}).items():
        for item in image["vulnerabilities"]:
            row = tuple(item[key] for key in _VULNERABILITY_KEYS)
            images_by_row.setdefault(row, []).append(name)
    rows = [
        dict(zip((*_VULNERABILITY_KEYS, "image"), (*values, ", ".join(images)), strict=True))
        for values, images in images_by_row.items()
    ]
    return sorted(rows, key=lambda row: (_SEVERITIES.index(row["severity"]), row["id"], row["package"]))


def _count_severities(rows: Sequence[Mapping[str, str]]) -> list[str]:
    counts = Counter(row["severity"] for row in rows)
    return [f"{counts[severity]} {severity}" for severity in _SEVERITIES if counts[severity]]


def _list_packages(sbom: Mapping[str, Any]) -> list[dict[str, str]]:
    packages = []
    for component in sbom.get("components", ()):
        if component.get("type") in {"library", "application", "framework"}:
            kind = str(component.get("purl", "")).removeprefix("pkg:").partition("/")[0]
            packages.append(
                {
                    "name": str(component.get("name", "")),
                    "version": str(component.get("version", "")),
                    "kind": _PACKAGE_KINDS.get(kind, kind),
                    "license": ", ".join(_license_name(entry) for entry in component.get("licenses", ())),
                }
            )
    return sorted(packages, key=lambda package: (package["kind"], package["name"], package["version"]))


def _license_name(entry: Mapping[str, Any]) -> str:
    """Return the SPDX expression or id, or the first line of what the package itself declares."""
    license_ = entry.get("license") or {}
    text = str(entry.get("expression") or license_.get("id") or license_.get("name") or "")
    return text.strip().partition("\n")[0][:80]


def _summarize_provenance(statement: Mapping[str, Any]) -> dict[str, str]:
    if not statement:
        return {}
    predicate = statement["predicate"]
    builder = predicate["runDetails"]["builder"]
    tools = ", ".join(f"{name} {version}" for name, version in sorted(builder.get("version", {}).items()))
    source = predicate["buildDefinition"]["resolvedDependencies"][0]
    return {
        "source": str(source.get("uri", "")),
        "builder": str(builder["id"]),
        "tools": tools,
        "build finished": str(predicate["runDetails"]["metadata"].get("finishedOn", "")),
        "build type": str(predicate["buildDefinition"]["buildType"]),
    }


def _find_signer(statement: Mapping[str, Any]) -> str:
    """Return who signs the bundle, or an empty text."""
    return str(statement["predicate"]["buildDefinition"]["externalParameters"].get("signer", "")) if statement else ""


def _format_timestamp(text: str) -> str:
    """Return `2026-11-24T05:42:22+00:00` as `2026-11-24 05:42:22 UTC`."""
    return re.sub(r"(\+00:00|Z)$", " UTC", text.replace("T", " ", 1))


@contextmanager
def write_report_at_end(directory: Path) -> Iterator[None]:
    """Write the report of a run at the end of the block, even after an error; without results, write nothing."""
    preload_template()
    try:
        yield
    finally:
        documents = read_run_documents(directory)
        if documents is not None:
            write_file(directory / REPORT_NAME, render_report(documents).encode())
