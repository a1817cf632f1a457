"""What a reader of windows gets: what one refresh changed, and cells of some rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from freshet.stream.read.progress import Input
from freshet.stream.read.ring import Ints


@dataclass(frozen=True, slots=True)
class Delta:
    """What one refresh changed.

    Attributes:
        changed_rows: int64, rising: rows with a cell that changed.
        changed_buckets_ms: int64, rising: starts of the buckets with a cell that changed.
        new_items: Items that got a row.
        moved: Whether any offset or frontier moved, so that more may be observed than before.
        rolled_back: Inputs of which Redis now holds less than this reader does; what was read
            before is kept.
    """

    changed_rows: Ints
    changed_buckets_ms: Ints
    new_items: list[str]
    moved: bool
    rolled_back: tuple[Input, ...]


@dataclass(frozen=True, slots=True)
class WindowCells:
    """Cells of some rows: sums as integers (thousandths of units, ten-thousandths of currency; see
    `UNIT_SCALES`).

    Attributes:
        values_ICB: int64; 0 where not observed.
        observed_ICB: bool, read-only: False where the sum is not known, which is not the same as 0.
        start_ms: start of the first bucket.
    """

    values_ICB: Ints
    observed_ICB: NDArray[np.bool_]
    start_ms: int
