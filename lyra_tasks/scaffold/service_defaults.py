"""Complete services from what their images declare: user, ports, volumes, variables, limits and a check."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lyra_tasks.config.services import IMAGE_BASELINE_VARIABLES
from lyra_tasks.dockerfile.parse import Dockerfile
from lyra_tasks.dockerfile.stages import DeclaredImage, resolve_declared_image
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.ports import ContainerPort, port_number
from lyra_tasks.redaction import is_secret_name
from lyra_tasks.scaffold.dockerfile_import import choose_stages
from lyra_tasks.scaffold.drafts import TMP, DraftImage, DraftService, set_variable, unique_name
from lyra_tasks.scaffold.project_files import ProjectFiles
from lyra_tasks.units import format_size, parse_size

_DEFAULT_USER = "10001:10001"
_NON_ROOT_IMAGE = re.compile(r"nonroot|unprivileged|bitnami|chainguard")
_WEB_SERVER_IMAGE = re.compile(r"(?:.*/)?(?:nginx(?:-unprivileged)?|httpd|caddy)(?:[:@].*)?")
_KNOWN_USERS = {"node": "1000:1000", "nobody": "65534:65534", "nonroot": "65532:65532", "www-data": "33:33"}
_LOCAL_ADDRESS = re.compile(
    r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(?::(?P<port>\d+))?(?P<path>/[^\s\"'|;)\]]*)?"
)
_TMP_SIZE = "32m"


def complete_image(image: DraftImage, project: ProjectFiles) -> DeclaredImage | None:
    """Choose the stages of an image and return what it declares, if its Dockerfile could be read."""
    dockerfile = project.dockerfiles.get(image.dockerfile_path)
    if dockerfile is None:
        return None
    choose_stages(image, dockerfile)
    for name in [name for name in image.args if is_secret_name(name)]:
        del image.args[name]
        image.todos.append(f"the argument {name} looks like a secret: pass it as a file in `secrets` of this image")
    try:
        return resolve_declared_image(dockerfile, image.target, image.args)
    except ConfigurationError as error:
        image.todos.append(f"{error.message.replace(str(dockerfile.path), image.dockerfile_path)}. {error.hint}")
        return None


def complete_service(
    service: DraftService, image_config: DeclaredImage | None, dockerfile: Dockerfile | None, project: ProjectFiles
) -> None:
    """Fill in everything that the service does not set itself, and add a check."""
    image_config = image_config or DeclaredImage(base="", user="", workdir="")
    reference = service.external or image_config.base
    # The last part of the reference's name is the name of a well-known image
    known = KNOWN_IMAGES.get(reference.partition("@")[0].rpartition("/")[2].partition(":")[0], _UNKNOWN_IMAGE)
    service.ports = service.ports or name_ports(image_config.ports or known.ports)
    user = str(service.values.get("user") or image_config.user)
    if user.partition(":")[0] in {"", "0", "root"} and not _NON_ROOT_IMAGE.search(reference):
        user = _assign_user(service, known.alpine_user if "alpine" in reference else known.user)
    owner = _find_uid_gid(user, dockerfile)
    for path in known.tmpfs:
        service.tmpfs.setdefault(path, "16m")
    _add_volumes(service, image_config, known.volumes)
    for volume in service.volumes.values():
        volume["size"] = known.size
        if owner:
            volume["owner"] = owner
        elif user:
            service.todos.append(f"owner of {volume['path']}: UID and GID of the user {user}")
    _add_environment(service, image_config)
    disk = sum(parse_size(volume["size"]) for volume in service.volumes.values()) + parse_size(_TMP_SIZE)
    service.limits = {"cpus": 0.25, "memory": "256m", "pids": 128, "disk": format_size(disk)} | service.limits
    _add_check(service, image_config, dockerfile, project)


def _assign_user(service: DraftService, known_user: str) -> str:
    """Set a user if the image has none, as the rule container.non-root requires."""
    if service.external and not known_user:
        service.todos.append("set a user if this image runs as root (rule container.non-root)")
        return ""
    service.values["user"] = known_user or _DEFAULT_USER
    if not known_user:
        service.todos.append("the image has no user and would run as root: set USER in the Dockerfile instead")
    return known_user or _DEFAULT_USER


def _find_uid_gid(user: str, dockerfile: Dockerfile | None) -> str:
    """Return `UID:GID` of a user, if the Dockerfile contains them or they are well known."""
    name, _, group = user.partition(":")
    if name.isdigit():
        return f"{name}:{group if group.isdigit() else name}"
    for line in dockerfile.lines if dockerfile else ():
        match = re.search(r"\b(?:useradd|adduser)\b.*?(?:-u|--uid)[ =](\d+)", line)
        if match and re.search(rf"\b{re.escape(name)}\b", line[match.end() :]):
            return f"{match[1]}:{match[1]}"
    return _KNOWN_USERS.get(name, "")


def _add_volumes(service: DraftService, image_config: DeclaredImage, known_paths: Sequence[str]) -> None:
    taken_paths = {volume["path"] for volume in service.volumes.values()} | set(service.tmpfs)
    for path in (*image_config.volumes, *known_paths):
        if path == TMP:
            service.tmpfs.setdefault(path, _TMP_SIZE)
        elif not re.fullmatch(r"/[^:\x00-\x1f]+", path):
            service.todos.append(f"the image declares a volume at {path!r}, which is not a path in a container")
        elif path not in taken_paths:
            taken_paths.add(path)
            name = unique_name(path, service.volumes)
            service.volumes[name] = {"path": path, "description": f"data in {path}"}


def _add_environment(service: DraftService, image_config: DeclaredImage) -> None:
    """Add variables that the image sets; the service's own take precedence, but get the description."""
    for name, variable in image_config.environment.items():
        existing = service.environment.get(name)
        if existing is not None:
            existing.description = existing.description or variable.comment
        elif name not in IMAGE_BASELINE_VARIABLES and variable.value is not None:
            set_variable(service, name, variable.value, variable.comment, shared=False)
        elif name not in IMAGE_BASELINE_VARIABLES:
            service.todos.append(f"the build sets {name}: document it in [services.{service.name}.environment]")


