"""Signatures of manifests: ed25519, keys as PEM files, so that a shop's own hand can be required.

openssl genpkey -algorithm ed25519 -out signing.pem
openssl pkey -in signing.pem -pubout -out trusted.pem
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from freshet.stream.errors import ConfigError, RegistryError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SIGNATURE_FILE = "manifest.json.sig"
SIGNATURE_BYTES = 64


def sign(data: bytes, key: Path) -> bytes:
    """The signature of some bytes, 64 of them.

    Raises:
        ConfigError: The key cannot be read, is no ed25519 private key, or `cryptography` is
            missing.
    """
    return bytes(_private_key(key).sign(data))


def check_signature(folder: Path, data: bytes, trusted_keys: tuple[Path, ...]) -> None:
    """See that one of the keys signed the manifest of a version's folder.

    Raises:
        RegistryError: None did.
        ConfigError: A key cannot be read, or `cryptography` is missing.
    """
    keys = [_public_key(path) for path in trusted_keys]
    signature = _signature_of(folder)
    if not any(_signed(key, signature, data) for key in keys):
        wrong = "is signed by none of learn.trusted_keys" if signature else "is not signed"
        raise RegistryError(f"{folder} {wrong}", hint="`freshet model sign` signs it")


def check_keys(trusted_keys: tuple[Path, ...], signing_key: Path | None) -> None:
    """Read all keys once, so that a wrong one ends a process when it starts.

    Raises:
        ConfigError: A key cannot be read, or `cryptography` is missing.
    """
    for path in trusted_keys:
        _public_key(path)
    if signing_key is not None:
        _private_key(signing_key)


def _signature_of(folder: Path) -> bytes:
    path = folder / SIGNATURE_FILE
    if path.is_symlink() or not path.is_file():
        return b""
    try:
        with path.open("rb") as file:
            return file.read(SIGNATURE_BYTES + 1)
    except OSError as error:
        raise RegistryError(f"{path} cannot be read: {error}") from None


def _signed(key: Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _private_key(path: Path) -> Ed25519PrivateKey:
    library = _library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = _loaded(path, lambda data: library.load_pem_private_key(data, password=None))
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} holds no ed25519 private key")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    library = _library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = _loaded(path, library.load_pem_public_key)
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path} holds no ed25519 public key")
    return key


def _library() -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError:
        hint = "pip install 'freshet[signing]'"
        raise ConfigError("signatures need the library cryptography", hint=hint) from None
    return serialization


def _loaded(path: Path, load: Any) -> Any:
    try:
        return load(path.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"the key {path} cannot be read: {error}") from None
