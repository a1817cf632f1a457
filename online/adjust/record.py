"""What a forecast's record says of how its segment is served while it drifts, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from freshet.online.adjust.beginning import Beginning
from freshet.stream.schemas import Adjustments


def beginning_of(adjustments: Adjustments) -> Beginning | None:
    """From which beginning a forecast was made.

    >>> beginning_of(Adjustments(begins_at_ms=7))
    Beginning(begins_ms=7, moved_P=())
    """
    if adjustments.begins_at_ms is None:
        return None
    return Beginning(adjustments.begins_at_ms, tuple(adjustments.moved))


def with_beginnings(
    adjustments: Mapping[int, Adjustments],
    beginnings: Sequence[Beginning | None],
    decision_sha256: str = "",
) -> dict[int, Adjustments]:
    """What was done to single rows of a batch, from which beginnings they are forecast, and by
    which decision.
    """
    found = dict(adjustments)
    for row, beginning in enumerate(beginnings):
        if beginning is not None:
            moved = list(beginning.moved_P)
            own = found.get(row, Adjustments())
            found[row] = replace(
                own,
                begins_at_ms=beginning.begins_ms,
                moved=moved,
                decision_sha256=decision_sha256,
            )
    return found


def hashed(adjustments: Adjustments) -> dict[str, Any]:
    """What a forecast's id is made of: a beginning is named where there is one."""
    fields: dict[str, Any] = msgspec.to_builtins(adjustments)
    if adjustments.begins_at_ms is None:
        del fields["begins_at_ms"], fields["moved"], fields["decision_sha256"]
    return fields
