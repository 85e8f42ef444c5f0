"""Sign a bundle's checksums with `ssh-keygen` and verify the signature.

The trusted keys always come from outside the bundle; the checksums extend the signature to every file.
"""

from __future__ import annotations

import base64
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lyra_tasks.bundle.format.checksums import list_bundle_files
from lyra_tasks.bundle.format.layout import CHECKSUMS_FILE, SIGNATURE_FILE
from lyra_tasks.bundle.format.staging import write_staged
from lyra_tasks.config.models import Sign
from lyra_tasks.errors import BundleError, PreconditionError, UsageError
from lyra_tasks.files import quote_path
from lyra_tasks.processes import create_environment

SIGNATURE_NAMESPACE = "lyra-promotion"
_SIGNING_KEY = re.compile(rb"with (\S+) key (SHA256:\S+)")
_SSH_KEYGEN_TIMEOUT_S = 60.0  # a hardware key waits for a touch


@dataclass(frozen=True)
class Trust:
    """The required signer: a principal of an `allowed_signers` file, except with one of the `revoked_keys`."""

    allowed_signers: Path
    signer: str
    revoked_keys: Path | None = None


def parse_trust_options(allowed_signers: str, signer: str, revoked_keys: str) -> Trust | None:
    """Return the trust that the options of `verify` describe, or None without any."""
    if not (allowed_signers or signer or revoked_keys):
        return None
    if not (allowed_signers and signer):
        raise UsageError(
            "--allowed-signers and --signer must be given together", hint="Add --allowed-signers FILE --signer NAME"
        )
    for file in filter(None, (allowed_signers, revoked_keys)):
        if not Path(file).is_file():
            raise UsageError(
                f"{file}: file not found", hint="Name a file in ssh-keygen's format that did not come with the bundle"
            )
    return Trust(Path(allowed_signers), signer, Path(revoked_keys) if revoked_keys else None)


def find_signing_key(sign: Sign, root: Path) -> Path:
    """Return the configured key; raise PreconditionError if it does not exist."""
    key = root / Path(sign.key).expanduser()
    if not key.is_file():
        raise PreconditionError(
            f"promotion.sign.key: {key} is not a file",
            hint="Set it to a private key, or to the public key of one in ssh-agent",
        )
    return key


def sign_checksums(bundle: Path, key: Path) -> None:
    """Write the signature of the checksums; raise PreconditionError if the key needs a prompt or is invalid."""
    result = _run_ssh_keygen(bundle, "sign", "-f", str(key))
    if result.returncode or not result.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        output = _output_lines(result)
        needs_passphrase = any("passphrase" in line for line in output)
        raise PreconditionError(
            f"{key}: {'needs a passphrase and is not in ssh-agent' if needs_passphrase else 'ssh-keygen cannot sign'}",
            hint=f"Run `ssh-add {quote_path(key)}`" if needs_passphrase else "See the output of ssh-keygen",
            details=output,
        )
    write_staged(bundle / SIGNATURE_FILE, result.stdout)


def verify_signature(bundle: Path, trust: Trust) -> None:
    """Raise BundleError unless the checksums are signed by the trusted signer with a key that is not revoked."""
    signature = bundle / SIGNATURE_FILE
    files, _ = list_bundle_files(bundle)
    for file in filter(None, (trust.allowed_signers, trust.revoked_keys)):
        is_inside = file.resolve().is_relative_to(bundle.resolve())
        if is_inside or any(file.samefile(path) for path in files.values()):
            raise BundleError(
                f"{file}: came with the bundle", hint="Get the trusted keys from elsewhere, for example from the author"
            )
    if signature.is_symlink() or not signature.is_file():
        raise BundleError(f"{bundle}: not signed", hint=f"Get a bundle signed by {trust.signer}")
    arguments = ["verify", "-f", str(trust.allowed_signers), "-I", trust.signer, "-s", str(signature)]
    result = _run_ssh_keygen(bundle, *arguments)
    if result.returncode:
        raise _signature_error(f"{bundle}: refused, not signed by {trust.signer}", bundle, _output_lines(result))
    # A second run, since ssh-keygen does not tell a revoked key from a bad signature.
    if trust.revoked_keys and _run_ssh_keygen(bundle, *arguments, "-r", str(trust.revoked_keys)).returncode:
        reason = f"{trust.revoked_keys} revokes it, or is not in ssh-keygen's format"
        raise _signature_error(f"{bundle}: refused, signed by {trust.signer} with a revoked key", bundle, (reason,))


def identify_signing_key(bundle: Path) -> str:
    """Return type and fingerprint of the key whose signature of the checksums is valid, whoever's it is, or ""."""
    result = _run_ssh_keygen(bundle, "check-novalidate", "-s", str(bundle / SIGNATURE_FILE))
    match = _SIGNING_KEY.search(result.stdout)
    return f"{match[1].decode(errors='replace')} key {match[2].decode(errors='replace')}" if match else ""


def read_signing_key(bundle: Path) -> str:
    """Return the public key in the signature, as `ssh-keygen` writes it: whose it is, somebody else must say.

    See https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig for the format.
    """
    lines = (bundle / SIGNATURE_FILE).read_text(errors="replace").split("-----")[2]
    blob = base64.b64decode(lines)
    key = blob[14 : 14 + int.from_bytes(blob[10:14])]
    kind = key[4 : 4 + int.from_bytes(key[:4])]
    return f"{kind.decode()} {base64.b64encode(key).decode()}"


def _signature_error(message: str, bundle: Path, reasons: tuple[str, ...]) -> BundleError:
    """Return an error that also names the key in the signature, so that its owner can be found."""
    key = identify_signing_key(bundle)
    signer = (f"signed with the {key}",) if key else ()
    return BundleError(
        message, hint="Do not use the bundle; ask its author over another channel", details=(*reasons, *signer)
    )


def _run_ssh_keygen(bundle: Path, action: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run `ssh-keygen -Y` on the checksums, in a session without a terminal, so that it fails instead of prompting."""
    environment = create_environment({"SSH_ASKPASS_REQUIRE": "never"}, remove={"DISPLAY", "SSH_ASKPASS"})
    try:
        return subprocess.run(
            ["ssh-keygen", "-Y", action, "-n", SIGNATURE_NAMESPACE, *arguments],
            input=(bundle / CHECKSUMS_FILE).read_bytes(),
            env=environment,
            capture_output=True,
            check=False,
            timeout=_SSH_KEYGEN_TIMEOUT_S,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise PreconditionError(
            "ssh-keygen is not installed or not on PATH", hint="Install the OpenSSH client"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise PreconditionError(
            f"ssh-keygen timed out after {_SSH_KEYGEN_TIMEOUT_S:.0f} s",
            hint="Touch the hardware key, if there is one, and retry",
        ) from error


def _output_lines(result: subprocess.CompletedProcess[bytes]) -> tuple[str, ...]:
    is_signature = result.stdout.startswith(b"-----")
    output = result.stderr if is_signature else result.stderr + b"\n" + result.stdout
    return tuple(line.strip() for line in output.decode(errors="replace").splitlines() if line.strip())
