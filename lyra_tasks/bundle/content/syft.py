"""The SBOM of an image from syft: without what depends on the machine or the time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from lyra_tasks.bundle.content.sbom import build_sbom
from lyra_tasks.bundle.content.sbom_process import ReleaseName
from lyra_tasks.bundle.content.spdx import convert_to_spdx
from lyra_tasks.bundle.format.manifest import BundledImage
from lyra_tasks.documents import parse_json_object, translate_failures
from lyra_tasks.errors import PreconditionError
from lyra_tasks.images.stream.packages import ImagePackages
from lyra_tasks.locks import private_directory
from lyra_tasks.processes import create_environment

_SYFT = "syft"
_SYFT_TIMEOUT_S = 600.0
_MAX_SYFT_BYTES = 256 * 1024**2


def run_syft(layout: Path, release: ReleaseName, image: BundledImage) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what syft lists for an OCI image layout with this image alone, reproducible, in CycloneDX and SPDX."""
    if not shutil.which(_SYFT):
        raise PreconditionError(
            'syft not found, but [promotion] sbom = "syft"', hint="Install syft, or remove that key"
        )
    command = [_SYFT, "scan", f"oci-dir:{layout}", "--quiet", "--output", "cyclonedx-json@1.5"]
    details: tuple[str, ...] = ()
    with translate_failures(
        lambda problem: PreconditionError(
            f"{_SYFT} cannot list the packages of {image.name}: {problem}",
            hint="Fix the installation, or remove [promotion] sbom; Lyra then lists the packages itself",
            details=details,
        )
    ):
        with private_directory("syft") as scratch:
            result = subprocess.run(
                command,
                capture_output=True,
                check=False,
                timeout=_SYFT_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
                env=create_environment({"TMPDIR": str(scratch)}),
            )
        details = tuple(result.stderr.decode(errors="replace").splitlines()[-5:])
        result.check_returncode()
        document = parse_json_object(result.stdout, max_bytes=_MAX_SYFT_BYTES)
        own_sbom = build_sbom(release, image, ImagePackages(packages={}, os_release=None))
        document["serialNumber"] = own_sbom["serialNumber"]
        document["metadata"]["timestamp"] = release.created
        component = document["metadata"].get("component", {})
        bom_ref = {key: component[key] for key in ("bom-ref",) if key in component}
        document["metadata"]["component"] = own_sbom["metadata"]["component"] | bom_ref
        return document, convert_to_spdx(document, image.manifest_digest)
