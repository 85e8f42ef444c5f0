"""The signature over a bundle's checksums, made and checked by `ssh-keygen`: one identity, one purpose.

Whom to trust is told from outside the bundle; the checksums then carry the trust to every file.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.bundle.format.checksums import list_bundle_files
from lyra_tasks.bundle.format.layout import CHECKSUMS_FILE, SIGNATURE_FILE
from lyra_tasks.config.models import Sign
from lyra_tasks.errors import BundleError, PreconditionError, UsageError
from lyra_tasks.files import write_file

SIGNATURE_NAMESPACE = "lyra-promotion"
_SSH_KEYGEN_TIMEOUT_S = 60.0  # seconds; a hardware key waits for a touch


@dataclass(frozen=True)
class Trust:
    """Who must have signed: a principal of an `allowed_signers` file; keys in `revoked` are trusted no more."""

    allowed_signers: Path
    signer: str
    revoked_keys: Path | None = None


def parse_trust_options(allowed_signers: str, signer: str, revoked_keys: str) -> Trust | None:
    """What the options of `verify` ask for; None without any, UsageError if they do not belong together."""
    if not (allowed_signers or signer or revoked_keys):
        return None
    if not (allowed_signers and signer):
        raise UsageError(
            "--allowed-signers and --signer belong together", hint="name the file, and whom in it you expect"
        )
    for file in filter(None, (allowed_signers, revoked_keys)):
        if not Path(file).is_file():
            raise UsageError(
                f"{file}: no such file", hint="it is in ssh-keygen's format, and comes not with the bundle"
            )
    return Trust(Path(allowed_signers), signer, Path(revoked_keys) if revoked_keys else None)


def find_signing_key(sign: Sign, root: Path) -> Path:
    """Where the key is, from the project's folder or the user's; PreconditionError if there is none."""
    key = root / Path(sign.key).expanduser()
    if not key.is_file():
        raise PreconditionError(
            f"promotion.sign.key: {key} is not a file",
            hint="name a private key, or the public half of one that ssh-agent holds",
        )
    return key


def sign_checksums(bundle: Path, key: Path) -> None:
    """Write the signature over the checksums beside them, durably; never asks for anything.

    PreconditionError if the key cannot be used without a question.
    """
    data = (bundle / CHECKSUMS_FILE).read_bytes()
    result = _run_ssh_keygen("sign", "-f", str(key), "-n", SIGNATURE_NAMESPACE, data=data)
    if result.returncode or not result.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        output = _output_lines(result)
        needs_passphrase = any("passphrase" in line for line in output)
        raise PreconditionError(
            f"{key}: {'is protected by a passphrase, and ssh-agent does not hold it' if needs_passphrase else 'cannot sign'}",
            hint=f"run `ssh-add {key}` first" if needs_passphrase else "`ssh-keygen` says why",
            details=output,
        )
    write_file(bundle / SIGNATURE_FILE, result.stdout)


def verify_signature(bundle: Path, trust: Trust) -> None:
    """BundleError unless the checksums are signed for this purpose by whom is trusted, with a key that is valid now."""
    signature = bundle / SIGNATURE_FILE
    for file in filter(None, (trust.allowed_signers, trust.revoked_keys)):
        _require_outside_bundle(file, bundle)
    if signature.is_symlink() or not signature.is_file():
        raise BundleError(f"{bundle}: not signed", hint=f"ask for a bundle that {trust.signer} signed")
    arguments = ["-f", str(trust.allowed_signers), "-I", trust.signer, "-n", SIGNATURE_NAMESPACE, "-s", str(signature)]
    data = (bundle / CHECKSUMS_FILE).read_bytes()
    result = _run_ssh_keygen("verify", *arguments, data=data)
    if result.returncode:
        raise _signature_error(f"{bundle}: refused, not signed by {trust.signer}", bundle, _output_lines(result))
    # asked apart, since of a key that is revoked ssh-keygen only says that it could not verify
    if (
        trust.revoked_keys
        and _run_ssh_keygen("verify", *arguments, "-r", str(trust.revoked_keys), data=data).returncode
    ):
        raise _signature_error(
            f"{bundle}: refused, signed by {trust.signer} with a key that is trusted no more",
            bundle,
            (f"{trust.revoked_keys} revokes it, or is not in ssh-keygen's format",),
        )


def _signature_error(message: str, bundle: Path, reasons: tuple[str, ...]) -> BundleError:
    return BundleError(
        message,
        hint="do not use the bundle; ask its maker, by another way, what happened",
        details=(*reasons, *_describe_signer(bundle)),
    )


def _describe_signer(bundle: Path) -> tuple[str, ...]:
    """The key that did sign, whoever's it is, so that its owner can be asked; nothing where the signature is none."""
    arguments = ["-n", SIGNATURE_NAMESPACE, "-s", str(bundle / SIGNATURE_FILE)]
    result = _run_ssh_keygen("check-novalidate", *arguments, data=(bundle / CHECKSUMS_FILE).read_bytes())
    match = re.search(rb"with (\S+) key (SHA256:\S+)", result.stdout)
    return (f"it is signed with the {match[1].decode()} key {match[2].decode()}",) if match else ()


def _require_outside_bundle(file: Path, bundle: Path) -> None:
    """Refuse a file of trust that came with the bundle, also under another name."""
    files, _ = list_bundle_files(bundle)
    is_inside = file.resolve().is_relative_to(bundle.resolve())
    if is_inside or any(file.samefile(path) for path in files.values()):
        raise BundleError(
            f"{file}: came with the bundle", hint="whom to trust must be known from elsewhere; ask the maker"
        )


def _run_ssh_keygen(action: str, *arguments: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run `ssh-keygen -Y`; in a session without a terminal, so that it fails where it would ask."""
    environment = {key: value for key, value in os.environ.items() if key not in {"DISPLAY", "SSH_ASKPASS"}}
    command = ["ssh-keygen", "-Y", action, *arguments]
    try:
        return subprocess.run(
            command,
            input=data,
            env=environment | {"SSH_ASKPASS_REQUIRE": "never"},
            capture_output=True,
            check=False,
            timeout=_SSH_KEYGEN_TIMEOUT_S,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise PreconditionError(
            "ssh-keygen is not installed, or not on PATH", hint="install OpenSSH's client"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise PreconditionError(
            f"ssh-keygen did not answer within {_SSH_KEYGEN_TIMEOUT_S:.0f} seconds",
            hint="is the key one that waits for a touch?",
        ) from error


def _output_lines(result: subprocess.CompletedProcess[bytes]) -> tuple[str, ...]:
    text = (result.stderr + b"\n" + (b"" if result.stdout.startswith(b"-----") else result.stdout)).decode(
        errors="replace"
    )
    return tuple(line.strip() for line in text.splitlines() if line.strip())
