"""A package's signature, ``model.sig``: what the OpenSSF's `model-signing` writes over every other file of it, and checks.

``SHA256SUMS`` tells damage; whoever changes a file can change the sums as well. A signature tells who made the package: only the holder of the
private key can write one that the public key accepts. Keys are elliptic curves in PEM, as `openssl ecparam -name prime256v1 -genkey` writes them.
"""

import os
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from bonsai.profiles.errors import ConfigError, describe, shorten
from bonsai.stages.delivery.sums import SIGNATURE
from bonsai.stages.errors import DeviceUnavailable, VerificationError

PASSWORD = "BONSAI_KEY_PASSWORD"  # noqa: S105  # the name of a variable
"""Environment variable with the password of an encrypted private key."""
NO_KEY = (ValueError, TypeError, AttributeError)
"""Errors that the library raises for keys that are damaged, encrypted, or not on an elliptic curve."""
INSTALL = "pip install 'bonsai-compress[sign]'"


class _Library(NamedTuple):
    hashing: ModuleType
    signing: ModuleType
    verifying: ModuleType
    invalid: type[Exception]


def sign(package: Path, private_key: Path) -> Path:
    """Sign a package that was found intact, and return the signature; an older one is replaced.

    Args:
        package: Its folder.
        private_key: Private key in PEM format.

    Raises:
        ConfigError: The key cannot be used.
        DeviceUnavailable: The library is not installed.
    """
    library = _library()
    _require_key(private_key, "private")
    signature, draft = package / SIGNATURE, package.parent / f".{package.name}.{SIGNATURE}"
    password = os.environ.get(PASSWORD)
    try:
        # its annotation says str, and it hands the password to `load_pem_private_key`, which takes bytes alone
        config = library.signing.Config().use_elliptic_key_signer(private_key=private_key, password=password.encode() if password else None)
        config.set_hashing_config(_hashing(library, signature)).sign(package, draft)
    except NO_KEY as error:
        draft.unlink(missing_ok=True)
        fix = f"give the private key of an elliptic curve; the password of an encrypted one in the environment variable {PASSWORD}"
        raise ConfigError(describe("the package cannot be signed with this key", given=f"{private_key}: {error}", allowed="a key in PEM", fix=fix)) from error
    os.replace(draft, signature)
    return signature


def require_signature(package: Path, public_key: Path) -> str:
    """Check that a package was signed by the holder of a key, and return that in a sentence.

    Args:
        package: Its folder, of regular files alone.
        public_key: Public key in PEM format.

    Raises:
        VerificationError: There is no signature, it is of another key, or a file is not as it was signed.
        ConfigError: The key cannot be used.
        DeviceUnavailable: The library is not installed.
    """
    library = _library()
    _require_key(public_key, "public")
    signature = package / SIGNATURE
    allowed, fix = f"a signature that {public_key} accepts", "get the package, or the key, from its maker; do not use it"
    if not signature.is_file():
        raise VerificationError(describe(f"{SIGNATURE}: the package is not signed", given="no such file", allowed=allowed, fix=fix))
    try:
        config = library.verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except NO_KEY as error:
        given, pem = f"{public_key}: {error}", "the public key of an elliptic curve, in PEM"
        raise ConfigError(describe("--key: cannot be used", given=given, allowed=pem, fix="openssl ec -in PRIVATE -pubout -out PUBLIC")) from error
    try:
        config.set_hashing_config(_hashing(library, signature)).verify(package, signature)
    except library.invalid as error:
        raise VerificationError(describe(f"{SIGNATURE}: another key's", given="a signature of another key", allowed=allowed, fix=fix)) from error
    except (ValueError, TypeError, LookupError) as error:
        given = shorten(str(error)) or type(error).__name__
        raise VerificationError(describe(f"{SIGNATURE}: the package is not what was signed", given=given, allowed=allowed, fix=fix)) from error
    return f"origin: signed by the holder of the private key of {public_key}"


def _hashing(library: _Library, signature: Path) -> object:
    """Return how files are hashed: every one but the signature; what a signature itself asks to be left out does not count."""
    return library.hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)


def _require_key(key: Path, kind: str) -> None:
    if not key.is_file():
        raise ConfigError(describe("--key: no such file", given=key, allowed=f"a {kind} key in PEM", fix="check the path"))


def _library() -> _Library:
    try:
        from cryptography.exceptions import InvalidSignature
        from model_signing import hashing, signing, verifying
    except ImportError as error:
        raise DeviceUnavailable(describe("model-signing is not installed", given=error, allowed="the extra `sign`", fix=INSTALL)) from error
    return _Library(hashing, signing, verifying, InvalidSignature)
