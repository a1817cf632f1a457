"""Names that move: which version is champion, challenger and previous, each a file that says so."""

from __future__ import annotations

from pathlib import Path

from freshet.online.weights.manifest import BASE, VERSION_PATTERN
from freshet.stream.errors import RegistryError

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
MAX_BYTES = 256


def alias_path(folder: Path, name: str) -> Path:
    """The file of an alias in a registry's folder.

    Raises:
        RegistryError: There is no alias of that name.
    """
    if name not in ALIASES:
        raise RegistryError(f"unknown alias {name!r}", hint=f"the aliases are {', '.join(ALIASES)}")
    return folder / "aliases" / name


def read_alias(folder: Path, name: str) -> str | None:
    """The version that an alias names (`base` for the shipped weights), None where not set.

    Raises:
        RegistryError: It cannot be read, or what it says is no version's name.
    """
    path = alias_path(folder, name)
    try:
        with path.open("rb") as file:
            version = file.read(MAX_BYTES).decode("ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryError(f"the alias {path} cannot be read: {error}") from error
    if version != BASE and not VERSION_PATTERN.fullmatch(version):
        raise RegistryError(
            f"the alias {path} names {version[:80]!r}, which is no version",
            hint="`freshet model promote VERSION` sets it anew",
        )
    return version
