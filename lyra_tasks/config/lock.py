"""The lock: what every base was resolved to, written by machine into `.lyra.lock.toml` and committed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from lyra_tasks.config.models import Rootfs
from lyra_tasks.errors import ConfigurationError, PreconditionError
from lyra_tasks.files import write_file

LOCK_NAME = ".lyra.lock.toml"
SCHEMA = 1
_HEADER = "# Written by lyra; commit it. `bases.update` moves it.\n\n"
_REPAIR = "take the file from git again, or delete it and run `bases.update`"

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Sorted = Annotated[tuple[str, ...], AfterValidator(lambda value: tuple(sorted(set(value))))]


class _Locked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)


class LockedImage(_Locked):
    """An image by reference and digest.

    `digest` is the registry's, or, if `local`, one of the layers and the configuration that every engine shows alike.
    """

    source: Literal["image"] = "image"
    reference: str
    digest: Digest
    local: bool = False


class LockedArchive(_Locked):
    """An image archive in the project: the hash of the file and the config digest of the image inside."""

    source: Literal["archive"] = "archive"
    path: str
    sha256: Hash
    digest: Digest


class LockedRootfs(_Locked):
    """A root file system: what was asked for, and the hash of the tar that came out.

    `source_date_epoch` is in seconds; `resolved` holds `name=version` of every package, `tools` the versions of the
    programs that made it.
    """

    source: Literal["rootfs"] = "rootfs"
    suite: str
    variant: Literal["extract", "custom", "essential", "minbase"]
    packages: Sorted
    architecture: str
    sha256: Hash
    source_date_epoch: int = Field(ge=0)
    resolved: Sorted
    tools: dict[str, str]

    @property
    def spec(self) -> Rootfs:
        """What was asked for, as `[bases]` says it."""
        return Rootfs(suite=self.suite, packages=list(self.packages), variant=self.variant)

    def fits(self, spec: Rootfs) -> bool:
        """Whether this is what `[bases]` asks for now; the order of packages does not matter."""
        return self.spec == spec.model_copy(update={"packages": sorted(set(spec.packages))})


LockedBase = Annotated[LockedImage | LockedArchive | LockedRootfs, Field(discriminator="source")]


class Lock(_Locked):
    """All bases by key: the reference in FROM, or the name in `[bases]` where that says where it comes from."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    bases: dict[str, LockedBase] = {}


def read(path: Path) -> Lock:
    """The lock in `path`, an empty one if there is no such file; ConfigurationError lists every problem in it."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Lock()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path}: is not TOML: {error}", hint=_REPAIR) from error
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}", hint="check its permissions") from error
    schema = document.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise ConfigurationError(f"{path}: has schema {schema}; this lyra knows {SCHEMA}", hint="update lyra")
    try:
        return Lock.model_validate(document)
    except ValidationError as error:
        problems = tuple(f"{path}: {_dotted(item['loc'])}: {item['msg']}" for item in error.errors(include_url=False))
        raise ConfigurationError(f"{path}: is not a valid lock", hint=_REPAIR, details=problems) from error


def write(path: Path, lock: Lock) -> bool:
    """Replace the lock durably if it says something else; returns whether it did.

    The text is read back before it replaces the old one: the writer does not get every string right.
    """
    text = dumps(lock)
    if path.is_file() and path.read_bytes() == text.encode():
        return False
    try:
        if Lock.model_validate(tomllib.loads(text)) != lock:
            raise ValueError("it reads back as something else")
    except ValueError as error:
        raise PreconditionError(
            f"{path}: the lock cannot be written as TOML: {error}", hint="use plain names for bases and packages"
        ) from error
    write_file(path, text.encode())
    return True


def dumps(lock: Lock) -> str:
    """The lock as text: bases and keys sorted, so that equal locks are equal bytes."""
    import toml

    document = {"schema": lock.schema_, "bases": _sorted(lock.model_dump(mode="json")["bases"])}
    return _HEADER + toml.dumps(document).rstrip("\n") + "\n"


def _sorted(value: Any) -> Any:
    return {key: _sorted(value[key]) for key in sorted(value)} if isinstance(value, dict) else value


def _dotted(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)
