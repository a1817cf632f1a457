"""Names that move: who is champion, challenger and previous, each a file that says so."""

from __future__ import annotations

from pathlib import Path

import msgspec

from freshet.online.weights.assignment import Assignment
from freshet.online.weights.manifest import BASE, VERSION_PATTERN
from freshet.stream.errors import RegistryError

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
MAX_BYTES = 1 << 19


def alias_path(folder: Path, name: str) -> Path:
    """The file of an alias in a registry's folder.

    Raises:
        RegistryError: There is no alias of that name.
    """
    if name not in ALIASES:
        raise RegistryError(f"unknown alias {name!r}", hint=f"the aliases are {', '.join(ALIASES)}")
    return folder / "aliases" / name


def read_alias(folder: Path, name: str) -> Assignment | None:
    """What an alias says, None where it is not set; a bare version serves everybody.

    Raises:
        RegistryError: It cannot be read, or a version that it names is none.
    """
    path = alias_path(folder, name)
    try:
        with path.open("rb") as file:
            found = decoded(file.read(MAX_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise RegistryError(f"the alias {path} cannot be read: {error}") from error
    for version in found.versions:
        if version != BASE and not VERSION_PATTERN.fullmatch(version):
            raise RegistryError(
                f"the alias {path} names {version[:80]!r}, which is no version",
                hint="`freshet model promote VERSION` sets it anew",
            )
    return found


def encoded(assignment: Assignment) -> bytes:
    """The content of an alias's file: a bare version where one serves everybody, else JSON."""
    if not assignment.other:
        return assignment.default.encode("ascii")
    return msgspec.json.encode(assignment)


def decoded(data: bytes) -> Assignment:
    """Back from `encoded`.

    Raises:
        UnicodeDecodeError, msgspec.MsgspecError: It is neither.

    >>> decoded(encoded(Assignment(BASE, "v1", ("pets",)))).of("pets")
    'v1'
    """
    if data.lstrip().startswith(b"{"):
        return msgspec.json.decode(data, type=Assignment)
    return Assignment(data.decode("ascii").strip())
