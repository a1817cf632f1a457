"""The folder of weights versions: immutable directories, aliases that move by one rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from freshet.online.weights.aliases import (
    ALIASES,
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    alias_path,
    read_alias,
)
from freshet.online.weights.lock import only_writer
from freshet.online.weights.manifest import (
    BASE,
    MANIFEST_FILE,
    VERSION_PATTERN,
    WEIGHTS_FILE,
    Manifest,
    Sealed,
    check_files,
    number_of,
    read_manifest,
    sha256_of,
)
from freshet.online.weights.signatures import SIGNATURE_FILE, check_keys, sign
from freshet.stream.config import LearnSettings
from freshet.stream.errors import RegistryError
from freshet.stream.failpoints import failpoint
from freshet.stream.telemetry import get_logger

BUILDING_PREFIX = ".building-"
REMOVED_PREFIX = ".removed-"

__all__ = [
    "ALIASES",
    "BASE",
    "CHALLENGER",
    "CHAMPION",
    "PREVIOUS",
    "Flaw",
    "Manifest",
    "Registry",
    "open_registry",
    "sha256_of",
]

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something in the folder of versions that is not used, and why."""

    name: str
    reason: str


class Registry:
    """Versions and aliases in one folder; any number of readers, one writer at a time.

    A version appears by one rename of a directory that was written and synced beside it, so a
    reader sees all of it or nothing. What else lies there is named and passed over. The shipped
    weights are the version `base`, which is no directory of this folder.

    Args:
        folder: Created on the first write.
        trusted_keys: Where there are any, a version counts only when one of them signed it.
        signing_key: Signs what is added.
    """

    def __init__(
        self,
        folder: Path,
        trusted_keys: tuple[Path, ...] = (),
        signing_key: Path | None = None,
    ) -> None:
        self.folder = folder
        self._trusted_keys = trusted_keys
        self._signing_key = signing_key
        self._named: set[Flaw] = set()

    # Versions: in ---------------------------------------------------------------------------------

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
        `add` removes. The lock is held all the while, so that a number is given once.

        Raises:
            RegistryError: `build` wrote no `model.safetensors`, or the folder cannot be written.
        """
        try:
            with only_writer(self.folder):
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
                self._seal(building, manifest)
                for path in (*building.iterdir(), building):
                    _sync(path)
                failpoint("registry_before_rename")
                building.rename(self._versions / manifest.version)
                failpoint("registry_after_rename")
                _sync(self._versions)
        except OSError as error:
            raise RegistryError(f"a version cannot be added to {self.folder}: {error}") from error
        return manifest

    def sign(self, version: str, key: Path) -> None:
        """Sign a version whose files are what its manifest says, whoever signed it before.

        Raises:
            RegistryError: There is no such version, or a file was altered.
            ConfigError: The key cannot be used.
        """
        folder = self._folder_of(version)
        check_files(folder, read_manifest(folder).manifest)
        signature = sign((folder / MANIFEST_FILE).read_bytes(), key)
        try:
            with only_writer(self.folder):
                _write_whole(folder / SIGNATURE_FILE, signature)
        except OSError as error:
            raise RegistryError(f"{folder} cannot be signed: {error}") from error

    def remove(self, version: str) -> None:
        """Delete a version; it disappears whole, by one rename.

        Raises:
            RegistryError: There is no such version, an alias names it, or it cannot be deleted.
        """
        folder = self._folder_of(version)
        try:
            with only_writer(self.folder):
                names = [alias for alias in ALIASES if self.alias(alias) == version]
                if names:
                    raise RegistryError(f"{version} is the {names[0]}")
                doomed = self._versions / f"{REMOVED_PREFIX}{version}"
                folder.rename(doomed)
                _sync(self._versions)
                shutil.rmtree(doomed)
        except OSError as error:
            raise RegistryError(f"{folder} cannot be removed: {error}") from error

    # Versions: out --------------------------------------------------------------------------------

    def list(self) -> tuple[Manifest, ...]:
        """All versions, oldest first; what is no version is named in the log, once."""
        manifests, flaws = self.survey()
        for flaw in flaws:
            if flaw not in self._named:
                self._named.add(flaw)
                log.warning("version_skipped", name=flaw.name, reason=flaw.reason)
        return manifests

    def survey(self) -> tuple[tuple[Manifest, ...], tuple[Flaw, ...]]:
        """All versions, oldest first, and what else lies in their folder; files are not checked.

        Raises:
            RegistryError: The folder cannot be read.
        """
        manifests, flaws = [], []
        for name in self._names():
            if not VERSION_PATTERN.fullmatch(name):
                flaws.append(Flaw(name, "it is not the name of a version"))
                continue
            try:
                manifests.append(self.manifest(name))
            except RegistryError as error:
                flaws.append(Flaw(name, str(error)))
        manifests.sort(key=lambda manifest: (number_of(manifest.version), manifest.version))
        return tuple(manifests), tuple(sorted(flaws, key=lambda flaw: flaw.name))

    def path(self, version: str) -> Path:
        """The version's directory.

        Raises:
            RegistryError: There is no such version.
        """
        folder = self._folder_of(version)
        if folder.is_symlink() or not (folder / MANIFEST_FILE).is_file():
            raise self._unknown(version)
        return folder

    def manifest(self, version: str) -> Manifest:
        """What the version says of itself; its files are not checked, see `verify`."""
        return self.sealed(version).manifest

    def sealed(self, version: str) -> Sealed:
        """The manifest with the sha256 of its file.

        Raises:
            RegistryError: There is no such version, or it is not signed as it must be.
        """
        return read_manifest(self._folder_of(version), self._trusted_keys)

    def verify(self, version: str, manifest_sha256: str = "") -> Manifest:
        """Recompute every checksum of the version and return its manifest.

        Args:
            version: Its name.
            manifest_sha256: What the manifest's own checksum must be, if that is known.

        Raises:
            RegistryError: A file is missing, was added or was altered; the text names it.
        """
        sealed, folder = self.sealed(version), self._folder_of(version)
        if manifest_sha256 not in ("", sealed.sha256):
            raise RegistryError(
                f"{folder / MANIFEST_FILE} has sha256 {sealed.sha256[:16]}, "
                f"{manifest_sha256[:16]} was announced"
            )
        check_files(folder, sealed.manifest)
        return sealed.manifest

    def find(self, request_id: str) -> Manifest | None:
        """The newest version that answers a retrain request, or None."""
        if not request_id:
            return None
        answers = (found for found in reversed(self.list()) if found.request_id == request_id)
        return next(answers, None)

    # Aliases --------------------------------------------------------------------------------------

    def alias(self, name: str) -> str | None:
        """The version that an alias names (`base` for the shipped weights), None where not set."""
        return read_alias(self.folder, name)

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
        path = alias_path(self.folder, name)
        try:
            with only_writer(self.folder):
                self._point(path, version)
        except OSError as error:
            raise RegistryError(f"the alias {path} cannot be moved: {error}") from error

    def roll_back(self) -> str:
        """Serve the champion's parent again and return its name.

        Raises:
            RegistryError: The champion is the base already, or its parent cannot be served.
        """
        champion = self.champion()
        if champion == BASE:
            raise RegistryError("there is nothing to roll back to: the shipped weights are served")
        return self.serve(self.manifest(champion).parent)

    def serve(self, version: str) -> str:
        """Make any version, or the base, the champion and its parent `previous`.

        Its files are checked before an alias moves. Repeating it is harmless. `previous` moves
        first: a crash between the two leaves the old champion in service.

        Raises:
            RegistryError: There is no such version, or a file was altered: nothing has moved.
        """
        parent = BASE if version == BASE else self.verify(version).parent
        champion, previous = alias_path(self.folder, CHAMPION), alias_path(self.folder, PREVIOUS)
        try:
            with only_writer(self.folder):
                self._point(previous, parent)
                failpoint("registry_between_aliases")
                self._point(champion, version)
        except OSError as error:
            raise RegistryError(f"the alias {champion} cannot be moved: {error}") from error
        return version

    # Files ----------------------------------------------------------------------------------------

    @property
    def _versions(self) -> Path:
        return self.folder / "versions"

    def _folder_of(self, version: str) -> Path:
        # The pattern first: a version comes from people and topics, and must not name a way out.
        if not VERSION_PATTERN.fullmatch(version):
            raise self._unknown(version)
        folder = self._versions / version
        try:
            there = folder.is_dir()
        except OSError as error:
            raise RegistryError(f"{folder} cannot be read: {error}") from None
        if not there:
            raise self._unknown(version)
        return folder

    def _unknown(self, version: str) -> RegistryError:
        hint = "see `freshet model list`"
        if version == BASE:
            hint = f"`{BASE}` is the shipped weights, not a directory"
        return RegistryError(f"{self.folder} has no version {version[:80]!r}", hint=hint)

    def _names(self) -> tuple[str, ...]:
        """What lies in the folder of versions, without what a writer is at."""
        try:
            names = [path.name for path in self._versions.iterdir()]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise RegistryError(f"{self._versions} cannot be read: {error}") from None
        unfinished = BUILDING_PREFIX, REMOVED_PREFIX
        return tuple(name for name in names if not name.startswith(unfinished))

    def _empty_directory(self) -> Path:
        """Where a version is built; what crashed writers left behind goes."""
        self._versions.mkdir(parents=True, exist_ok=True)
        for prefix in (BUILDING_PREFIX, REMOVED_PREFIX):
            for stale in self._versions.glob(f"{prefix}*"):
                _discard(stale)
        building = self._versions / f"{BUILDING_PREFIX}{os.getpid()}"
        building.mkdir()
        return building

    def _seal(self, building: Path, manifest: Manifest) -> None:
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
        (building / MANIFEST_FILE).write_bytes(text)
        if self._signing_key is not None:
            (building / SIGNATURE_FILE).write_bytes(sign(text, self._signing_key))

    def _next_version(self, created_at_ms: int, sha256: str) -> str:
        # Of all names: a version that cannot be read has its number still.
        taken = [number_of(name) for name in self._names() if VERSION_PATTERN.fullmatch(name)]
        number = max(taken, default=0) + 1
        created_at = datetime.fromtimestamp(created_at_ms / 1000, UTC)
        return f"v{number:04d}-{created_at:%Y%m%dT%H%M%SZ}-{sha256[:8]}"

    def _point(self, path: Path, version: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, version.encode("ascii"), lambda: failpoint("registry_before_alias"))


def open_registry(settings: LearnSettings) -> Registry:
    """The registry as it is configured, its keys read once.

    Raises:
        ConfigError: A key cannot be read, or the library for it is missing.
    """
    trusted_keys = tuple(Path(key) for key in settings.trusted_keys)
    signing_key = Path(settings.signing_key) if settings.signing_key else None
    check_keys(trusted_keys, signing_key)
    return Registry(settings.registry, trusted_keys, signing_key)


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _write_whole(path: Path, data: bytes, written: Callable[[], None] = lambda: None) -> None:
    """Replace a file by one rename, once its new contents are on disk and `written` was called."""
    moved = path.with_name(f".{path.name}.{os.getpid()}")
    moved.write_bytes(data)
    _sync(moved)
    written()
    moved.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
