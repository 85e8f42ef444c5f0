"""The page: what the documents say, put into `page.html`; everything from outside is escaped by the template engine."""

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

_DIRECTORY = Path(__file__).parent
_PACKAGE_KINDS = {"deb": "Debian", "apk": "Alpine", "pypi": "Python", "npm": "npm", "rpm": "RPM", "golang": "Go"}
# what turns the direction of writing can make a name look like another
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def render_report(documents: ReportDocuments) -> str:
    """The report of a bundle or a run as one HTML page: no script, no request; same documents, same bytes."""
    style = (_DIRECTORY / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _load_template().render(
        style=style,
        style_digest=digest,
        of_bundle=bool(documents.manifest),
        tests=documents.tests,
        failed=[check for check in documents.tests["checks"] if check["outcome"] != "passed"],
        broken=[result for result in documents.tests["rules"] if result["outcome"] == "broken"],
        stories=build_timelines(documents),
        manifest=documents.manifest,
        previous=documents.previous,
        images=measure_images(documents.manifest, documents.previous) if documents.manifest else (),
        fresh=count_new_bytes(documents.manifest, documents.previous) if documents.manifest else 0,
        packages={name: _list_packages(sbom) for name, sbom in sorted(documents.sboms.items())},
        services=documents.environment.get("services", {}),
        deviations=documents.deviations.get("deviations", []),
        provenance=_summarize_provenance(documents.provenance),
    )


def preload_template() -> None:
    """Read the template beside what goes on: it takes 60 ms, and is needed last."""
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
    environment.filters["short"] = _short_digest
    return environment.get_template("page.html")


def _sanitize(value: object) -> object:
    """Text as it may be shown: what could act on a reader, or be mistaken for something else, is replaced."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", console.sanitize(value))
    return value


def _list_packages(sbom: Mapping[str, Any]) -> list[dict[str, str]]:
    packages = [
        {
            "name": str(component.get("name", "")),
            "version": str(component.get("version", "")),
            "kind": _package_kind(str(component.get("purl", ""))),
            "licence": ", ".join(_license_name(entry) for entry in component.get("licenses", ())),
        }
        for component in sbom.get("components", ())
        if component.get("type") in {"library", "application", "framework"}
    ]
    return sorted(packages, key=lambda package: (package["kind"], package["name"], package["version"]))


def _package_kind(purl: str) -> str:
    kind = purl.removeprefix("pkg:").partition("/")[0]
    return _PACKAGE_KINDS.get(kind, kind)


def _license_name(entry: Mapping[str, Any]) -> str:
    """An SPDX expression, an id, or what the package itself says, of which the first line is the name."""
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
        "made with": tools,
        "build finished": str(predicate["runDetails"]["metadata"].get("finishedOn", "")),
        "build type": str(predicate["buildDefinition"]["buildType"]),
    }


def _format_timestamp(text: str) -> str:
    """`2026-11-24T05:42:22+00:00` for people: `2026-11-24 05:42:22 UTC`."""
    return re.sub(r"(\+00:00|Z)$", " UTC", text.replace("T", " ", 1))


def _short_digest(digest: str) -> str:
    """The beginning of a digest, as people compare it."""
    return digest.removeprefix("sha256:")[:12]


REPORT_NAME = "report.html"


@contextmanager
def write_report_at_end(directory: Path) -> Iterator[None]:
    """Write the report of the run in `folder` at the end of the block, however it ends; nothing without results."""
    preload_template()
    try:
        yield
    finally:
        documents = read_run_documents(directory)
        if documents is not None:
            write_file(directory / REPORT_NAME, render_report(documents).encode())
