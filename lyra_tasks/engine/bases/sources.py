"""Images that are not available, and where they can come from, as lines of `.lyra.toml`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lyra_tasks.engine.bases.inputs import BaseRequest
from lyra_tasks.engine.debian.mirror import host_codename, is_ubuntu
from lyra_tasks.errors import PreconditionError
from lyra_tasks.references import strip_tag, suggest_archive_name

# The Debian packages of images that are often used, by the last part of the repository.
_PROGRAMS = {
    "busybox": "busybox-static",
    "debian": "base-files",
    "node": "nodejs",
    "python": "python3",
}
# Scripts of these need more than `custom` sets up.
_SERVERS = {
    "haproxy": "haproxy",
    "httpd": "apache2",
    "mariadb": "mariadb-server",
    "memcached": "memcached",
    "mosquitto": "mosquitto",
    "nginx": "nginx",
    "postgres": "postgresql",
    "rabbitmq": "rabbitmq-server",
    "redis": "redis-server",
    "valkey": "valkey-server",
}
_DEFAULT_SUITE = "trixie"
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class UnavailableImagesError(PreconditionError):
    """Images, one by one in `parts`, are neither in a registry, nor in the engine, nor in another source."""

    def __init__(
        self,
        requests: Sequence[BaseRequest],
        message: str,
        *,
        hint: str,
        details: tuple[str, ...],
        parts: tuple[UnavailableImagesError, ...] = (),
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        self.requests = tuple(requests)
        self.parts = parts or (self,)


class MissingImages:
    """Collects the images that are not available, so that one error names all of them."""

    def __init__(self) -> None:
        self._errors: list[UnavailableImagesError] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep the error of a block for later."""
        try:
            yield
        except UnavailableImagesError as error:
            self._errors += error.parts

    def require_none(self) -> None:
        """Raise UnavailableImagesError if there was one."""
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            requests = [request for error in self._errors for request in error.requests]
            keys = list(dict.fromkeys(request.key for request in requests))
            raise UnavailableImagesError(
                requests,
                f"{'1 image is' if len(keys) == 1 else f'{len(keys)} images are'} not available: {', '.join(keys)}",
                hint=suggest_sources(*requests),
                details=tuple(detail for error in self._errors for detail in (error.message, *error.details)),
                parts=tuple(self._errors),
            )


def suggest_sources(*requests: BaseRequest) -> str:
    """Return a hint with the lines of `.lyra.toml` that give images another source."""
    if len(requests) == 1 and requests[0].is_configured:
        table = f"[bases.{name_table(requests[0].name)}]"
        return "\n".join(
            [f"Load it with `docker load`, or add a source to {table} in .lyra.toml:", *_list_lines(*requests)]
        )
    lines = [f"Load {'it' if len(requests) == 1 else 'them'} with `docker load`, or give "]
    lines[0] += f"{'it another source' if len(requests) == 1 else 'them other sources'} in .lyra.toml:"
    for request in {request.name: request for request in requests}.values():
        table = f"[bases.{name_table(request.name)}]"
        lines.append(f"# add to {table}:" if request.is_configured else table)
        lines += _list_lines(request)
    return "\n".join(lines)


def _list_lines(request: BaseRequest) -> list[str]:
    """Return the lines of an image's table in `[bases]`."""
    name = strip_tag(request.name).rpartition("/")[2]
    reference = request.base.image or request.name
    archive = suggest_archive_name(reference)
    lines = [f"archive = {json.dumps(archive)}  # `docker save {reference} -o {archive}` where it is"]
    if package := _PROGRAMS.get(name):
        lines.append(f'rootfs = {{ suite = "{_find_suite()}", packages = ["{package}"] }}')
    elif package := _SERVERS.get(name):
        lines.append(f'rootfs = {{ suite = "{_find_suite()}", packages = ["{package}"], variant = "minbase" }}')
    else:
        lines.append(f'# rootfs = {{ suite = "{_find_suite()}", packages = ["NAME"] }}  # or of Debian packages')
    return lines


def name_table(name: str) -> str:
    """Return a name as a key in TOML, quoted if necessary."""
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name)


def _find_suite() -> str:
    try:
        return _DEFAULT_SUITE if is_ubuntu() else host_codename()
    except PreconditionError:
        return _DEFAULT_SUITE
