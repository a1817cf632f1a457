"""Maps of what well-known shops send, as TOML that one line of the settings takes in."""

from __future__ import annotations

import difflib
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

FOLDER = "preset_maps"


@cache
def names() -> tuple[str, ...]:
    """All presets."""
    found = files("freshet.stream").joinpath(FOLDER).iterdir()
    return tuple(sorted(one.name[:-5] for one in found if one.name.endswith(".toml")))


def text_of(name: str) -> str:
    """A preset as it stands in a configuration.

    Raises:
        ValueError: There is none of this name; the nearest is told.
    """
    if name not in names():
        near = difflib.get_close_matches(name.lower(), names(), n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names())}"
        raise ValueError(f"there is no preset {name!r}; {hint}")
    path = files("freshet.stream").joinpath(FOLDER, f"{name}.toml")
    return path.read_text("utf-8")


@cache
def kinds_of(name: str) -> tuple[str, ...]:
    """Of which topics a preset has a map; raises as `text_of`."""
    return tuple(tomllib.loads(text_of(name))["events"])


def section_of(name: str, kind: str) -> dict[str, Any]:
    """What a preset sets of one topic.

    Raises:
        ValueError: There is none of this name, or it has nothing for this topic.
    """
    kinds = kinds_of(name)
    if kind not in kinds:
        raise ValueError(f"the preset {name!r} has {' and '.join(kinds)}, and no {kind}")
    section: dict[str, Any] = tomllib.loads(text_of(name))["events"][kind]
    return section
