"""The folder of weights versions: immutable directories, aliases that move by one rename."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from freshet.online.weights.aliases import (
    ALIASES,
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    alias_path,
    encoded,
    read_alias,
)
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.files import (
    REMOVED_PREFIX,
    empty_directory,
    names_in,
    sync,
    write_whole,
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
    next_version,
    number_of,
    read_manifest,
    seal,
    sha256_of,
)
from freshet.online.weights.signatures import SIGNATURE_FILE, check_keys, sign
from freshet.stream.config import LearnSettings
from freshet.stream.errors import RegistryError
from freshet.stream.failpoints import failpoint
from freshet.stream.telemetry import get_logger

__all__ = [
    "ALIASES",
    "BASE",
    "CHALLENGER",
    "CHAMPION",
    "PREVIOUS",
    "Assignment",
    "Manifest",
    "Registry",
    "open_registry",
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
        segments: tuple[str, ...] = (),
    ) -> Manifest:
        """Make a version of the files that `build` writes into an empty directory; its manifest.

        Order of durable effects: 1. files, 2. manifest, 3. the rename that makes the version exist,
        4. the folder's own entry. A crash before 3 leaves only a hidden directory, which the next
        `add` removes. The lock is held all the while, so that a number is given once.

        Raises:
            RegistryError: `build` wrote no `model.safetensors`, or the folder cannot be written.
        """
        try:
            with only_writer(self.folder):
                building = empty_directory(self._versions)
                build(building)
                failpoint("registry_files_written")
                sums = {path.name: sha256_of(path) for path in sorted(building.iterdir())}
                if WEIGHTS_FILE not in sums:
                    raise RegistryError(f"{building} holds no {WEIGHTS_FILE}: found {sorted(sums)}")
                names = names_in(self._versions)
                manifest = Manifest(
                    version=next_version(names, created_at_ms, sums[WEIGHTS_FILE]),
                    parent=parent,
                    created_at_ms=created_at_ms,
                    request_id=request_id,
                    offsets=offsets or {},
                    gate=gate or {},
                    segments=segments,
                    sha256=sums,
                )
                seal(building, manifest, self._signing_key)
                for path in (*building.iterdir(), building):
                    sync(path)
                failpoint("registry_before_rename")
                building.rename(self._versions / manifest.version)
                failpoint("registry_after_rename")
                sync(self._versions)
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
                write_whole(folder / SIGNATURE_FILE, signature)
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
                names = [alias for alias in ALIASES if version in self.alias_versions(alias)]
                if names:
                    raise RegistryError(f"{version} is the {names[0]}")
                doomed = self._versions / f"{REMOVED_PREFIX}{version}"
                folder.rename(doomed)
                sync(self._versions)
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
        for name in names_in(self._versions):
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

    def alias(self, name: str) -> Assignment | None:
        """What an alias says (`base` is the shipped weights), None where it is not set."""
        return read_alias(self.folder, name)

    def alias_versions(self, name: str) -> tuple[str, ...]:
        """The versions that an alias names."""
        found = self.alias(name)
        return () if found is None else found.versions

    def champion(self) -> Assignment:
        """Who serves whom: what the alias says, else `base` everybody."""
        return self.alias(CHAMPION) or Assignment()

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
                self._point(path, Assignment(version))
        except OSError as error:
            raise RegistryError(f"the alias {path} cannot be moved: {error}") from error

    def serve(self, assignment: Assignment) -> Assignment:
        """Make it the champion, and what was the champion `previous`.

        The files of all its versions are checked before an alias moves. Repeating it is harmless.
        `previous` moves first: a crash between the two leaves the old champion in service.

        Raises:
            RegistryError: There is no such version, or a file was altered: nothing has moved.
        """
        for version in assignment.versions:
            if version != BASE:
                self.verify(version)
        champion, previous = alias_path(self.folder, CHAMPION), alias_path(self.folder, PREVIOUS)
        try:
            with only_writer(self.folder):
                before = self.known_champion()
                if before != assignment:
                    self._point(previous, before or Assignment())
                failpoint("registry_between_aliases")
                self._point(champion, assignment)
        except OSError as error:
            raise RegistryError(f"the alias {champion} cannot be moved: {error}") from error
        return assignment

    def known_champion(self) -> Assignment | None:
        """The champion; None where its alias cannot be read, which the next to serve mends."""
        try:
            return self.champion()
        except RegistryError:
            return None

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

    def _point(self, path: Path, at: Assignment) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, encoded(at), lambda: failpoint("registry_before_alias"))


def open_registry(settings: LearnSettings) -> Registry:
    """The registry as it is configured, its keys read once.

    Raises:
        ConfigError: A key cannot be read, or the library for it is missing.
    """
    trusted_keys = tuple(Path(key) for key in settings.trusted_keys)
    signing_key = Path(settings.signing_key) if settings.signing_key else None
    check_keys(trusted_keys, signing_key)
    return Registry(settings.registry, trusted_keys, signing_key)
