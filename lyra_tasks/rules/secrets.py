"""Secrets that a project declares and whose values are known here, and what to redact because of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from lyra_tasks.config.models import Configuration
from lyra_tasks.images.scan.secrets import encode_secrets

_SCRYPT_N, _SCRYPT_R = 2**14, 8  # cost and block size


def read_declared_secrets(config: Configuration, root: Path) -> dict[str, str]:
    """Return by name (`images.web.secrets.pip`) the build secrets and the secrets with a test value."""
    secrets = {}
    for image, table in config.images.items():
        for key, path in table.secrets.items():
            file = root / path
            if file.is_file():
                secrets[f"images.{image}.secrets.{key}"] = file.read_bytes().decode(errors="surrogateescape")
    for service, settings in config.services.items():
        for key, variable in settings.environment.items():
            if variable.secret and variable.test_value:
                secrets[f"services.{service}.environment.{key}"] = variable.test_value
        for key, secret in settings.secrets.items():
            if secret.test_value:
                secrets[f"services.{service}.secrets.{key}"] = secret.test_value
    return secrets


def redacted_values(config: Configuration, root: Path) -> tuple[str, ...]:
    """Return every declared secret in every encoding, to redact from logs, journals and messages."""
    return encode_secrets(read_declared_secrets(config, root).values())


def expand_secret_values(values: Iterable[str]) -> tuple[str, ...]:
    """Return all forms of some secrets to redact from logs, longest first.

    Logs are redacted line by line, so each line of a multi-line secret counts.
    """
    lines = [*values]
    lines += [line.strip() for value in lines for line in value.splitlines()]
    patterns = {*(value for value in lines if len(value) >= 4), *encode_secrets(lines)}
    return tuple(sorted(patterns, key=len, reverse=True))


def fingerprint_secrets(secrets: Mapping[str, str], salt: str) -> str:
    """Return a digest that changes with the secrets, or '' without secrets.

    It is stored, and secrets may be short, so that guessing them from it must be slow.
    """
    if not secrets:
        return ""
    text = "\0".join(f"{name}\0{value}" for name, value in sorted(secrets.items()))
    data = text.encode(errors="surrogateescape")
    return hashlib.scrypt(data, salt=salt.encode(), n=_SCRYPT_N, r=_SCRYPT_R, p=1, dklen=16).hex()