def _add_check(
    service: DraftService, image_config: DeclaredImage, dockerfile: Dockerfile | None, project: ProjectFiles
) -> None:
    """Add a check to the service, and a health check if it has none."""
    if service.values.get("oneshot"):
        return  # it must exit with 0 in any case
    command = service.healthcheck.get("exec", list(image_config.healthcheck))
    tcp_ports = [name for name, port in service.ports.items() if isinstance(port, int)]
    if not command and tcp_ports:
        service.healthcheck = {"tcp": tcp_ports[0]}
    if re.search(r"[\x00-\x1f]", "".join(command)):
        command = []  # not valid in the configuration; the image's own health check is used anyway
    address = _LOCAL_ADDRESS.search(command if isinstance(command, str) else " ".join(command)) if command else None
    if address and (port := int(address["port"] or 80)) in service.ports.values():
        _name_http_port(service, port)
        path = address["path"] or "/"
        service.checks.append({"name": f"{service.name} answers {path}", "http": f"GET {path}"})
    elif service.ports and "http" in service.ports and _serves_files(image_config, dockerfile, project):
        service.checks.append({"name": f"{service.name} answers /", "http": "GET /"})
    elif command:
        service.checks.append({"name": f"{service.name} is healthy", "exec": command})
    elif tcp_ports:
        service.checks.append({"name": f"{service.name} listens on port {tcp_ports[0]}", "tcp": tcp_ports[0]})
    else:
        service.checks.append({"name": f"{service.name} writes a log", "log": "."})
        service.todos.append("it has neither TCP port nor health check: check in [[tests]] what it logs when it works")


