"""What a forecast's record says of how it was served differently, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from freshet.online.adjust.beginning import Beginning
from freshet.stream.arrays import Ints
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


def with_maps(
    adjustments: Mapping[int, Adjustments], maps_BH: Ints | None, calibration_id: str
) -> dict[int, Adjustments]:
    """What was done to single rows of a batch, and by which maps their steps are served."""
    found = dict(adjustments)
    if maps_BH is not None:
        for row in np.flatnonzero(maps_BH.any(1)).tolist():
            calibrated = maps_BH[row].tolist()
            own = found.get(row, Adjustments())
            found[row] = replace(own, calibration_id=calibration_id, calibrated=calibrated)
    return found


def maps_of(adjustments: Adjustments, steps: Sequence[int]) -> list[int]:
    """By which map some steps (from 1 on) are served; 0 is none.

    >>> maps_of(Adjustments(calibrated=[0, 3]), [1, 2, 9])
    [0, 3, 0]
    """
    told = adjustments.calibrated
    return [told[step - 1] if step <= len(told) else 0 for step in steps]


def hashed(adjustments: Adjustments) -> dict[str, Any]:
    """What a forecast's id is made of: a beginning and maps are named where there are
    some.
    """
    fields: dict[str, Any] = msgspec.to_builtins(adjustments)
    if adjustments.begins_at_ms is None:
        del fields["begins_at_ms"], fields["moved"], fields["decision_sha256"]
    if not adjustments.calibrated:
        del fields["calibrated"]
    return fields
