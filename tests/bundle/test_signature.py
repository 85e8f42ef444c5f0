"""Only signatures of the named signer, for this purpose and with a valid key are accepted."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lyra_tasks.bundle.format import layout
from lyra_tasks.bundle.format.signature import (
    SIGNATURE_NAMESPACE,
    Trust,
    find_signing_key,
    parse_trust_options,
    sign_checksums,
    verify_signature,
)
from lyra_tasks.config.models import Sign
from lyra_tasks.errors import BundleError, PreconditionError, UsageError

pytestmark = pytest.mark.slow

ADA = "ada@example.org"


@dataclass(frozen=True)
class Key:
    """A key pair on disk."""

    path: Path

    @property
    def public(self) -> str:
        """Return type and key without the comment."""
        return " ".join(self.path.with_suffix(".pub").read_text().split()[:2])

    def trusted(self, file: Path, principal: str = ADA, options: str = "") -> Trust:
        """Write an `allowed_signers` file with only this key."""
        file.write_text(f"{principal} {options} {self.public}\n")
        return Trust(file, ADA)


def make_key(path: Path, passphrase: str = "") -> Key:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-C", "a comment", "-N", passphrase, "-f", str(path)]
    subprocess.run(command, check=True)
    return Key(path)


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return make_key(tmp_path / "key")


@pytest.fixture
def bundle(tmp_path: Path, key: Key) -> Path:
    """Create a signed list of checksums without the files."""
    directory = tmp_path / "bundle"
    directory.mkdir()
    (directory / layout.CHECKSUMS_FILE).write_text(f"{'0' * 64}  manifest.json\n")
    sign_checksums(directory, key.path)
    return directory


def test_signature_of_trusted_signer_is_accepted(bundle: Path, key: Key, tmp_path: Path) -> None:
    verify_signature(bundle, key.trusted(tmp_path / "signers", options=f'namespaces="{SIGNATURE_NAMESPACE}"'))


def test_other_key_is_refused_with_its_fingerprint(bundle: Path, key: Key, tmp_path: Path) -> None:
    trust = make_key(tmp_path / "other").trusted(tmp_path / "signers")
    refused(bundle, trust)
    with pytest.raises(BundleError) as error:
        verify_signature(bundle, trust)
    command = ["ssh-keygen", "-l", "-f", str(key.path)]
    fingerprint = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]
    assert error.value.details[-1] == f"signed with the ED25519 key {fingerprint}"


def test_other_principal_is_refused(bundle: Path, key: Key, tmp_path: Path) -> None:
    refused(bundle, key.trusted(tmp_path / "signers", principal="eve@example.org"))
    refused(bundle, replace(key.trusted(tmp_path / "signers"), signer="eve@example.org"))


def test_key_for_other_namespace_is_refused(bundle: Path, key: Key, tmp_path: Path) -> None:
    refused(bundle, key.trusted(tmp_path / "signers", options='namespaces="git"'))


def test_signature_for_other_namespace_is_refused(bundle: Path, key: Key, tmp_path: Path) -> None:
    (bundle / layout.SIGNATURE_FILE).unlink()
    arguments = ["-f", str(key.path), "-n", "git", str(bundle / layout.CHECKSUMS_FILE)]
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", *arguments], check=True, stderr=subprocess.DEVNULL)
    assert (bundle / layout.SIGNATURE_FILE).is_file()
    refused(bundle, key.trusted(tmp_path / "signers"))


@pytest.mark.parametrize("offset", [0, 30, -1])
def test_signature_of_changed_checksums_is_refused(offset: int, bundle: Path, key: Key, tmp_path: Path) -> None:
    data = bytearray((bundle / layout.CHECKSUMS_FILE).read_bytes())
    data[offset] ^= 1
    (bundle / layout.CHECKSUMS_FILE).write_bytes(data)
    refused(bundle, key.trusted(tmp_path / "signers"))


@pytest.mark.parametrize("options", ['valid-before="20200101"', 'valid-after="20990101"'])
def test_expired_or_future_key_is_refused(options: str, bundle: Path, key: Key, tmp_path: Path) -> None:
    refused(bundle, key.trusted(tmp_path / "signers", options=options))


@pytest.mark.parametrize("krl", [False, True])
def test_revoked_key_is_refused(krl: bool, bundle: Path, key: Key, tmp_path: Path) -> None:
    trust = key.trusted(tmp_path / "signers")
    revoked = tmp_path / "revoked"
    if krl:
        subprocess.run(["ssh-keygen", "-q", "-k", "-f", revoked, key.path.with_suffix(".pub")], check=True)
    else:
        revoked.write_text(f"{key.public}\n")
    refused(bundle, replace(trust, revoked_keys=revoked), "with a revoked key")
    revoked.write_text(f"{make_key(tmp_path / 'other').public}\n")
    verify_signature(bundle, replace(trust, revoked_keys=revoked))


def test_missing_signature_is_refused(bundle: Path, key: Key, tmp_path: Path) -> None:
    trust = key.trusted(tmp_path / "signers")
    (bundle / layout.SIGNATURE_FILE).rename(tmp_path / "aside")
    refused(bundle, trust, "not signed")
    (bundle / layout.SIGNATURE_FILE).symlink_to(tmp_path / "aside")
    refused(bundle, trust, "not signed")


def test_malformed_signature_is_refused(bundle: Path, key: Key, tmp_path: Path) -> None:
    for text in ("", "signed, Ada\n", (bundle / layout.SIGNATURE_FILE).read_text()[:120]):
        (bundle / layout.SIGNATURE_FILE).write_text(text)
        refused(bundle, key.trusted(tmp_path / "signers"))


def test_trusted_keys_from_the_bundle_are_refused(bundle: Path, key: Key, tmp_path: Path) -> None:
    inside = key.trusted(bundle / "allowed_signers")
    refused(bundle, inside, "came with the bundle")
    (tmp_path / "link").symlink_to(bundle / "allowed_signers")
    refused(bundle, Trust(tmp_path / "link", ADA), "came with the bundle")
    os.link(bundle / "allowed_signers", tmp_path / "hard")
    refused(bundle, Trust(tmp_path / "hard", ADA), "came with the bundle")
    outside = key.trusted(tmp_path / "signers")
    (bundle / "revoked").write_text("")
    refused(bundle, replace(outside, revoked_keys=bundle / "revoked"), "came with the bundle")


def test_locked_key_is_an_error_without_prompt(bundle: Path, tmp_path: Path) -> None:
    locked = make_key(tmp_path / "locked", passphrase="open sesame")
    with pytest.raises(PreconditionError, match="needs a passphrase") as error:
        sign_checksums(bundle, locked.path)
    assert f"ssh-add {locked.path}" in error.value.hint
    assert "sesame" not in str(error.value.details)


def test_locked_key_signs_through_the_agent(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = make_key(tmp_path / "locked", passphrase="sesame")
    socket = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as agent:
        try:
            while not socket.exists():
                assert agent.poll() is None
            answer = tmp_path / "answer"
            answer.write_text("#!/bin/sh\necho sesame\n")
            answer.chmod(0o700)
            agent_variables = {"SSH_ASKPASS": str(answer), "SSH_ASKPASS_REQUIRE": "force", "SSH_AUTH_SOCK": str(socket)}
            subprocess.run(
                ["ssh-add", "-q", locked.path], env=os.environ | agent_variables, check=True, capture_output=True
            )
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            sign_checksums(bundle, locked.path)
            verify_signature(bundle, locked.trusted(tmp_path / "signers"))
            sign_checksums(bundle, locked.path.with_suffix(".pub"))
            verify_signature(bundle, locked.trusted(tmp_path / "signers"))
        finally:
            agent.terminate()


def test_world_readable_key_does_not_sign(bundle: Path, key: Key) -> None:
    key.path.chmod(0o644)
    with pytest.raises(PreconditionError, match="cannot sign") as error:
        sign_checksums(bundle, key.path)
    assert any("too open" in line for line in error.value.details)


def test_signing_key_is_found_in_project_or_home(key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("key", "~/key", str(key.path)):
        assert find_signing_key(Sign(key=name, identity=ADA), tmp_path) == key.path
    with pytest.raises(PreconditionError, match=r"promotion\.sign\.key"):
        find_signing_key(Sign(key="none", identity=ADA), tmp_path)


def test_incomplete_trust_options_are_usage_errors(tmp_path: Path) -> None:
    (tmp_path / "signers").write_text("")
    signers = str(tmp_path / "signers")
    assert parse_trust_options("", "", "") is None
    assert parse_trust_options(signers, ADA, "") == Trust(tmp_path / "signers", ADA)
    for options in ((signers, "", ""), ("", ADA, ""), ("", "", signers), (f"{signers}x", ADA, ""), (signers, ADA, "x")):
        with pytest.raises(UsageError):
            parse_trust_options(*options)


def refused(bundle: Path, trust: Trust, message: str = "not signed by") -> None:
    with pytest.raises(BundleError, match=message) as error:
        verify_signature(bundle, trust)
    assert error.value.exit_code == 6
