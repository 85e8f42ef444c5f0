"""Types of the values in the configuration and in documents: names, digests, sizes (bytes), durations (seconds)."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from lyra_tasks.digests import DIGEST_PATTERN
from lyra_tasks.ports import join_host_port
from lyra_tasks.units import DURATION_PATTERN, SIZE_PATTERN, parse_duration, parse_size

# The JSON Schema describes what users write, for editors to complete and validate
_SIZE_SCHEMA = {"anyOf": [{"type": "string", "pattern": SIZE_PATTERN}, {"type": "integer", "exclusiveMinimum": 0}]}
# What an engine accepts (https://docs.docker.com/reference/cli/docker/container/run/#ulimit)
_ULIMIT_NAMES = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip
_MAX_PORT = 65535
_DURATION_SCHEMA = {
    "anyOf": [{"type": "string", "pattern": DURATION_PATTERN}, {"type": "number", "exclusiveMinimum": 0}]
}


def _reject_control_characters(value: str) -> str:
    # They could act on a terminal, or end a C string
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", value):
        raise ValueError("contains control characters; write plain text")
    return value


def require_single_line(value: str) -> str:
    """Return a text without line breaks and control characters; raise ValueError for others."""
    if "\n" in value:
        raise ValueError("must be a single line")
    return _reject_control_characters(value)


def _require_not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


def _require_publish_address(value: str) -> str:
    host, _, port = value.rpartition(":")
    with suppress(ValueError):
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        if value == join_host_port(host.strip("[]"), int(port)) and 1 <= int(port) <= _MAX_PORT:
            return value
    raise ValueError('is not IP:PORT, such as "0.0.0.0:8080" or "[::1]:8080"')


def _require_ip_address(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("is not an IP address; the host itself cannot be reached") from None
    return value


Suite = Annotated[str, StringConstraints(pattern=r"^[a-z]+$")]
PackageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]
Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]
Sha256Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, BeforeValidator(parse_size), WithJsonSchema(_SIZE_SCHEMA)]
Duration = Annotated[float, BeforeValidator(parse_duration), WithJsonSchema(_DURATION_SCHEMA)]
Text = Annotated[str, AfterValidator(_reject_control_characters)]
Line = Annotated[str, AfterValidator(require_single_line)]
NonBlankLine = Annotated[Line, AfterValidator(_require_not_blank)]
Port = Annotated[int, Field(ge=1, le=_MAX_PORT, strict=True)]
PublishAddress = Annotated[str, AfterValidator(_require_publish_address)]
UDP_PATTERN = r"^([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])/udp$"
UdpPort = Annotated[str, StringConstraints(pattern=UDP_PATTERN)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
ENVIRONMENT_NAME_PATTERN = r"^[^=\s\x00-\x1f\x7f]+$"
EnvironmentName = Annotated[str, StringConstraints(pattern=ENVIRONMENT_NAME_PATTERN)]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
ContainerPath = Annotated[str, StringConstraints(pattern=r"^/[^:\x00-\x1f]*[^/:\x00-\x1f]$")]
ProjectPath = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]+$")]
HOST_NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
HostName = Annotated[str, StringConstraints(pattern=HOST_NAME_PATTERN)]
GROUP_NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}$"
GroupName = Annotated[str, StringConstraints(pattern=GROUP_NAME_PATTERN)]
SYSCTL_NAME_PATTERN = r"^[a-z0-9_]+([./][A-Za-z0-9_-]+)+$"
SysctlName = Annotated[str, StringConstraints(pattern=SYSCTL_NAME_PATTERN)]
SysctlValue = Annotated[int, Field(strict=True)] | NonBlankLine
ULIMIT_NAME_PATTERN = f"^({'|'.join(_ULIMIT_NAMES)})$"
UlimitName = Annotated[str, StringConstraints(pattern=ULIMIT_NAME_PATTERN)]
UlimitValue = Annotated[int, Field(ge=-1, strict=True)]
IpAddress = Annotated[str, AfterValidator(_require_ip_address)]
Owner = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,7}:[0-9]{1,7}$")]
Platform = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+/[a-z0-9_]+(/v[0-9]+)?$")]
# https://pkg.go.dev/github.com/distribution/reference, with the only digests that engines use
_REFERENCE_HOST = (
    r"([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(:[0-9]+)?"
)
_REFERENCE_PART = r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*"
REFERENCE_PATTERN = (
    f"^({_REFERENCE_HOST}/)?{_REFERENCE_PART}(/{_REFERENCE_PART})*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$"
)
Reference = Annotated[str, StringConstraints(pattern=REFERENCE_PATTERN)]
Group = Annotated[str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9_-]{0,30})?$")]
Command = list[Text] | Text


class Table(BaseModel):
    """A table of the configuration: strict types, no unknown keys, immutable.

    The text under a key is its description, in the JSON Schema and in docs/configuration.md.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)