def _name_http_port(service: DraftService, port: int) -> None:
    """Give a port the name `http`, which HTTP checks use."""
    if service.ports.get("http") != port and len(service.ports) > 1:
        renamed_ports = {name if name != "http" else f"port-{number}": number for name, number in service.ports.items()}
        service.ports = {name if number != port else "http": number for name, number in renamed_ports.items()}


def _serves_files(image_config: DeclaredImage, dockerfile: Dockerfile | None, project: ProjectFiles) -> bool:
    """Return whether the image is a web server for files, so that `/` has a page."""
    if dockerfile is None or not image_config.base:
        return False
    copied_names = {path.strip("/").rpartition("/")[2] for stage in dockerfile.stages for path in stage.copied_paths}
    has_index_page = any(file.rpartition("/")[2] == "index.html" for file in project.files)
    copies_pages = not copied_names.isdisjoint({"index.html", "www", "public", "html", "static", "site"})
    return bool(_WEB_SERVER_IMAGE.fullmatch(image_config.base)) or (has_index_page and copies_pages)


PORT_NAMES: Mapping[int, str] = {
    80: "http", 3000: "http", 4000: "http", 5000: "http", 8000: "http", 8080: "http", 8888: "http", 9000: "http",
    443: "https", 8443: "https", 9090: "metrics", 1025: "smtp", 25: "smtp", 5432: "postgres", 3306: "mysql",
    6379: "redis", 5672: "amqp", 15672: "management", 27017: "mongo", 11211: "memcached", 4222: "nats",
    50051: "grpc", 1883: "mqtt", 9092: "kafka", 9200: "search",
    53: "dns", 514: "syslog", 8125: "statsd", 51820: "wireguard",
}  # fmt: skip
"""Default names of ports."""


@dataclass(frozen=True)
class KnownImage:
    """A well-known third-party image: its ports, users (`alpine_user` for Alpine variants) and writable paths."""

    ports: tuple[int, ...]
    user: str
    alpine_user: str
    volumes: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    size: str = "64m"


KNOWN_IMAGES: Mapping[str, KnownImage] = {
    "redis": KnownImage((6379,), "999:999", "999:1000", ("/data",)),
    "valkey": KnownImage((6379,), "999:999", "999:1000", ("/data",)),
    "postgres": KnownImage(
        (5432,), "999:999", "70:70", ("/var/lib/postgresql/data",), ("/var/run/postgresql",), "256m"
    ),
    "mysql": KnownImage((3306,), "999:999", "999:999", ("/var/lib/mysql",), ("/var/run/mysqld",), "512m"),
    "mariadb": KnownImage((3306,), "999:999", "999:999", ("/var/lib/mysql",), ("/run/mysqld",), "512m"),
    "mongo": KnownImage((27017,), "999:999", "999:999", ("/data/db",), ("/data/configdb",), "512m"),
    "rabbitmq": KnownImage((5672,), "999:999", "100:101", ("/var/lib/rabbitmq",)),
    "memcached": KnownImage((11211,), "11211:11211", "11211:11211"),
    "nginx": KnownImage((80,), "101:101", "101:101", (), ("/var/cache/nginx", "/run")),
}
_UNKNOWN_IMAGE = KnownImage((), "", "", size="32m")


def name_ports(ports: Sequence[ContainerPort]) -> dict[str, ContainerPort]:
    """Return the ports by name: by their usual purpose, or `http` for the only TCP port."""
    ports_by_name: dict[str, ContainerPort] = {}
    tcp_ports = {port for port in ports if isinstance(port, int)}
    for port in dict.fromkeys(ports):
        fallback = f"port-{port}".replace("/", "-")
        default = "http" if isinstance(port, int) and len(tcp_ports) == 1 else fallback
        name = PORT_NAMES.get(port_number(port), default)
        ports_by_name[name if name not in ports_by_name else fallback] = port
    return ports_by_name
