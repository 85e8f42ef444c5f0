"""The signature over a bundle's checksums, made and checked by `ssh-keygen`: one identity, one purpose.

Whom to trust is told from outside the bundle; the checksums then carry the trust to every file.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.bundle import layout
from lyra_tasks.bundle.checksums import inventory
from lyra_tasks.config.models import Sign
from lyra_tasks.errors import BundleError, PreconditionError, UsageError
from lyra_tasks.files import write_file

NAMESPACE = "lyra-promotion"
_TIMEOUT = 60.0  # seconds; a hardware key waits for a touch


@dataclass(frozen=True)
class Trust:
    """Who must have signed: a principal of an `allowed_signers` file; keys in `revoked` are trusted no more."""

    allowed_signers: Path
    signer: str
    revoked: Path | None = None


def trust_of(allowed_signers: str, signer: str, revoked: str) -> Trust | None:
    """What the options of `verify` ask for; None without any, UsageError if they do not belong together."""
    if not (allowed_signers or signer or revoked):
        return None
    if not (allowed_signers and signer):
        raise UsageError(
            "--allowed-signers and --signer belong together", hint="name the file, and whom in it you expect"
        )
    for file in filter(None, (allowed_signers, revoked)):
        if not Path(file).is_file():
            raise UsageError(
                f"{file}: no such file", hint="it is in ssh-keygen's format, and comes not with the bundle"
            )
    return Trust(Path(allowed_signers), signer, Path(revoked) if revoked else None)


def signing_key(sign: Sign, root: Path) -> Path:
    """Where the key is, from the project's folder or the user's; PreconditionError if there is none."""
    key = root / Path(sign.key).expanduser()
    if not key.is_file():
        raise PreconditionError(
            f"promotion.sign.key: {key} is not a file",
            hint="name a private key, or the public half of one that ssh-agent holds",
        )
    return key


def sign(bundle: Path, key: Path) -> None:
    """Write the signature over the checksums beside them, durably; never asks for anything.

    PreconditionError if the key cannot be used without a question.
    """
    data = (bundle / layout.CHECKSUMS).read_bytes()
    done = _ssh_keygen("sign", "-f", str(key), "-n", NAMESPACE, data=data)
    if done.returncode or not done.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        said = _lines(done)
        locked = any("passphrase" in line for line in said)
        raise PreconditionError(
            f"{key}: {'is protected by a passphrase, and ssh-agent does not hold it' if locked else 'cannot sign'}",
            hint=f"run `ssh-add {key}` first" if locked else "`ssh-keygen` says why",
            details=said,
        )
    write_file(bundle / layout.SIGNATURE, done.stdout)


def check_signature(bundle: Path, trust: Trust) -> None:
    """BundleError unless the checksums are signed for this purpose by whom is trusted, with a key that is valid now."""
    signature = bundle / layout.SIGNATURE
    for file in filter(None, (trust.allowed_signers, trust.revoked)):
        _require_foreign(file, bundle)
    if signature.is_symlink() or not signature.is_file():
        raise BundleError(f"{bundle}: not signed", hint=f"ask for a bundle that {trust.signer} signed")
    words = ["-f", str(trust.allowed_signers), "-I", trust.signer, "-n", NAMESPACE, "-s", str(signature)]
    data = (bundle / layout.CHECKSUMS).read_bytes()
    done = _ssh_keygen("verify", *words, data=data)
    if done.returncode:
        raise _refused(f"{bundle}: refused, not signed by {trust.signer}", bundle, _lines(done))
    # asked apart, since of a key that is revoked ssh-keygen only says that it could not verify
    if trust.revoked and _ssh_keygen("verify", *words, "-r", str(trust.revoked), data=data).returncode:
        raise _refused(
            f"{bundle}: refused, signed by {trust.signer} with a key that is trusted no more",
            bundle,
            (f"{trust.revoked} revokes it, or is not in ssh-keygen's format",),
        )


def _refused(message: str, bundle: Path, why: tuple[str, ...]) -> BundleError:
    return BundleError(
        message,
        hint="do not use the bundle; ask its maker, by another way, what happened",
        details=(*why, *_whose(bundle)),
    )


def _whose(bundle: Path) -> tuple[str, ...]:
    """The key that did sign, whoever's it is, so that its owner can be asked; nothing where the signature is none."""
    words = ["-n", NAMESPACE, "-s", str(bundle / layout.SIGNATURE)]
    done = _ssh_keygen("check-novalidate", *words, data=(bundle / layout.CHECKSUMS).read_bytes())
    found = re.search(rb"with (\S+) key (SHA256:\S+)", done.stdout)
    return (f"it is signed with the {found[1].decode()} key {found[2].decode()}",) if found else ()


def _require_foreign(file: Path, bundle: Path) -> None:
    """Refuse a file of trust that came with the bundle, also under another name."""
    files, _ = inventory(bundle)
    inside = file.resolve().is_relative_to(bundle.resolve())
    if inside or any(file.samefile(each) for each in files.values()):
        raise BundleError(
            f"{file}: came with the bundle", hint="whom to trust must be known from elsewhere; ask the maker"
        )


def _ssh_keygen(verb: str, *words: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run `ssh-keygen -Y`; in a session without a terminal, so that it fails where it would ask."""
    environment = {key: value for key, value in os.environ.items() if key not in {"DISPLAY", "SSH_ASKPASS"}}
    command = ["ssh-keygen", "-Y", verb, *words]
    try:
        return subprocess.run(
            command,
            input=data,
            env=environment | {"SSH_ASKPASS_REQUIRE": "never"},
            capture_output=True,
            check=False,
            timeout=_TIMEOUT,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise PreconditionError(
            "ssh-keygen is not installed, or not on PATH", hint="install OpenSSH's client"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise PreconditionError(
            f"ssh-keygen did not answer within {_TIMEOUT:.0f} seconds", hint="is the key one that waits for a touch?"
        ) from error


def _lines(done: subprocess.CompletedProcess[bytes]) -> tuple[str, ...]:
    text = (done.stderr + b"\n" + (b"" if done.stdout.startswith(b"-----") else done.stdout)).decode(errors="replace")
    return tuple(line.strip() for line in text.splitlines() if line.strip())
