"""`pack.json`: what of a bundle travels in a pack, and what the receiver must hold already."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lyra_tasks.bundle import layout
from lyra_tasks.bundle.manifest import ArchiveName, Count, Document, Sha256, Version
from lyra_tasks.config.models import Name
from lyra_tasks.images.documents import Digest
from lyra_tasks.images.parts import MAX_PARTS, part_name


class Held(Document):
    """An image that the receiver must hold, since its layers are left out: under the ids that stores give it."""

    reference: str
    config_digest: Digest
    manifest_digest: Digest


class PackedFile(Document):
    """A file of the pack as a whole, in one piece or in this many numbered parts; `size` in bytes."""

    file: str
    sha256: Sha256
    size: Count
    parts: Count = Field(le=MAX_PARTS, description="0: one piece under the file's own name")

    @property
    def names(self) -> list[str]:
        """What the file consists of, in order."""
        return [part_name(self.file, number) for number in range(1, self.parts + 1)] or [self.file]


class PackedArchive(PackedFile):
    """The archive of one image, `without` the layers of these digests, which are those of `held`."""

    file: ArchiveName
    image: Name
    without: list[Digest]
    held: Held | None

    @model_validator(mode="after")
    def _says_who_holds_what_is_left_out(self) -> PackedArchive:
        if bool(self.without) != (self.held is not None):
            raise ValueError("layers are left out of another image, or there is none")
        return self


class PackedDocuments(PackedFile):
    """The bundle's further files, with its own checksums and their signature, in one compressed tar."""

    file: Literal["documents.tar.gz"] = layout.DOCUMENTS
    unpacked_size: Count


class Pack(Document):
    """What a pack is: of which bundle, since which version, its archives and documents."""

    schema_: Literal["lyra.pack/1"] = Field(default="lyra.pack/1", alias="schema")
    project: Name
    version: Version
    since: Version | None
    set_digest: Digest
    images: list[PackedArchive]
    documents: PackedDocuments
