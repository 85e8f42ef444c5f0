"""The lock: what every base was resolved to, written by machine into `.lyra.lock.toml` and committed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from lyra_tasks.config.models import Configuration, Rootfs
from lyra_tasks.config.platforms import variant_key
from lyra_tasks.dockerfile.parse import ImageUse
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.files import write_file

LOCK_FILE_NAME = ".lyra.lock.toml"
LOCK_SCHEMA = 1
_HEADER = "# Written by lyra; commit it. `bases.update` moves it.\n\n"
_REPAIR_HINT = "take the file from git again, or delete it and run `bases.update`"

Sha256Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
SortedStrings = Annotated[tuple[str, ...], AfterValidator(lambda value: tuple(sorted(set(value))))]


class _LockModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)


class LockedImage(_LockModel):
    """An image by reference and digest.

    `digest` is the registry's, or, if `local`, one of the layers and the configuration that every engine shows alike.
    """

    source: Literal["image"] = "image"
    reference: str
    digest: Digest
    local: bool = False


class LockedArchive(_LockModel):
    """An image archive in the project: the hash of the file and the config digest of the image inside."""

    source: Literal["archive"] = "archive"
    path: str
    sha256: Sha256Hex
    digest: Digest


class LockedRootfs(_LockModel):
    """A root file system: what was asked for, and the hash of the tar that came out.

    `source_date_epoch` is in seconds; `resolved` holds `name=version` of every package, `tools` the versions of the
    programs that made it.
    """

    source: Literal["rootfs"] = "rootfs"
    suite: str
    variant: Literal["extract", "custom", "essential", "minbase"]
    packages: SortedStrings
    architecture: str
    sha256: Sha256Hex
    source_date_epoch: int = Field(ge=0)
    resolved: SortedStrings
    tools: dict[str, str]

    @property
    def spec(self) -> Rootfs:
        """What was asked for, as `[bases]` says it."""
        return Rootfs(suite=self.suite, packages=list(self.packages), variant=self.variant)

    def matches(self, spec: Rootfs) -> bool:
        """Whether this is what `[bases]` asks for now; the order of packages does not matter."""
        return self.spec == spec.model_copy(update={"packages": sorted(set(spec.packages))})


LockedBase = Annotated[LockedImage | LockedArchive | LockedRootfs, Field(discriminator="source")]


class LockFile(_LockModel):
    """All bases by key: the reference in FROM, or the name in `[bases]` where that says where it comes from."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    bases: dict[str, LockedBase] = {}


def read_lock_file(path: Path) -> LockFile:
    """The lock in `path`, an empty one if there is no such file; ConfigurationError lists every problem in it."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return LockFile()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path}: is not TOML: {error}", hint=_REPAIR_HINT) from error
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}", hint="check its permissions") from error
    schema = document.get("schema")
    if isinstance(schema, int) and schema > LOCK_SCHEMA:
        raise ConfigurationError(f"{path}: has schema {schema}; this lyra knows {LOCK_SCHEMA}", hint="update lyra")
    try:
        return LockFile.model_validate(document)
    except ValidationError as error:
        problems = tuple(
            f"{path}: {_dotted_path(item['loc'])}: {item['msg']}" for item in error.errors(include_url=False)
        )
        raise ConfigurationError(f"{path}: is not a valid lock", hint=_REPAIR_HINT, details=problems) from error


def write_lock_file(path: Path, lock: LockFile) -> bool:
    """Replace the lock durably if it says something else; returns whether it did.

    The text is read back before it replaces the old one: the writer does not get every string right.
    """
    text = render_lock_file(lock)
    if path.is_file() and path.read_bytes() == text.encode():
        return False
    try:
        if LockFile.model_validate(tomllib.loads(text)) != lock:
            raise ValueError("it reads back as something else")
    except ValueError as error:
        raise PreconditionError(
            f"{path}: the lock cannot be written as TOML: {error}", hint="use plain names for bases and packages"
        ) from error
    write_file(path, text.encode())
    return True


def render_lock_file(lock: LockFile) -> str:
    """The lock as text: bases and keys sorted, so that equal locks are equal bytes."""
    import toml

    document = {"schema": lock.schema_, "bases": _sort_keys(lock.model_dump(mode="json")["bases"])}
    return _HEADER + toml.dumps(document).rstrip("\n") + "\n"


def _sort_keys(value: Any) -> Any:
    return {key: _sort_keys(value[key]) for key in sorted(value)} if isinstance(value, dict) else value


def _dotted_path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


def base_key(config: Configuration, image: str, reference: str) -> str:
    """The key of a FROM: the name in `[bases]` that the image or its own reference says, or the reference itself."""
    if key := config.images[image].bases.get(reference):
        return key
    if reference in config.bases:
        return reference
    return next((name for name, base in config.bases.items() if base.image == reference), reference)


def lock_key(config: Configuration, image: str, use: ImageUse) -> str:
    """The key in the lock: that of the base, and with `@PLATFORM` behind for all platforms but Proxima's first."""
    key = base_key(config, image, use.reference)
    return key if use.platform == config.proxima.platforms[0] else variant_key(key, use.platform)


def build_context_name(use: ImageUse, platform: str) -> str:
    """What a base is called in a build for `platform`: its reference, with `@PLATFORM` behind if it is for another."""
    return use.reference if use.platform == platform else variant_key(use.reference, use.platform)
