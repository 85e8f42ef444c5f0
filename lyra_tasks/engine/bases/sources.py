"""Suggest where an image that is not available can come from, as lines of `.lyra.toml`."""

from __future__ import annotations

import json
import re

from lyra_tasks.engine.bases.inputs import BaseRequest
from lyra_tasks.engine.debian.mirror import host_codename, is_ubuntu
from lyra_tasks.errors import PreconditionError
from lyra_tasks.references import strip_tag

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


def suggest_sources(request: BaseRequest) -> str:
    """Return a hint with the lines of `.lyra.toml` that give an image another source."""
    name = strip_tag(request.name).rpartition("/")[2]
    reference = request.base.image or request.name
    archive = f"{re.sub(r'[^a-z0-9.]+', '-', reference.rpartition('/')[2].partition('@')[0].lower())}.tar"
    lines = [f"archive = {json.dumps(archive)}  # `docker save {reference} -o {archive}` where it is"]
    if package := _PROGRAMS.get(name):
        lines.append(f'rootfs = {{ suite = "{_find_suite()}", packages = ["{package}"] }}')
    elif package := _SERVERS.get(name):
        lines.append(f'rootfs = {{ suite = "{_find_suite()}", packages = ["{package}"], variant = "minbase" }}')
    else:
        lines.append(f'# rootfs = {{ suite = "{_find_suite()}", packages = ["NAME"] }}  # or of Debian packages')
    table = f"[bases.{name_table(request.name)}]"
    if request.is_configured:
        return "\n".join([f"Load it with `docker load`, or add a source to {table} in .lyra.toml:", *lines])
    return "\n".join(["Load it with `docker load`, or give it another source in .lyra.toml:", table, *lines])


def name_table(name: str) -> str:
    """Return a name as a key in TOML, quoted if necessary."""
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name)


def _find_suite() -> str:
    try:
        return _DEFAULT_SUITE if is_ubuntu() else host_codename()
    except PreconditionError:
        return _DEFAULT_SUITE
