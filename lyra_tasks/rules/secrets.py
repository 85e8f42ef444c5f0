"""Secrets that a project declares and whose values are known here, and what to redact because of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from lyra_tasks.config.models import Configuration
from lyra_tasks.images.scan.secrets import split_secret
from lyra_tasks.redaction import MIN_REDACTED_LENGTH

_COMMON_WORDS = {
    "admin", "changeme", "database", "debug", "default", "demo", "development", "dummy", "error", "example",
    "false", "guest", "hello", "info", "local", "localhost", "mysql", "none", "null", "password", "postgres",
    "production", "public", "redis", "root", "secret", "server", "service", "test", "testing", "token",
    "true", "user", "value", "warning",
}  # fmt: skip
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
    """Return every declared secret and its parts, to redact in all spellings from logs, journals and messages."""
    return expand_secret_values(read_declared_secrets(config, root).values())


def describe_weak_secrets(config: Configuration, root: Path) -> list[str]:
    """Return a warning for each declared secret that is not redacted, or whose redaction makes logs unreadable."""
    words = _COMMON_WORDS | {config.project.name.lower(), *map(str.lower, (*config.services, *config.images))}
    warnings = []
    for name, value in read_declared_secrets(config, root).items():
        text = value.strip()
        if text and len(text) < MIN_REDACTED_LENGTH:
            problem = f"shorter than {MIN_REDACTED_LENGTH} characters, and not redacted from logs"
        elif text.lower() in words:
            problem = "a common word, which is redacted wherever it occurs"
        else:
            continue
        warnings.append(f"The value of {name} is {problem}; use a random one")
    return warnings


def expand_secret_values(values: Iterable[str]) -> tuple[str, ...]:
    """Return some secrets and their parts to redact, without those that are too short.

    Logs are redacted line by line, so each line of a multi-line secret counts.
    """
    parts: dict[str, None] = {}
    for value in values:
        lines = [line.strip() for line in value.splitlines()]
        parts |= dict.fromkeys((value.strip(), *(line for line in lines if _is_secret_line(line))))
        parts |= dict.fromkeys(split_secret(value))
    return tuple(part for part in parts if len(part) >= MIN_REDACTED_LENGTH)


def _is_secret_line(line: str) -> bool:
    """Return whether a line may identify a file: not the frame of a key, nor punctuation alone."""
    return not line.startswith("-----") and any(map(str.isalnum, line))


def fingerprint_secrets(secrets: Mapping[str, str], salt: str) -> str:
    """Return a digest that changes with the secrets, or '' without secrets.

    It is stored, and secrets may be short, so that guessing them from it must be slow.
    """
    if not secrets:
        return ""
    text = "\0".join(f"{name}\0{value}" for name, value in sorted(secrets.items()))
    return _hash_slowly(text.encode(errors="surrogateescape"), salt.encode())


@lru_cache(maxsize=1)
def _hash_slowly(data: bytes, salt: bytes) -> str:
    return hashlib.scrypt(data, salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=1, dklen=16).hex()
