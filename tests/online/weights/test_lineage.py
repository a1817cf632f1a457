"""Which version serves after a roll-back: the nearest ancestor that is whole."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from freshet.online.weights.lineage import parent_of
from freshet.online.weights.registry import BASE
from freshet.stream.errors import RegistryError

V1, V2, V3 = (f"v000{number}-20260101T000000Z-00000000" for number in (1, 2, 3))


class Family:
    """A registry of parents by version, of which some cannot be served or read."""

    def __init__(self, parents: dict[str, str], *broken: str) -> None:
        self.parents = parents
        self.broken = broken
        self.asked: list[str] = []

    def manifest(self, version: str) -> Any:
        if version not in self.parents:
            raise RegistryError(f"there is no {version}")
        return SimpleNamespace(parent=self.parents[version])

    def verify(self, version: str) -> None:
        self.asked.append(version)
        assert len(self.asked) < 9, "it goes round in circles"
        if version in self.broken:
            raise RegistryError(f"{version} was altered")


CHAIN = {V3: V2, V2: V1, V1: BASE}


@pytest.mark.parametrize(
    ("parents", "broken", "asked"),
    [
        (CHAIN, (), [V2]),
        (CHAIN, (V2,), [V2, V1]),
        (CHAIN, (V2, V1), [V2, V1, BASE]),
        ({V3: BASE}, (), [BASE]),
        # What cannot be read has no parent to go on to.
        ({V3: V2}, (V2,), [V2, BASE]),
        # Manifests made by hand: one that names itself, and one that names a later version.
        ({V3: V2, V2: V2}, (V2,), [V2, BASE]),
        ({V3: V1, V1: V2, V2: V1}, (V1, V2), [V1, BASE]),
    ],
)
def test_the_nearest_older_ancestor_that_is_whole_is_gone_back_to(
    parents: dict[str, str], broken: tuple[str, ...], asked: list[str]
) -> None:
    family: Any = Family(parents, *broken)
    assert parent_of(family, V3) == asked[-1]
    assert family.asked == [version for version in asked if version != BASE]


def test_of_a_version_that_is_not_there_nothing_is_served() -> None:
    family: Any = Family({})
    with pytest.raises(RegistryError, match="there is no"):
        parent_of(family, V3)
    assert family.asked == []
