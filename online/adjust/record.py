"""What a forecast's record says of how its segment is served while it drifts, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from freshet.online.adjust.beginning import Beginning
from freshet.online.adjust.choice import Candidate
from freshet.stream.schemas import Adjustments

Served = tuple[Candidate, Beginning | None]
"""Who serves a segment, and by which beginning."""
AS_IT_IS: Served = ("as_it_is", None)


def served_by(adjustments: Adjustments) -> Served:
    """Which candidate published a forecast.

    >>> served_by(Adjustments(begins_at_ms=7))
    ('hidden', Beginning(begins_ms=7, moved_P=()))
    """
    if adjustments.begins_at_ms is None:
        return AS_IT_IS
    moved_P = tuple(adjustments.moved)
    beginning = Beginning(adjustments.begins_at_ms, moved_P)
    if not moved_P:
        return "hidden", beginning
    return ("level" if len(set(moved_P)) == 1 else "profile"), beginning


def with_beginnings(
    adjustments: Mapping[int, Adjustments], beginnings: Sequence[Beginning | None]
) -> dict[int, Adjustments]:
    """What was done to single rows of a batch, and from which beginnings they are forecast."""
    found = dict(adjustments)
    for row, beginning in enumerate(beginnings):
        if beginning is not None:
            moved = list(beginning.moved_P)
            own = found.get(row, Adjustments())
            found[row] = replace(own, begins_at_ms=beginning.begins_ms, moved=moved)
    return found


def hashed(adjustments: Adjustments) -> dict[str, Any]:
    """What a forecast's id is made of: a beginning is named where there is one."""
    fields: dict[str, Any] = msgspec.to_builtins(adjustments)
    if adjustments.begins_at_ms is None:
        del fields["begins_at_ms"], fields["moved"]
    return fields
