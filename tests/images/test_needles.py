from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyra_tasks.images.scan.secrets import MIN_SECRET_LENGTH, SecretMatch, SecretMatcher, encode_secrets, split_secret

SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FFF), min_size=MIN_SECRET_LENGTH, max_size=60)


def found(secret: str, data: bytes, size: int = 1 << 20) -> set[str]:
    """The forms that are found in `data`, which comes in blocks of `size`."""
    hits: set[SecretMatch] = set()
    blocks = (data[start : start + size] for start in range(0, len(data), size))
    assert b"".join(bytes(block) for block in SecretMatcher({"s": secret}).search_stream(blocks, hits)) == data
    return {hit.form for hit in hits}


@given(SECRETS, st.binary(max_size=40), st.binary(max_size=40))
def test_a_secret_is_found_in_every_form_and_at_every_offset(secret: str, before: bytes, after: bytes) -> None:
    data = secret.encode()
    assert "as it is" in found(secret, before + data + after)
    whole = base64.b64encode(before + data + after)
    assert found(secret, whole), whole
    assert found(secret, base64.urlsafe_b64encode(before + data + after))
    assert found(secret, quote(secret, safe="").encode())
    assert found(secret, re.sub(r"%..", lambda match: match[0].lower(), quote(secret, safe="")).encode())
    assert found(secret, json.dumps({"key": secret}).encode())


@given(st.binary(min_size=MIN_SECRET_LENGTH, max_size=60).map(lambda each: b"\xff" + each + b"\x80"), st.binary())
def test_a_secret_that_is_no_text_is_found_too(secret: bytes, around: bytes) -> None:
    value = secret.decode(errors="surrogateescape")
    assert found(value, around + secret + around) >= {"as it is"}
    assert found(value, base64.b64encode(around + secret + around))
    assert found(value, quote(secret, safe="").encode())


@given(st.integers(1, 40), st.integers(0, 60))
def test_a_secret_that_lies_across_blocks_is_found(size: int, place: int) -> None:
    assert found("a-secret-value-of-24-bytes", b"x" * place + b"a-secret-value-of-24-bytes" + b"y" * 9, size)


@given(st.binary(max_size=200))
def test_what_does_not_hold_the_secret_is_clean(data: bytes) -> None:
    assert found("a-secret-value-of-24-bytes", data) == set()


def test_of_a_file_of_several_lines_what_is_secret_on_its_own_is_looked_for() -> None:
    npmrc = "registry=https://npm.example/\n//npm.example/:_authToken=npm_0123456789abcdefABCDEF\nalways-auth=true\n"
    assert "npm_0123456789abcdefABCDEF" in split_secret(npmrc)
    assert not [part for part in split_secret(npmrc) if part in {"https://npm.example/", "always-auth", "registry"}]
    pip = "[global]\nindex-url = https://ada:hunter2-and-more@pypi.example/simple\ntrusted-host = pypi.example\n"
    assert "hunter2-and-more" in split_secret(pip)
    assert "https://index.example/simple" not in split_secret("[global]\nindex-url = https://index.example/simple\n")
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC1234\n-----END PRIVATE KEY-----\n"
    assert split_secret(key)[1:] == ("MIIEvQIBADANBgkqhkiG9w0BAQEFAASC1234",)


def test_a_secret_that_is_no_text_is_found_and_blotted_out_as_any_other() -> None:
    store = bytes(range(0x80, 0x100)) + b"\0key store\0"
    secret = store.decode(errors="surrogateescape")
    assert found(secret, b"before" + store + b"after") == {"as it is"}
    assert found(secret, quote(store, safe="").encode()) == {"URL-encoded"}
    assert found(secret, base64.b64encode(store)) == {"base64"}
    assert any(form in base64.b64encode(store).decode() for form in encode_secrets([secret]))


def test_certificates_are_public_and_a_key_beside_them_is_not() -> None:
    lines = "MIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBa\nMQswCQYDVQQGEwJJRTESMBAGA1UEChMJQmFsdGltb3JlMRMwEQYD\n"
    certificate = f"-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n"
    assert split_secret(f"# Issuer: CN=Some Root 2048\n{certificate}\n# Another Root\n{certificate}") == ()
    key = f"-----BEGIN PRIVATE KEY-----\n{lines}-----END PRIVATE KEY-----\n"
    assert set(split_secret(certificate + key)) == {key.strip(), *lines.split()}


@pytest.mark.parametrize("value", ["", "short", "1234567"])
def test_what_is_too_short_to_mean_anything_is_not_looked_for(value: str) -> None:
    assert not SecretMatcher({"s": value})
    assert found(value, b"short 1234567") == set()
