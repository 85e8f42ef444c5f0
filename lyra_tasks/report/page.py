"""Render `page.html` from the documents of a bundle or a run; the template engine escapes all values."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from lyra_tasks import console
from lyra_tasks.files import write_file
from lyra_tasks.records.documents import ReportDocuments, read_run_documents
from lyra_tasks.report.images import count_new_bytes, measure_images
from lyra_tasks.report.timeline import build_timelines

if TYPE_CHECKING:
    from jinja2 import Template

REPORT_NAME = "report.html"

_DIRECTORY = Path(__file__).parent
_PACKAGE_KINDS = {"deb": "Debian", "apk": "Alpine", "pypi": "Python", "npm": "npm", "rpm": "RPM", "golang": "Go"}


def render_report(documents: ReportDocuments) -> str:
    """Return the report as one HTML page without scripts or requests; equal documents give equal bytes."""
    style = (_DIRECTORY / "style.css").read_text(encoding="utf-8")
    manifest, previous = documents.manifest, documents.previous
    return _load_template().render(
        style=style,
        style_digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        of_bundle=bool(manifest),
        tests=documents.tests,
        failed=[check for check in documents.tests["checks"] if check["outcome"] != "passed"],
        violations=[result for result in documents.tests["rules"] if result["outcome"] == "failed"],
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
    environment.filters["moment"] = _format_timestamp
    return environment.get_template("page.html")


def _sanitize(value: object) -> object:
    """Make control and invisible characters of a text visible escapes: they can make a name look like another."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return console.sanitize(value)
    return value


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
