"""What single values of the configuration must be: names, paths, sizes (bytes), durations (seconds)."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from lyra_tasks.redaction import reject_control_characters, require_not_blank, require_single_line
from lyra_tasks.units import DURATION_PATTERN, SIZE_PATTERN, parse_duration, parse_size

# As users write them, which is what an editor is to complete and check
_SIZE_SCHEMA = {"anyOf": [{"type": "string", "pattern": SIZE_PATTERN}, {"type": "integer", "exclusiveMinimum": 0}]}
_DURATION_SCHEMA = {
    "anyOf": [{"type": "string", "pattern": DURATION_PATTERN}, {"type": "number", "exclusiveMinimum": 0}]
}

Size = Annotated[int, BeforeValidator(parse_size), WithJsonSchema(_SIZE_SCHEMA)]
Duration = Annotated[float, BeforeValidator(parse_duration), WithJsonSchema(_DURATION_SCHEMA)]
Text = Annotated[str, AfterValidator(reject_control_characters)]
Line = Annotated[str, AfterValidator(require_single_line)]
NonBlankLine = Annotated[Line, AfterValidator(require_not_blank)]
Port = Annotated[int, Field(ge=1, le=65535, strict=True)]
UDP_PATTERN = r"^([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])/udp$"
UdpPort = Annotated[str, StringConstraints(pattern=UDP_PATTERN)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
ContainerPath = Annotated[str, StringConstraints(pattern=r"^/[^:\x00-\x1f]*[^/:\x00-\x1f]$")]
ProjectPath = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]+$")]
Owner = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,7}:[0-9]{1,7}$")]
Platform = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+/[a-z0-9_]+(/v[0-9]+)?$")]
Group = Annotated[str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9_-]{0,30})?$")]
Command = list[Line] | Line


class Table(BaseModel):
    """A table of the configuration: unknown keys and other types are errors, values cannot be changed afterwards.

    The text under a key is its description: in the JSON Schema and in docs/configuration.md.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)
