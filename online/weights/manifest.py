"""What a version of weights says of itself, and whether its folder bears that out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from freshet.online.weights.signatures import SIGNATURE_FILE, check_signature, sign
from freshet.stream.errors import RegistryError

BASE = "base"
WEIGHTS_FILE = "model.safetensors"
MANIFEST_FILE = "manifest.json"
VERSION_PATTERN = re.compile(r"v([0-9]{4,18})-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")
MAX_MANIFEST_BYTES = 1 << 20
HASH_CHUNK_BYTES = 1 << 20


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a version is made of; `sha256` covers every other file of its directory.

    `segments` are those for which it passed the gate, beside its parent; none: in its place.
    """

    version: str
    parent: str
    created_at_ms: int
    request_id: str = ""
    offsets: dict[str, int] = {}
    gate: dict[str, float | str | bool] = {}
    segments: tuple[str, ...] = ()
    sha256: dict[str, str] = {}

    @property
    def weights_sha256(self) -> str:
        """The checksum that forecasts and model events carry."""
        return self.sha256[WEIGHTS_FILE]


@dataclass(frozen=True, slots=True)
class Sealed:
    """A manifest and the sha256 of the file that holds it, which announcements carry."""

    manifest: Manifest
    sha256: str


def read_manifest(folder: Path, trusted_keys: tuple[Path, ...] = ()) -> Sealed:
    """The manifest of a version's folder; other files are looked at by `check_files`.

    Raises:
        RegistryError: The folder is a link, or its manifest is missing, unreadable, another
            version's, or not signed by one of the trusted keys, where there are such.
    """
    path = folder / MANIFEST_FILE
    try:
        if folder.is_symlink() or path.is_symlink():
            raise RegistryError(f"{folder} is a link, or holds one; versions are folders of files")
        data = _read(path)
        manifest = msgspec.json.decode(data, type=Manifest)
    except FileNotFoundError:
        raise RegistryError(f"{folder} has no {MANIFEST_FILE}: it was half written") from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryError(f"{path} cannot be read: {error}") from None
    if manifest.version != folder.name:
        raise RegistryError(f"{path} names version {manifest.version[:80]!r}, not its folder's")
    if manifest.parent != BASE and not VERSION_PATTERN.fullmatch(manifest.parent):
        raise RegistryError(f"{path} names parent {manifest.parent[:80]!r}, which is no version")
    if WEIGHTS_FILE not in manifest.sha256:
        raise RegistryError(f"{path} lists no {WEIGHTS_FILE}")
    if trusted_keys:
        check_signature(folder, data, trusted_keys)
    return Sealed(manifest, hashlib.sha256(data).hexdigest())


def check_files(folder: Path, manifest: Manifest) -> None:
    """Recompute every checksum.

    Raises:
        RegistryError: A file is missing, was added or altered, or is no plain file; the text names
            it.
    """
    try:
        found = {path.name: path for path in folder.iterdir()}
        found.pop(MANIFEST_FILE, None)
        found.pop(SIGNATURE_FILE, None)
        for name in sorted(found.keys() ^ manifest.sha256.keys()):
            wrong = "not in the manifest" if name in found else "missing"
            raise RegistryError(f"{folder / name} is {wrong}")
        for name, path in sorted(found.items()):
            _check_file(path, manifest.sha256[name], manifest.parent)
    except OSError as error:
        raise RegistryError(f"{folder} cannot be read: {error}") from None


def _check_file(path: Path, expected: str, parent: str) -> None:
    # A pipe would be read for ever, a link may lead to a file that is altered later.
    if path.is_symlink() or not path.is_file():
        raise RegistryError(f"{path} is a link, or no plain file")
    actual = sha256_of(path)
    if actual != expected:
        raise RegistryError(
            f"{path} was altered: sha256 {actual[:16]}, the manifest says {expected[:16]}",
            hint=f"`freshet model rollback` returns to {parent}",
        )


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def number_of(name: str) -> int:
    """The number of a version, by which versions are ordered.

    >>> number_of("v10000-20260101T000000Z-00000000") > number_of("v9999-20260101T000000Z-ffffffff")
    True
    """
    match = VERSION_PATTERN.fullmatch(name)
    assert match is not None
    return int(match[1])


def _read(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise OSError("it is no plain file")
    with path.open("rb") as file:
        data = file.read(MAX_MANIFEST_BYTES + 1)
    if len(data) > MAX_MANIFEST_BYTES:
        raise OSError(f"it is longer than {MAX_MANIFEST_BYTES} bytes")
    return data


def next_version(names: Iterable[str], created_at_ms: int, sha256: str) -> str:
    """The name of the version after those that are there.

    >>> next_version(["v0007-20261231T235959Z-abababab", "notes"], 0, "0123456789")
    'v0008-19700101T000000Z-01234567'
    """
    # Of all names: a version that cannot be read has its number still.
    taken = [number_of(name) for name in names if VERSION_PATTERN.fullmatch(name)]
    number = max(taken, default=0) + 1
    created_at = datetime.fromtimestamp(created_at_ms / 1000, UTC)
    return f"v{number:04d}-{created_at:%Y%m%dT%H%M%SZ}-{sha256[:8]}"


def seal(folder: Path, manifest: Manifest, signing_key: Path | None) -> None:
    """Write the manifest into a version's directory, and its signature where there is a key."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (folder / MANIFEST_FILE).write_bytes(text)
    if signing_key is not None:
        (folder / SIGNATURE_FILE).write_bytes(sign(text, signing_key))
