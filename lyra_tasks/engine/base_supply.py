"""Bringing bases into the engine under names of our own; what is made was planned and written down before."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_tasks.engine.base_archive import ArchivedImage, write_as
from lyra_tasks.engine.bases import Supply
from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.engine.registry import held
from lyra_tasks.errors import PreconditionError

if TYPE_CHECKING:
    import docker


def provide(supplies: Iterable[Supply], client: docker.DockerClient, *, scratch: Path) -> dict[str, str]:
    """Load and tag what was planned; returns the engine's image ids by tag. `scratch` takes an archive's copy."""
    ids = {}
    for supply in supplies:
        with engine_faults(f"providing the base {supply.tag}"):
            if supply.archive:
                _load(supply.tag, supply.archive, client, scratch)
            else:
                repository, _, tag = supply.tag.rpartition(":")
                client.api.tag(supply.image, repository, tag)
            ids[supply.tag] = _checked(supply, client)
    return ids


def _load(tag: str, archive: ArchivedImage, client: docker.DockerClient, scratch: Path) -> None:
    api: Any = client.api
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=scratch) as copy:
        write_as(archive, tag, copy)
        copy.seek(0)
        for _ in api.load_image(copy):
            pass


def _checked(supply: Supply, client: docker.DockerClient) -> str:
    """The id of the image that now has the tag, after a look at whether it is the one that was meant."""
    image = held(client, supply.tag)
    wanted = supply.archive.diff_ids if supply.archive else None
    if image is None or (wanted is not None and tuple(image["RootFS"].get("Layers") or ()) != wanted):
        source = supply.archive.path if supply.archive else supply.image
        raise PreconditionError(
            f"the engine did not take over {source}",
            hint="see that the archive is whole, and made for its platform",
        )
    return str(image["Id"])
