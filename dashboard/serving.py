"""Which versions serve whom, by what was announced and what forecasts name."""

from __future__ import annotations

from typing import NamedTuple

from freshet.dashboard.state import TopicState
from freshet.stream.schemas import ModelEvent

SERVING_KINDS = ("promoted", "rolled_back")


class ServingNow(NamedTuple):
    """The default version, and another one that serves some segments, where there is one."""

    default: str
    other: str = ""
    segments: tuple[str, ...] = ()


def serving_now(topics: TopicState) -> ServingNow:
    """What forecasts name is what serves; a promotion says what will, once it is swapped in."""
    events = [event for event in topics.models if event.kind in SERVING_KINDS]
    newest = max(events, key=lambda event: event.at_ms, default=None)
    seen = topics.book.weights_version
    if newest is None or len(newest.serves) != 2:
        return ServingNow(seen or (newest.version if newest is not None else ""))
    default, other = newest.serves
    if seen not in ("", default.version, other.version):
        return ServingNow(seen)
    return ServingNow(default.version, other.version, tuple(other.segments))


def segments_of(event: ModelEvent | None) -> list[str]:
    """For which segments the version of an event was promoted, or gone back to; none: for all."""
    if event is None:
        return []
    return next((part.segments for part in event.serves if part.version == event.version), [])
