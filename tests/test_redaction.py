"""Test how secrets are recognized and redacted."""

from __future__ import annotations

import pytest

from lyra_tasks.redaction import is_secret_name, redact, strip_url_credentials


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "E: https://ada:pass@mirror/debian and https://bob:word@mirror/x",
            "E: https://mirror/debian and https://mirror/x",
        ),
        ("ssh://ada@builder:2222/run/docker.sock", "ssh://builder:2222/run/docker.sock"),
        ("https://ada:p@ss:w@rd@mirror/debian", "https://mirror/debian"),
        ("https://mirror/debian/pool/a@b.deb", "https://mirror/debian/pool/a@b.deb"),
        ("nothing to see", "nothing to see"),
    ],
)
def test_url_credentials_are_removed(text: str, expected: str) -> None:
    assert strip_url_credentials(text) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("API_TOKEN", True), ("DB_PASS", True), ("API_TOKEN_FILE", False), ("BYPASS", False), ("KEYBOARD", False),
     ("VALKEY_IMAGE", False), ("TURKEY", False), ("DONKEY_COUNT", False), ("TOKEN_TTL", False), ("PUBLIC_KEY", False),
     ("CACHE_KEY_PREFIX", False), ("PASSWORD_MIN_LENGTH", False), ("PWD", False), ("OLDPWD", False), ("SSH_KEY", True),
     ("SECRET_KEY_BASE", True), ("PGPASSWORD", True), ("APIKEY", True), ("apiToken", True), ("MAIL_PWD", True),
     ("GF_SECURITY_ADMIN_PASSWORD", True), ("AWS_SECRET_ACCESS_KEY", True), ("AWS_ACCESS_KEY_ID", False),
     ("SECRET_KEY_FILE", False), ("TOKEN2", True), ("LLM_MAX_TOKENS", False), ("maxTokens", False),
     ("ssh.private-key", True)],
)  # fmt: skip
def test_secret_names_are_recognized(name: str, expected: bool) -> None:
    assert is_secret_name(name) is expected


def test_redact_replaces_all_values() -> None:
    assert redact("token abcd and key xyz1 and abcd", ["abcd", "xyz1"]) == "token *** and key *** and ***"
