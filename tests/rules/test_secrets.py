"""Secrets that a project declares: which values are redacted, and which cannot be."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from lyra_tasks.config.models import Configuration
from lyra_tasks.rules.secrets import describe_weak_secrets, expand_secret_values, fingerprint_secrets


def configuration(value: str) -> Configuration:
    service = {"image": "web", "environment": {"TOKEN": {"secret": True, "test_value": value}}}
    document = {"project": {"name": "shop"}, "images": {"web": {"context": "."}}, "services": {"web": service}}
    return Configuration.model_validate({"schema": 1, **document})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("abc", ["shorter than 4 characters, and not redacted from logs"]),
        ("Password", ["a common word, which is redacted wherever it occurs"]),
        ("shop", ["a common word, which is redacted wherever it occurs"]),
        ("k3yOfTheShop", []),
    ],
)
def test_weak_secret_is_warned_of_without_its_value(tmp_path: Path, value: str, expected: list[str]) -> None:
    name = "services.web.environment.TOKEN"
    warnings = describe_weak_secrets(configuration(value), tmp_path)
    assert warnings == [f"The value of {name} is {problem}; use a random one" for problem in expected]


def test_each_secret_line_of_a_file_is_redacted() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG\n}\n-----END PRIVATE KEY-----\n"
    assert set(expand_secret_values([key, "abc"])) == {key.strip(), "MIIEvQIBADANBgkqhkiG"}


def test_fingerprint_of_the_same_secrets_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, scrypt = [], hashlib.scrypt

    def count(data: bytes, **options: Any) -> bytes:
        calls.append(data)
        return scrypt(data, **options)

    monkeypatch.setattr(hashlib, "scrypt", count)
    first = fingerprint_secrets({"a": "one of many"}, "salt of this test")
    assert fingerprint_secrets({"a": "one of many"}, "salt of this test") == first
    assert fingerprint_secrets({"a": "another one"}, "salt of this test") != first
    assert len(calls) == 2
