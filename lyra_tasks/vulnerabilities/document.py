"""The content of `vulnerabilities.json`: what a scan found, in which data, or why there was none."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from lyra_tasks.config.models import Severity
from lyra_tasks.records.record import Record

SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""All severities, the lowest first; `unknown` is what the source has not rated."""


class Vulnerability(Record):
    """A known vulnerability of a package; `fixed_in` are the versions with a fix, or empty."""

    id: str
    severity: Severity
    package: str
    version: str
    fixed_in: str = ""

    @property
    def rank(self) -> int:
        """Return the position of the severity in `SEVERITIES`."""
        return SEVERITIES.index(self.severity)


class ImageVulnerabilities(Record):
    """The vulnerabilities of an image, the gravest first; `packages` were looked up, `unknown_packages` were not."""

    vulnerabilities: list[Vulnerability]
    packages: int
    unknown_packages: int = Field(default=0, description="packages of which the source knows nothing")


class ScanSource(Record):
    """The tool and the data of a scan; `database_date` is when the data was made, in UTC."""

    tool: str
    version: str
    database_date: str


class VulnerabilityScan(Record):
    """The result of a scan, by image and platform; `problem` says why there is none, or why it cannot be relied on."""

    schema_: Literal["lyra.vulnerabilities/1"] = Field(default="lyra.vulnerabilities/1", alias="schema")
    source: ScanSource | None = None
    problem: str = ""
    fail_on: str = ""
    images: dict[str, ImageVulnerabilities] = Field(default_factory=dict)

    def count(self, severity: Severity) -> int:
        """Return the number of vulnerabilities of a severity in all images; one in several images counts for each."""
        return sum(item.severity == severity for image in self.images.values() for item in image.vulnerabilities)


def sort_vulnerabilities(vulnerabilities: list[Vulnerability]) -> list[Vulnerability]:
    """Return each vulnerability once, the gravest first."""
    return sorted(set(vulnerabilities), key=lambda item: (-item.rank, item.id, item.package, item.version))
