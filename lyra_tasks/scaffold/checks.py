"""Draft a check for each service, and a health check where it has none."""

from __future__ import annotations

import re

from lyra_tasks.scaffold.drafts import Draft, DraftImage, DraftTable
from lyra_tasks.scaffold.project_files import ProjectFiles

_WEB_SERVER_IMAGE = re.compile(r"(?:.*/)?(?:nginx(?:-unprivileged)?|httpd|caddy)(?:[:@].*)?")
_LOCAL_ADDRESS = re.compile(
    r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(?::(?P<port>\d+))?(?P<path>/[^\s\"'|;)\]]*)?"
)


def add_check(draft: Draft, name: str, image: DraftImage, project: ProjectFiles) -> None:
    """Add a check to the service, and a health check if it has none."""
    service = draft.services[name]
    if service.get("oneshot"):
        return  # it must exit with 0 in any case
    healthcheck = service.entries("healthcheck")
    command = healthcheck.get("exec", [] if healthcheck.get("disable") else list(image.declared.healthcheck))
    tcp_ports = [port_name for port_name, port in service.entries("ports").items() if isinstance(port, int)]
    if not command and not healthcheck and tcp_ports:
        service.add("healthcheck", {"tcp": tcp_ports[0]})
    if re.search(r"[\x00-\x1f]", "".join(command)):
        command = []  # not valid in the configuration; the image's own health check is used anyway
    address = _LOCAL_ADDRESS.search(command if isinstance(command, str) else " ".join(command)) if command else None
    check: tuple[str, str, object]
    if address and _name_http_port(service, int(address["port"] or 80)):
        path = address["path"] or "/"
        check = f"answers {path}", "http", f"GET {path}"
    elif "http" in tcp_ports and _serves_files(image, project):
        check = "answers /", "http", "GET /"
    elif command:
        check = "is healthy", "exec", command
    elif tcp_ports:
        check = f"listens on port {tcp_ports[0]}", "tcp", tcp_ports[0]
    else:
        check = "writes a log", "log", "."
        service.todos.append("it has neither TCP port nor health check: check in [[tests]] what it logs when it works")
    text, kind, value = check
    draft.checks.append({"name": f"{name} {text}", "service": name, kind: value})


def _name_http_port(service: DraftTable, port: int) -> bool:
    """Give a port the name `http`, which HTTP checks use; return whether they can use it."""
    ports = service.entries("ports")
    if port not in ports.values() or ports.get("http") == port or len(ports) == 1:
        return port in ports.values()
    if service.given.get("ports"):
        return False  # the Compose project names its ports
    renamed = {name if name != "http" else f"port-{number}": number for name, number in ports.items()}
    service.written["ports"] = {name if number != port else "http": number for name, number in renamed.items()}
    return True


def _serves_files(image: DraftImage, project: ProjectFiles) -> bool:
    """Return whether the image is a web server for files, so that `/` has a page."""
    copied_names = {path.strip("/").rpartition("/")[2] for path in image.copied_paths}
    has_index_page = any(file.rpartition("/")[2] == "index.html" for file in project.files)
    copies_pages = not copied_names.isdisjoint({"index.html", "www", "public", "html", "static", "site"})
    return bool(_WEB_SERVER_IMAGE.fullmatch(image.declared.base)) or (has_index_page and copies_pages)
