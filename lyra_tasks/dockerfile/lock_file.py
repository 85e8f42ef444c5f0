"""The lock file `.lyra.lock.toml`: the digests that all bases and third-party images were resolved to."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lyra_tasks.config.models import Configuration, Rootfs
from lyra_tasks.config.platforms import variant_key
from lyra_tasks.config.values import Digest, PackageName, Sha256Hex, Suite
from lyra_tasks.dockerfile.parse import ImageUse
from lyra_tasks.documents import parse_toml, read_document, shorten, translate_failures
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.files import write_file
from lyra_tasks.references import familiar_reference, normalize_reference, strip_tag

LOCK_FILE_NAME = ".lyra.lock.toml"
LOCK_SCHEMA = 1
_HEADER = "# Written by lyra; commit it. `lock.update` changes it.\n\n"
_REPAIR_HINT = "Restore it from git, or delete it and run `lock.update`"


def _sort(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


def _require_any(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("must not be empty")
    return values


SortedStrings = Annotated[tuple[str, ...], AfterValidator(_sort)]


class _LockModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)


class LockedImage(_LockModel):
    """An image by reference and digest.

    `digest` is the registry's or, if `local`, a hash of layers and configuration that is the same on every engine.
    """

    source: Literal["image"] = "image"
    reference: str
    digest: Digest
    local: bool = False


class LockedArchive(_LockModel):
    """An image archive in the project: hash of the file and config digest of the image."""

    source: Literal["archive"] = "archive"
    path: str
    sha256: Sha256Hex
    digest: Digest


class LockedRootfs(_LockModel):
    """A root file system: its specification, the hash of the resulting tar archive, and what it was built from.

    `resolved` has `name=version` of every package, `tools` the versions of the programs that built it.
    """

    source: Literal["rootfs"] = "rootfs"
    suite: Suite
    variant: Literal["extract", "custom", "essential", "minbase"]
    packages: Annotated[tuple[PackageName, ...], AfterValidator(_sort), AfterValidator(_require_any)]
    architecture: str
    sha256: Sha256Hex
    source_date_epoch: int = Field(ge=0)
    resolved: SortedStrings
    tools: dict[str, str]

    @property
    def spec(self) -> Rootfs:
        """Return the specification as in `[bases]`."""
        return Rootfs(suite=self.suite, packages=list(self.packages), variant=self.variant)

    def matches(self, spec: Rootfs) -> bool:
        """Return whether this matches a specification, whatever the order of packages."""
        return self.spec == spec.model_copy(update={"packages": sorted(set(spec.packages))})


LockedBase = Annotated[LockedImage | LockedArchive | LockedRootfs, Field(discriminator="source")]


def pin_digest(pin: LockedBase) -> str:
    """Return the digest that a base is locked to, as `sha256:…`."""
    return f"sha256:{pin.sha256}" if isinstance(pin, LockedRootfs) else pin.digest


class LockFile(_LockModel):
    """All bases and third-party images by key: the reference in FROM or `image`, or the name in `[bases]`."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    bases: dict[str, LockedBase] = {}


def read_lock_file(path: Path) -> LockFile:
    """Read a lock file; a missing file is empty, an invalid one a ConfigurationError with all its problems."""
    if not os.path.lexists(path):
        return LockFile()
    with translate_failures(lambda problem: ConfigurationError(f"Cannot read {path}: {problem}", hint=_REPAIR_HINT)):
        data = read_document(path)
    with translate_failures(
        lambda problem: ConfigurationError(f"Cannot read {path}: not valid TOML: {problem}", hint=_REPAIR_HINT)
    ):
        document = parse_toml(data.decode())
    schema = document.get("schema")
    if isinstance(schema, int) and schema > LOCK_SCHEMA:
        raise ConfigurationError(f"Cannot read {path}: schema {schema} is newer than {LOCK_SCHEMA}", hint="Update lyra")
    try:
        return LockFile.model_validate(document)
    except ValidationError as error:
        problems = tuple(
            f"{path}: {shorten('.'.join(map(str, item['loc'])))}: {shorten(item['msg'])}"
            for item in error.errors(include_url=False)
        )
        raise ConfigurationError(f"{path} is not a valid lock file", hint=_REPAIR_HINT, details=problems) from error


def write_lock_file(path: Path, lock: LockFile) -> bool:
    """Replace the lock file if it changed; return whether it did.

    The text is parsed before it is written, because the TOML writer does not encode every string correctly.
    """
    text = render_lock_file(lock)
    if path.is_file() and path.read_bytes() == text.encode():
        return False
    try:
        if LockFile.model_validate(tomllib.loads(text)) != lock:
            raise ValueError("the text reads back differently")
    except ValueError as error:
        raise PreconditionError(
            f"Cannot write {path} as TOML: {error}", hint="Use plain names for bases and packages"
        ) from error
    write_file(path, text.encode())
    return True


def render_lock_file(lock: LockFile) -> str:
    """Render a lock file with sorted keys, so that equal lock files have equal bytes."""
    import toml

    document = {"schema": lock.schema_, "bases": _sort_keys(lock.model_dump(mode="json")["bases"])}
    return _HEADER + toml.dumps(document).rstrip("\n") + "\n"


def _sort_keys(value: Any) -> Any:
    return {key: _sort_keys(value[key]) for key in sorted(value)} if isinstance(value, dict) else value


def base_key(config: Configuration, image: str, reference: str) -> str:
    """Return the key of a FROM: a name in `[bases]`, or the reference itself."""
    return config.images[image].bases.get(reference) or find_base(config, reference)


def find_base(config: Configuration, reference: str) -> str:
    """Return the name in `[bases]` that a reference has, or the reference itself.

    A base has the reference as its name or its `image`. A base without `image` may also have the name of the
    repository, in full or its last part: `redis` for `redis:7`.
    """
    if reference in config.bases:
        return reference
    full_reference = normalize_reference(reference)
    for name, base in config.bases.items():
        if full_reference in {normalize_reference(name), normalize_reference(base.image or name)}:
            return name
    repository = strip_tag(familiar_reference(reference))
    short_names = {repository, repository.rpartition("/")[2]}
    return next((name for name, base in config.bases.items() if not base.image and name in short_names), reference)


def lock_key(config: Configuration, image: str, use: ImageUse) -> str:
    """Return the key of a FROM in the lock file."""
    return platform_lock_key(config, base_key(config, image, use.reference), use.platform)


def third_party_lock_key(config: Configuration, service: str, platform: str) -> str:
    """Return the key of a service's third-party image in the lock file."""
    return platform_lock_key(config, find_base(config, config.services[service].image), platform)


def platform_lock_key(config: Configuration, name: str, platform: str) -> str:
    """Return the key of a base in the lock file, with `@PLATFORM` for all platforms except Proxima's first."""
    return name if platform == config.proxima.platforms[0] else variant_key(name, platform)


def build_context_name(use: ImageUse, platform: str) -> str:
    """Return the name of a base as a build context, with `@PLATFORM` if it differs from the build's platform."""
    return use.reference if use.platform == platform else variant_key(use.reference, use.platform)
