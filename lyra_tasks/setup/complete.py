"""What images declare goes into the services that run them: user, ports, volumes, variables, limits, one check each."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from lyra_tasks.config.dockerfile import Dockerfile
from lyra_tasks.config.problems import is_secret_name
from lyra_tasks.config.stages import Shape, shape
from lyra_tasks.config.units import format_size, parse_size
from lyra_tasks.errors import ConfigurationError
from lyra_tasks.setup.draft import TMP, DraftImage, DraftService, free_name, set_variable
from lyra_tasks.setup.facts import Facts
from lyra_tasks.setup.from_dockerfiles import choose_stages, parsed
from lyra_tasks.setup.known import known_image, port_names

_USER = "10001:10001"
_NO_ROOT_BASE = re.compile(r"nonroot|unprivileged|bitnami|chainguard")
_SERVES_FILES = re.compile(r"(?:.*/)?(?:nginx(?:-unprivileged)?|httpd|caddy)(?:[:@].*)?")
_KNOWN_USERS = {"node": "1000:1000", "nobody": "65534:65534", "nonroot": "65532:65532", "www-data": "33:33"}
_USUAL = {"PATH", "HOME", "HOSTNAME", "LANG", "LC_ALL", "GPG_KEY"}
_LOCAL_ADDRESS = re.compile(
    r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(?::(?P<port>\d+))?(?P<path>/[^\s\"'|;)\]]*)?"
)
_SMALL, _ROOM = parse_size("32m"), parse_size("32m")


def complete_image(image: DraftImage, facts: Facts) -> Shape | None:
    """Choose the stages of an image; returns what it declares, or nothing where its Dockerfile does not tell."""
    dockerfile = parsed(image, facts.dockerfiles)
    if dockerfile is None:
        return None
    choose_stages(image, dockerfile)
    for name in [name for name in image.args if is_secret_name(name)]:
        del image.args[name]
        image.todos.append(f"the argument {name} looks like a secret: give it as a file, in `secrets` of this image")
    try:
        return shape(dockerfile, image.target, image.args)
    except ConfigurationError as error:
        shown = posixpath.normpath(posixpath.join(image.context, image.dockerfile))
        image.todos.append(f"{error.message.replace(str(dockerfile.path), shown)}; {error.hint}")
        return None


def complete_service(
    service: DraftService, declared: Shape | None, dockerfile: Dockerfile | None, facts: Facts
) -> None:
    """Fill in everything that the service does not say itself, and give it its check."""
    reference = service.external or (declared.base if declared else "")
    known = known_image(reference)
    if not service.ports:
        ports = list(declared.ports) if declared else []
        service.ports = port_names(ports or ([known.port] if known else []))
    own_user = str(service.values.get("user") or (declared.user if declared else ""))
    if own_user.partition(":")[0] in {"", "0", "root"} and not _NO_ROOT_BASE.search(reference):
        own_user = _give_user(service, known.user_of(reference) if known else "")
    owner = _numeric(own_user, dockerfile)
    if known:
        for path in known.tmpfs:
            service.tmpfs.setdefault(path, "16m")
    _volumes(service, declared, known.volume if known else "")
    for volume in service.volumes.values():
        volume["size"] = known.size if known else format_size(_SMALL)
        if owner:
            volume["owner"] = owner
        elif own_user:
            service.todos.append(f"the owner of {volume['path']}: the numbers of the user {own_user}")
    if declared:
        _environment(service, declared)
    _limits(service)
    _check(service, declared, dockerfile, facts)


def _give_user(service: DraftService, known: str) -> str:
    """Rule container.non-root: a service whose image names no user gets one."""
    if service.external and not known:
        service.todos.append("if this image runs as root, give it a user (rule container.non-root)")
        return ""
    service.values["user"] = known or _USER
    if not known:
        service.todos.append(
            "the image names no user, so that it would run as root: set USER in the Dockerfile instead"
        )
    return known or _USER


def _numeric(user: str, dockerfile: Dockerfile | None) -> str:
    """`UID:GID` of a user, if the numbers are written anywhere."""
    name, _, group = user.partition(":")
    if name.isdigit():
        return f"{name}:{group if group.isdigit() else name}"
    for line in dockerfile.lines if dockerfile else ():
        match = re.search(r"\b(?:useradd|adduser)\b.*?(?:-u|--uid)[ =](\d+)", line)
        if match and re.search(rf"\b{re.escape(name)}\b", line[match.end() :]):
            return f"{match[1]}:{match[1]}"
    return _KNOWN_USERS.get(name, "")


def _volumes(service: DraftService, declared: Shape | None, usual: str) -> None:
    taken = {each["path"] for each in service.volumes.values()} | set(service.tmpfs)
    for path in [*(declared.volumes if declared else ()), *([usual] if usual else [])]:
        if path == TMP:
            service.tmpfs.setdefault(path, format_size(_ROOM))
        elif not re.fullmatch(r"/[^:\x00-\x1f]+", path):
            service.todos.append(f"the image declares a volume at {path!r}, which is no place in a container")
        elif path not in taken:
            taken.add(path)
            name = free_name(path, service.volumes)
            service.volumes[name] = {"path": path, "description": f"what it keeps in {path}"}


def _environment(service: DraftService, declared: Shape) -> None:
    """Variables that the image sets; what the service sets itself wins, and only lends its description."""
    for name, each in declared.environment.items():
        own = service.environment.get(name)
        if own is not None:
            own.description = own.description or each.comment
        elif name not in _USUAL and each.value is not None:
            set_variable(service, name, each.value, each.comment, shared=False)
        elif name not in _USUAL:
            service.todos.append(f"{name} is set by the build: document it in [services.{service.name}.environment]")


def _limits(service: DraftService) -> None:
    needed = sum(parse_size(volume["size"]) for volume in service.volumes.values())
    service.limits = {"cpus": 0.25, "memory": "256m", "pids": 128, "disk": format_size(needed + _ROOM)} | service.limits


def _check(service: DraftService, declared: Shape | None, dockerfile: Dockerfile | None, facts: Facts) -> None:
    """One check per service, and a health check for what others wait for."""
    if service.values.get("oneshot"):
        return  # it must end with 0, or the test fails
    own = service.healthcheck.get("exec")
    command = own if own is not None else list(declared.health if declared else ())
    streams = [name for name, port in service.ports.items() if isinstance(port, int)]
    if not command and streams:
        service.healthcheck = {"tcp": streams[0]}
    if re.search(r"[\x00-\x1f]", "".join(command)):
        command = []  # no check can be written of it; the image's own health is asked all the same
    address = _LOCAL_ADDRESS.search(command if isinstance(command, str) else " ".join(command)) if command else None
    if address and (port := int(address["port"] or 80)) in service.ports.values():
        _call_http(service, port)
        path = address["path"] or "/"
        service.checks.append({"name": f"{service.name} answers {path}", "http": f"GET {path}"})
    elif service.ports and "http" in service.ports and _serves_files(declared, dockerfile, facts):
        service.checks.append({"name": f"{service.name} answers /", "http": "GET /"})
    elif command:
        service.checks.append({"name": f"{service.name} is well", "exec": command})
    elif streams:
        service.checks.append({"name": f"{service.name} listens on its port {streams[0]}", "tcp": streams[0]})
    else:
        service.checks.append({"name": f"{service.name} says something", "log": "."})
        service.todos.append("it has neither TCP port nor health check: in [[tests]], say what it logs when it works")


def _call_http(service: DraftService, port: int) -> None:
    """HTTP checks talk to the port of this name."""
    if service.ports.get("http") != port and len(service.ports) > 1:
        old = {name if name != "http" else f"port-{each}": each for name, each in service.ports.items()}
        service.ports = {name if each != port else "http": each for name, each in old.items()}


def _serves_files(declared: Shape | None, dockerfile: Dockerfile | None, facts: Facts) -> bool:
    """Whether the image is a web server over files, so that `/` has a page."""
    if declared is None or dockerfile is None:
        return False
    copied = [path.strip("/") for stage in dockerfile.stages for path in stage.copies]
    page = any(each.rpartition("/")[2] == "index.html" for each in facts.files)
    return bool(_SERVES_FILES.fullmatch(declared.base)) or (
        page
        and any(path.rpartition("/")[2] in {"index.html", "www", "public", "html", "static", "site"} for path in copied)
    )


def shapes(images: list[DraftImage], facts: Facts) -> Mapping[str, Shape | None]:
    """What every image declares, by name."""
    return {image.name: complete_image(image, facts) for image in images}
