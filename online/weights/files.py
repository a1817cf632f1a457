"""Files that are there whole or not at all; the folder where versions are built and removed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from freshet.stream.errors import RegistryError

BUILDING_PREFIX = ".building-"
REMOVED_PREFIX = ".removed-"


def names_in(versions: Path) -> tuple[str, ...]:
    """What lies in the folder of versions, without what a writer is at.

    Raises:
        RegistryError: It cannot be read.
    """
    try:
        names = [path.name for path in versions.iterdir()]
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise RegistryError(f"{versions} cannot be read: {error}") from None
    unfinished = BUILDING_PREFIX, REMOVED_PREFIX
    return tuple(name for name in names if not name.startswith(unfinished))


def empty_directory(versions: Path) -> Path:
    """Where a version is built; what crashed writers left behind goes."""
    versions.mkdir(parents=True, exist_ok=True)
    for prefix in (BUILDING_PREFIX, REMOVED_PREFIX):
        for stale in versions.glob(f"{prefix}*"):
            _discard(stale)
    building = versions / f"{BUILDING_PREFIX}{os.getpid()}"
    building.mkdir()
    return building


def write_whole(path: Path, data: bytes, written: Callable[[], None] = lambda: None) -> None:
    """Replace a file by one rename, once its new contents are on disk and `written` was called."""
    moved = path.with_name(f".{path.name}.{os.getpid()}")
    moved.write_bytes(data)
    sync(moved)
    written()
    moved.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file's contents, or a folder's entries, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
