"""Who serves whom: one version of the weights for everybody, or another one for some segments."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from freshet.online.weights.manifest import BASE, number_of
from freshet.stream.errors import RegistryError

MAX_SEGMENTS = 256  # served by the other version; more are no exception any more


class Assignment(msgspec.Struct, frozen=True):
    """At most two versions: the default, and another one that serves some segments.

    Attributes:
        default: Serves whoever is not named, also items whose segment is unknown.
        other: Serves the named segments; empty where one version serves everybody.
        segments: Which, in order.

    Raises:
        ValueError: It is none: two versions that are one, or segments without a version.

    >>> pets = Assignment("v0001-20260101T000000Z-00000000", BASE, ("pets",))
    >>> pets.of("pets"), pets.of("toys")
    ('base', 'v0001-20260101T000000Z-00000000')
    """

    default: str = BASE
    other: str = ""
    segments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.other) != bool(self.segments) or (self.other and self.other == self.default):
            raise ValueError("another version serves segments, and who serves segments is another")
        if list(self.segments) != sorted(set(self.segments)):
            raise ValueError("segments are named once and in order")
        if len(self.segments) > MAX_SEGMENTS:
            raise ValueError(f"{len(self.segments)} segments; the most is {MAX_SEGMENTS}")

    def __str__(self) -> str:
        if not self.other:
            return self.default
        return f"{self.default}, {self.other} for {', '.join(self.segments)}"

    @property
    def versions(self) -> tuple[str, ...]:
        """The default, and the other one where there is one."""
        return (self.default, self.other) if self.other else (self.default,)

    @property
    def newest(self) -> str:
        """The version that was made last of those that serve."""
        return max(self.versions, key=lambda name: -1 if name == BASE else number_of(name))

    def last(self, before: Assignment) -> str:
        """The version that came to those that served before; else the newest."""
        came = [version for version in self.versions if version not in before.versions]
        return came[0] if len(came) == 1 else self.newest

    def of(self, segment: str) -> str:
        """The version that serves a segment."""
        return self.other if segment in self.segments else self.default

    def most_of(self, segments: Iterable[str]) -> str:
        """The version that serves most of some segments; the default where neither does."""
        others = [self.of(segment) == self.other for segment in segments]
        return self.other if sum(others) > len(others) / 2 else self.default

    def with_(self, segments: Iterable[str], version: str) -> Assignment:
        """The same, but for some segments, which a version serves.

        Raises:
            RegistryError: Three versions would serve, or the other one too many segments.
        """
        named = set(segments)
        left = set(self.segments) - named
        if version == self.default:
            return _made(self.default, self.other, left)
        if left and version != self.other:
            raise RegistryError(
                f"{self} serve, and {version} would be the third",
                hint="at most two versions serve: promote one for everybody first",
            )
        return _made(self.default, version, left | named)

    def replaced(self, version: str, by: str) -> Assignment:
        """The same, with one version in the place of another wherever that serves."""
        default, other = (by if name == version else name for name in (self.default, self.other))
        return _made(default, other, set(self.segments))

    def after(self, version: str, parent: str, segments: Iterable[str]) -> Assignment | None:
        """Who serves whom once a version is promoted; None where it has no place any more.

        Args:
            version: Promoted beside its parent, for some segments, or in the parent's place.
                Where it serves already nothing changes, so that it may be promoted again.
            parent: What it descends from.
            segments: Which; none: its parent's place. Beside two it is not promoted for some.
        """
        named = tuple(segments)
        if version in self.versions:
            return self
        if parent not in self.versions or (named and self.other):
            return None
        return self.with_(named, version) if named else self.replaced(parent, version)


def _made(default: str, other: str, segments: set[str]) -> Assignment:
    """Two that are one, or another that serves nobody, are one version for everybody."""
    if not segments or other in ("", default):
        return Assignment(default)
    if len(segments) > MAX_SEGMENTS:
        raise RegistryError(
            f"{other} would serve {len(segments)} segments beside {default}",
            hint=f"the most is {MAX_SEGMENTS}: promote it for everybody",
        )
    return Assignment(default, other, tuple(sorted(segments)))
