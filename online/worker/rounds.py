"""The pure plan of a round: which cutoff is next, what is skipped, in which portions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Round:
    """One pass over all items at one cutoff.

    Attributes:
        cutoff_ms: End of the newest bucket that may be used.
        skipped: Cutoffs between the previous round and this one which nobody will forecast any
            more.
    """

    cutoff_ms: int
    skipped: int


def plan_round(previous_ms: int | None, newest_ms: int | None, resolution_ms: int) -> Round | None:
    """The round that is due, or None while no new bucket has ended.

    A worker which fell behind forecasts the newest cutoff only: an old forecast helps nobody, and
    catching up would keep it behind. The cutoffs in between are counted, so that the gap can be
    seen.

    Args:
        previous_ms: Cutoff of the last round; None before the first.
        newest_ms: The cutoff that the windows allow now; None while there is none.
        resolution_ms: Length of a bucket.

    >>> plan_round(None, 7_200_000, 3_600_000)
    Round(cutoff_ms=7200000, skipped=0)
    >>> plan_round(7_200_000, 7_200_000, 3_600_000) is None
    True
    >>> plan_round(7_200_000, 18_000_000, 3_600_000)
    Round(cutoff_ms=18000000, skipped=2)
    """
    if newest_ms is None:
        return None
    cutoff_ms = newest_ms - newest_ms % resolution_ms
    if previous_ms is None:
        return Round(cutoff_ms, 0)
    steps = (cutoff_ms - previous_ms) // resolution_ms
    return Round(cutoff_ms, steps - 1) if steps > 0 else None


def portions(num_rows: int, size: int) -> Iterator[range]:
    """Row numbers in micro-batches of at most `size`, each row exactly once and in order.

    >>> list(portions(5, 2))
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    assert size > 0
    for start in range(0, num_rows, size):
        yield range(start, min(start + size, num_rows))
