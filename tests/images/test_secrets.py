"""Search for secrets in all their forms."""

from __future__ import annotations

import base64
import json
import re
from functools import lru_cache
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lyra_tasks.images.scan.secrets import MIN_SECRET_LENGTH, SecretMatch, SecretMatcher, split_secret
from tests.thorough import examples

pytestmark = pytest.mark.slow

SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FFF), min_size=MIN_SECRET_LENGTH, max_size=60)


@lru_cache(maxsize=1)
def create_matcher(secret: str) -> SecretMatcher:
    """Return the search for a secret; it is costlier than a search."""
    return SecretMatcher({"s": secret})


def find_forms(secret: str, data: bytes, size: int = 1 << 20) -> set[str]:
    """Return the forms found in `data`, passed in blocks of `size`."""
    matches: set[SecretMatch] = set()
    blocks = (data[start : start + size] for start in range(0, len(data), size))
    assert b"".join(bytes(block) for block in create_matcher(secret).search_stream(blocks, matches)) == data
    return {match.form for match in matches}


@given(SECRETS, st.binary(max_size=40), st.binary(max_size=40))
@settings(max_examples=examples(25, thorough=100), deadline=None)
def test_secret_matches_in_every_form_and_offset(secret: str, before: bytes, after: bytes) -> None:
    data = secret.encode()
    assert "verbatim" in find_forms(secret, before + data + after)
    encoded = base64.b64encode(before + data + after)
    assert find_forms(secret, encoded), encoded
    assert find_forms(secret, base64.urlsafe_b64encode(before + data + after))
    assert find_forms(secret, quote(secret, safe="").encode())
    assert find_forms(secret, re.sub(r"%..", lambda match: match[0].lower(), quote(secret, safe="")).encode())
    assert find_forms(secret, json.dumps({"key": secret}).encode())


@given(st.binary(min_size=MIN_SECRET_LENGTH, max_size=60).map(lambda data: b"\xff" + data + b"\x80"), st.binary())
@example(b'\xff\0\0\0\0""\\\'\x80', b"")
@settings(max_examples=examples(25, thorough=100), deadline=None)
def test_binary_secret_matches(secret: bytes, around: bytes) -> None:
    value = secret.decode(errors="surrogateescape")
    assert find_forms(value, around + secret + around) >= {"verbatim"}
    assert find_forms(value, base64.b64encode(around + secret + around))
    assert find_forms(value, quote(secret, safe="").encode())


@given(st.integers(1, 40), st.integers(0, 60))
def test_secret_across_blocks_matches(size: int, offset: int) -> None:
    assert find_forms("a-secret-value-of-24-bytes", b"x" * offset + b"a-secret-value-of-24-bytes" + b"y" * 9, size)


@given(st.binary(max_size=200))
def test_data_without_secret_has_no_match(data: bytes) -> None:
    assert find_forms("a-secret-value-of-24-bytes", data) == set()


def test_split_secret_finds_secret_words_in_file() -> None:
    npmrc = "registry=https://npm.example/\n//npm.example/:_authToken=npm_0123456789abcdefABCDEF\nalways-auth=true\n"
    assert "npm_0123456789abcdefABCDEF" in split_secret(npmrc)
    assert not [part for part in split_secret(npmrc) if part in {"https://npm.example/", "always-auth", "registry"}]
    pip = "[global]\nindex-url = https://ada:hunter2-and-more@pypi.example/simple\ntrusted-host = pypi.example\n"
    assert "hunter2-and-more" in split_secret(pip)
    assert "https://index.example/simple" not in split_secret("[global]\nindex-url = https://index.example/simple\n")
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC1234\n-----END PRIVATE KEY-----\n"
    assert split_secret(key)[1:] == ("MIIEvQIBADANBgkqhkiG9w0BAQEFAASC1234",)


def test_binary_secret_is_matched_and_redacted() -> None:
    store = bytes(range(0x80, 0x100)) + b"\0key store\0"
    secret = store.decode(errors="surrogateescape")
    assert find_forms(secret, b"before" + store + b"after") == {"verbatim"}
    assert find_forms(secret, quote(store, safe="").encode()) == {"URL-encoded"}
    assert find_forms(secret, base64.b64encode(store)) == {"base64"}


def test_split_secret_ignores_certificates_but_not_keys() -> None:
    lines = "MIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBa\nMQswCQYDVQQGEwJJRTESMBAGA1UEChMJQmFsdGltb3JlMRMwEQYD\n"
    certificate = f"-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n"
    assert split_secret(f"# Issuer: CN=Some Root 2048\n{certificate}\n# Another Root\n{certificate}") == ()
    key = f"-----BEGIN PRIVATE KEY-----\n{lines}-----END PRIVATE KEY-----\n"
    assert set(split_secret(certificate + key)) == {key.strip(), *lines.split()}


@pytest.mark.parametrize("value", ["", "short", "1234567"])
def test_short_secret_is_ignored(value: str) -> None:
    assert not SecretMatcher({"s": value})
    assert find_forms(value, b"short 1234567") == set()
