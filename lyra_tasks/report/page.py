"""The page: what the documents say, put into `page.html`; everything from outside is escaped by the template engine."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from lyra_tasks import console
from lyra_tasks.records.documents import Documents
from lyra_tasks.report.happenings import stories
from lyra_tasks.report.images import fresh_bytes, image_rows

if TYPE_CHECKING:
    from jinja2 import Template

_HERE = Path(__file__).parent
_KINDS = {"deb": "Debian", "apk": "Alpine", "pypi": "Python", "npm": "npm", "rpm": "RPM", "golang": "Go"}
# what turns the direction of writing can make a name look like another
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def page(documents: Documents) -> str:
    """The report of a bundle or a run as one HTML page: no script, no request; same documents, same bytes."""
    style = (_HERE / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _template().render(
        style=style,
        style_digest=digest,
        of_bundle=bool(documents.manifest),
        tests=documents.tests,
        failed=[each for each in documents.tests["checks"] if each["outcome"] != "passed"],
        broken=[each for each in documents.tests["rules"] if each["outcome"] == "broken"],
        stories=stories(documents),
        manifest=documents.manifest,
        previous=documents.previous,
        images=image_rows(documents.manifest, documents.previous) if documents.manifest else (),
        fresh=fresh_bytes(documents.manifest, documents.previous) if documents.manifest else 0,
        packages={name: _packages(sbom) for name, sbom in sorted(documents.sboms.items())},
        services=documents.environment.get("services", {}),
        deviations=documents.deviations.get("deviations", []),
        provenance=_provenance(documents.provenance),
    )


def prepare() -> None:
    """Read the template beside what goes on: it takes 60 ms, and is needed last."""
    Thread(target=_template, daemon=True).start()


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["size"] = console.size
    environment.filters["moment"] = _moment
    environment.filters["short"] = _short
    return environment.get_template("page.html")


def _finalized(value: object) -> object:
    """Text as it may be shown: what could act on a reader, or be mistaken for something else, is replaced."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", console.clean(value))
    return value


def _packages(sbom: Mapping[str, Any]) -> list[dict[str, str]]:
    found = [
        {
            "name": str(each.get("name", "")),
            "version": str(each.get("version", "")),
            "kind": _kind(str(each.get("purl", ""))),
            "licence": ", ".join(_licence(one) for one in each.get("licenses", ())),
        }
        for each in sbom.get("components", ())
        if each.get("type") in {"library", "application", "framework"}
    ]
    return sorted(found, key=lambda each: (each["kind"], each["name"], each["version"]))


def _kind(purl: str) -> str:
    kind = purl.removeprefix("pkg:").partition("/")[0]
    return _KINDS.get(kind, kind)


def _licence(stated: Mapping[str, Any]) -> str:
    """An SPDX expression, an id, or what the package itself says, of which the first line is the name."""
    licence = stated.get("license") or {}
    text = str(stated.get("expression") or licence.get("id") or licence.get("name") or "")
    return text.strip().partition("\n")[0][:80]


def _provenance(statement: Mapping[str, Any]) -> dict[str, str]:
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


def _moment(text: str) -> str:
    """`2026-11-24T05:42:22+00:00` for people: `2026-11-24 05:42:22 UTC`."""
    return re.sub(r"(\+00:00|Z)$", " UTC", text.replace("T", " ", 1))


def _short(digest: str) -> str:
    """The beginning of a digest, as people compare it."""
    return digest.removeprefix("sha256:")[:12]
