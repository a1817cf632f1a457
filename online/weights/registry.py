"""The folder of weights versions: immutable directories, aliases that move by one rename."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from freshet.stream.errors import RegistryError
from freshet.stream.failpoints import failpoint

BASE = "base"
CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
WEIGHTS_FILE = "model.safetensors"
MANIFEST_FILE = "manifest.json"
VERSION_PATTERN = re.compile(r"v(\d{4,})-\d{8}T\d{6}Z-[0-9a-f]{8}")
BUILDING_PREFIX = ".building-"
HASH_CHUNK_BYTES = 1 << 20


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a version is made of; `sha256` covers every other file of its directory."""

    version: str
    parent: str
    created_at_ms: int
    request_id: str = ""
    offsets: dict[str, int] = {}
    gate: dict[str, float | str | bool] = {}
    sha256: dict[str, str] = {}

    @property
    def weights_sha256(self) -> str:
        """The checksum that forecasts and model events carry."""
        return self.sha256[WEIGHTS_FILE]


class Registry:
    """Versions and aliases in one folder; one writer, any number of concurrent readers.

    A version appears by one rename of a directory that was written and synced beside it, so a
    reader sees all of it or nothing. The shipped weights are the version `base`, which is no
    directory of this folder.

    Args:
        folder: Created on the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        build: Callable[[Path], None],
        *,
        parent: str,
        created_at_ms: int,
        request_id: str = "",
        offsets: dict[str, int] | None = None,
        gate: dict[str, float | str | bool] | None = None,
    ) -> Manifest:
        """Make a version of the files that `build` writes into an empty directory, and return its
        manifest.

        Order of durable effects: 1. files, 2. manifest, 3. the rename that makes the version exist,
        4. the folder's own entry. A crash before 3 leaves only a hidden directory, which the next
        `add` removes.

        Raises:
            RegistryError: `build` wrote no `model.safetensors`, or the folder cannot be written.
        """
        try:
            building = self._empty_directory()
            build(building)
            failpoint("registry_files_written")
            sums = {path.name: sha256_of(path) for path in sorted(building.iterdir())}
            if WEIGHTS_FILE not in sums:
                raise RegistryError(f"{building} holds no {WEIGHTS_FILE}: found {sorted(sums)}")
            manifest = Manifest(
                version=self._next_version(created_at_ms, sums[WEIGHTS_FILE]),
                parent=parent,
                created_at_ms=created_at_ms,
                request_id=request_id,
                offsets=offsets or {},
                gate=gate or {},
                sha256=sums,
            )
            text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
            (building / MANIFEST_FILE).write_bytes(text)
            for path in (*building.iterdir(), building):
                _sync(path)
            failpoint("registry_before_rename")
            building.rename(self._versions / manifest.version)
            failpoint("registry_after_rename")
            _sync(self._versions)
        except OSError as error:
            raise RegistryError(f"a version cannot be added to {self.folder}: {error}") from error
        return manifest

    def list(self) -> tuple[Manifest, ...]:
        """All versions, oldest first."""
        return tuple(self.manifest(name) for name in _version_names(self._versions))

    def path(self, version: str) -> Path:
        """The version's directory.

        Raises:
            RegistryError: There is no such version.
        """
        if not self.path_exists(version):
            hint = "see `freshet model list`"
            if version == BASE:
                hint = f"`{BASE}` is the shipped weights, not a directory"
            raise RegistryError(f"{self.folder} has no version {version!r}", hint=hint)
        return self._versions / version

    def path_exists(self, version: str) -> bool:
        """Whether there is such a version."""
        # The pattern first: a version comes from people and topics, and must not name a way out.
        if not VERSION_PATTERN.fullmatch(version):
            return False
        return (self._versions / version / MANIFEST_FILE).is_file()

    def manifest(self, version: str) -> Manifest:
        """What the version says of itself; its files are not checked, see `verify`."""
        path = self.path(version) / MANIFEST_FILE
        try:
            manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
        except (OSError, msgspec.DecodeError) as error:
            raise RegistryError(f"{path} cannot be read: {error}") from error
        if manifest.version != version:
            raise RegistryError(f"{path} names version {manifest.version!r}, expected {version!r}")
        return manifest

    def verify(self, version: str) -> Manifest:
        """Recompute every checksum of the version and return its manifest.

        Raises:
            RegistryError: A file is missing, was added or was altered; the text names it.
        """
        manifest, folder = self.manifest(version), self.path(version)
        found = {path.name for path in folder.iterdir()} - {MANIFEST_FILE}
        for name in sorted(found ^ set(manifest.sha256)):
            wrong = "not in the manifest" if name in found else "missing"
            raise RegistryError(f"{folder / name} is {wrong}")
        for name, expected in manifest.sha256.items():
            actual = sha256_of(folder / name)
            if actual != expected:
                raise RegistryError(
                    f"{folder / name} was altered: sha256 {actual[:16]}, the manifest says "
                    f"{expected[:16]}",
                    hint=f"`freshet model rollback` returns to {manifest.parent}",
                )
        return manifest

    def find(self, request_id: str) -> Manifest | None:
        """The newest version that answers a retrain request, or None."""
        if not request_id:
            return None
        answers = (found for found in reversed(self.list()) if found.request_id == request_id)
        return next(answers, None)

    def alias(self, name: str) -> str | None:
        """The version that an alias names (`base` for the shipped weights), None where not set."""
        try:
            return self._alias_path(name).read_text("ascii").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            path = self._alias_path(name)
            raise RegistryError(f"the alias {path} cannot be read: {error}") from error

    def champion(self) -> str:
        """The version to serve: the alias, else `base`."""
        return self.alias(CHAMPION) or BASE

    def move_alias(self, name: str, version: str) -> None:
        """Point an alias at an existing version, by one atomic rename.

        Raises:
            RegistryError: The alias or the version is unknown.
        """
        if version != BASE:
            self.path(version)
        target = self._alias_path(name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            moved = target.with_name(f".{name}.{os.getpid()}")
            moved.write_text(version, "ascii")
            _sync(moved)
            failpoint("registry_before_alias")
            moved.replace(target)
            _sync(target.parent)
        except OSError as error:
            raise RegistryError(f"the alias {target} cannot be moved: {error}") from error

    def roll_back(self) -> str:
        """Serve the champion's parent again and return its name.

        Raises:
            RegistryError: The champion is the base already.
        """
        champion = self.champion()
        if champion == BASE:
            raise RegistryError("there is nothing to roll back to: the shipped weights are served")
        return self.serve(self.manifest(champion).parent)

    def serve(self, version: str) -> str:
        """Make any version, or the base, the champion and its parent `previous`.

        Repeating it is harmless. `previous` moves first: a crash between the two leaves the old
        champion in service.
        """
        self.move_alias(PREVIOUS, BASE if version == BASE else self.manifest(version).parent)
        failpoint("registry_between_aliases")
        self.move_alias(CHAMPION, version)
        return version

    @property
    def _versions(self) -> Path:
        return self.folder / "versions"

    def _empty_directory(self) -> Path:
        """Where a version is built; what crashed builds left behind goes."""
        self._versions.mkdir(parents=True, exist_ok=True)
        for stale in self._versions.glob(f"{BUILDING_PREFIX}*"):
            shutil.rmtree(stale)
        building = self._versions / f"{BUILDING_PREFIX}{os.getpid()}"
        building.mkdir()
        return building

    def _next_version(self, created_at_ms: int, sha256: str) -> str:
        names = _version_names(self._versions)
        number = _number(names[-1]) + 1 if names else 1
        created_at = datetime.fromtimestamp(created_at_ms / 1000, UTC)
        return f"v{number:04d}-{created_at:%Y%m%dT%H%M%SZ}-{sha256[:8]}"

    def _alias_path(self, name: str) -> Path:
        if name not in ALIASES:
            raise RegistryError(
                f"unknown alias {name!r}", hint=f"the aliases are {', '.join(ALIASES)}"
            )
        return self.folder / "aliases" / name


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _version_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if VERSION_PATTERN.fullmatch(path.name)]
    return sorted(names, key=_number)


def _number(name: str) -> int:
    match = VERSION_PATTERN.fullmatch(name)
    assert match is not None
    return int(match[1])


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
