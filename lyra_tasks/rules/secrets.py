"""The secrets that a project declares and whose values are at hand here: those that may stand nowhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from lyra_tasks.config.models import Configuration
from lyra_tasks.images.scan.secrets import encode_secrets

_SCRYPT_COST = {"n": 2**14, "r": 8, "p": 1}


def read_declared_secrets(config: Configuration, root: Path) -> dict[str, str]:
    """By name (`images.web.secrets.pip`), the value of every build secret and of every secret with a test value."""
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
    """What may not be written into a log, a journal or a message: every declared secret in every form."""
    return encode_secrets(read_declared_secrets(config, root).values())


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` with every one of `masked` blotted out."""
    for value in secrets:
        text = text.replace(value, "***")
    return text


def fingerprint_secrets(secrets: Mapping[str, str], salt: str) -> str:
    """A digest that tells whether the secrets are the same; made costly, since it is kept and they may be short.

    Empty where there are none, which nobody has to guess.
    """
    if not secrets:
        return ""
    text = "\0".join(f"{name}\0{value}" for name, value in sorted(secrets.items()))
    data = text.encode(errors="surrogateescape")
    return hashlib.scrypt(
        data, salt=salt.encode(), n=_SCRYPT_COST["n"], r=_SCRYPT_COST["r"], p=_SCRYPT_COST["p"], dklen=16
    ).hex()
