"""Which windows fine-tuning sees, and which it must not: a split of time, and draws of items and
cutoffs. Pure.

Time, newest last (each part ends where the next begins; labels never cross the end of their part):

    ...... replay ...... | recent (training) | validation | hold-out
                       onset or recent_ms            train_end  holdout_start   final
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MIN_RECENT_BUCKETS = 12
MAX_POOL_WINDOWS = 768
MAX_GATE_WINDOWS = 512
MAX_VALIDATION_WINDOWS = 256
MAX_ANCHOR_WINDOWS = 256
RECENT_CUTOFFS = 16
REPLAY_CUTOFFS = 16
ANCHOR_CUTOFFS = 4
NUM_STRATA = 4


@dataclass(frozen=True, slots=True)
class Split:
    """Ends of the parts, epoch ms, all of them bucket ends."""

    resolution_ms: int
    replay_start_ms: int
    recent_start_ms: int
    train_end_ms: int
    holdout_start_ms: int
    final_ms: int

    @property
    def recent_buckets(self) -> int:
        """Buckets that fine-tuning takes as recent."""
        return (self.train_end_ms - self.recent_start_ms) // self.resolution_ms

    @property
    def holdout_buckets(self) -> int:
        """Buckets of the gate."""
        return (self.final_ms - self.holdout_start_ms) // self.resolution_ms


@dataclass(frozen=True, slots=True)
class Draw:
    """Windows of several rows at one cutoff."""

    cutoff_ms: int
    rows: Ints


def split_time(
    final_ms: int,
    *,
    first_ms: int,
    onset_ms: int | None,
    resolution_ms: int,
    recent_buckets: int,
    holdout_buckets: int,
) -> Split:
    """Divide what is final; validation is half as long as the hold-out.

    Args:
        final_ms: Buckets that end at or before it are final.
        first_ms: Start of what is retained.
        onset_ms: Start of the drift; recent windows begin with it, unless that leaves fewer than
            MIN_RECENT_BUCKETS.
        recent_buckets: The most buckets that count as recent.
        holdout_buckets: Newest final buckets, for the gate alone.

    >>> s = split_time(100, first_ms=0, onset_ms=70, resolution_ms=1, recent_buckets=48,
    ...     holdout_buckets=8)
    >>> s.recent_start_ms, s.train_end_ms, s.holdout_start_ms, s.final_ms
    (70, 88, 92, 100)
    """
    final_ms = final_ms // resolution_ms * resolution_ms
    holdout_start_ms = final_ms - holdout_buckets * resolution_ms
    train_end_ms = holdout_start_ms - max(1, holdout_buckets // 2) * resolution_ms
    recent_start_ms = train_end_ms - recent_buckets * resolution_ms
    if onset_ms is not None:
        onset_ms = -(-onset_ms // resolution_ms) * resolution_ms
        recent_start_ms = max(recent_start_ms, onset_ms)
    recent_start_ms = min(recent_start_ms, train_end_ms - MIN_RECENT_BUCKETS * resolution_ms)
    replay_start_ms = min(-(-first_ms // resolution_ms) * resolution_ms, recent_start_ms)
    return Split(
        resolution_ms, replay_start_ms, recent_start_ms, train_end_ms, holdout_start_ms, final_ms
    )


def ready_ms(onset_ms: int, *, resolution_ms: int, holdout_buckets: int) -> int:
    """From which `final_ms` on a drift leaves enough buckets for training, validation and hold-out.

    >>> ready_ms(100, resolution_ms=1, holdout_buckets=12)
    130
    """
    return (
        onset_ms
        + (MIN_RECENT_BUCKETS + holdout_buckets + max(1, holdout_buckets // 2)) * resolution_ms
    )


def recent_draws(
    rng: np.random.Generator,
    split: Split,
    num_items: int,
    affected: Ints | None = None,
    maximum: int = MAX_POOL_WINDOWS,
) -> list[Draw]:
    """Training windows of the recent part: cutoffs spread over it, all items or as many as fit.

    Where a drift named items (`affected`, rising rows), half of the windows are theirs, as far as
    there are enough.
    """
    cutoffs = _spread(
        split.recent_start_ms, split.train_end_ms, split.resolution_ms, RECENT_CUTOFFS
    )
    rows = np.arange(num_items)
    others = rows if affected is None else np.setdiff1d(rows, affected)
    strata = [part for part in (affected, others) if part is not None and len(part)]
    return _drawn(rng, cutoffs, strata, maximum)


def replay_draws(
    rng: np.random.Generator,
    split: Split,
    levels: NDArray[np.floating],
    steps: int,
    maximum: int = MAX_POOL_WINDOWS,
) -> list[Draw]:
    """Older windows, equally many from each stratum of sales level: sparse items are most of a
    shop, least of its loss.

    Args:
        split: The parts; labels stay before the recent one.
        levels: Mean units of each item, float[I].
        steps: Length of a label, so that cutoffs leave room for one.
    """
    latest_ms = max(split.replay_start_ms, split.recent_start_ms - steps * split.resolution_ms)
    cutoffs = _spread(split.replay_start_ms, latest_ms, split.resolution_ms, REPLAY_CUTOFFS)
    return _drawn(rng, cutoffs, strata_of(levels), maximum)


def anchor_draws(
    rng: np.random.Generator,
    split: Split,
    levels: NDArray[np.floating],
    steps: int,
    taken: Sequence[Draw],
) -> list[Draw]:
    """Windows from before the recent part that training does not use, to see what was forgotten."""
    latest_ms = max(split.replay_start_ms, split.recent_start_ms - steps * split.resolution_ms)
    used = {draw.cutoff_ms for draw in taken}
    every = range(split.replay_start_ms, latest_ms, split.resolution_ms)
    free = [cutoff_ms for cutoff_ms in every if cutoff_ms not in used]
    return _drawn(rng, _evenly(free, ANCHOR_CUTOFFS), strata_of(levels), MAX_ANCHOR_WINDOWS)


def holdout_draws(
    rng: np.random.Generator,
    start_ms: int,
    end_ms: int,
    resolution_ms: int,
    num_items: int,
    maximum: int = MAX_GATE_WINDOWS,
) -> list[Draw]:
    """Windows whose labels lie in [start, end): the same items at every cutoff, one cutoff at the
    start.

    As many cutoffs as fit `maximum` windows, at least one; of more items than that, a sample.
    """
    rows = np.arange(num_items)
    if num_items > maximum:
        rows = np.sort(rng.choice(num_items, maximum, replace=False))
    num_cutoffs = max(1, maximum // max(1, len(rows)))
    return [
        Draw(cutoff_ms, rows) for cutoff_ms in _spread(start_ms, end_ms, resolution_ms, num_cutoffs)
    ]


def strata_of(levels: NDArray[np.floating]) -> list[Ints]:
    """Rows in NUM_STRATA groups of rising level, of equal size where it divides.

    >>> [rows.tolist() for rows in strata_of(np.array([5.0, 0.0, 9.0, 1.0]))]
    [[1], [3], [0], [2]]
    """
    order = np.argsort(np.nan_to_num(levels), kind="stable")
    return [rows for rows in np.array_split(order, NUM_STRATA) if len(rows)]


def _drawn(
    rng: np.random.Generator, cutoffs: list[int], strata: list[Ints], maximum: int
) -> list[Draw]:
    """At every cutoff an equal number of each stratum, without repeats, sorted; at most `maximum`
    windows.
    """
    if not cutoffs or not strata:
        return []
    share = max(1, maximum // (len(cutoffs) * len(strata)))
    draws = []
    for cutoff_ms in cutoffs[: max(1, maximum // (share * len(strata)))]:
        chosen = [rng.choice(rows, min(share, len(rows)), replace=False) for rows in strata]
        draws.append(Draw(cutoff_ms, np.sort(np.concatenate(chosen)).astype(np.int64)))
    return draws


def _spread(start_ms: int, end_ms: int, resolution_ms: int, maximum: int) -> list[int]:
    """Cutoffs from start to before end, evenly, at most `maximum`."""
    return _evenly(range(start_ms, end_ms, resolution_ms), maximum)


def _evenly(values: Sequence[int], maximum: int) -> list[int]:
    if len(values) <= maximum:
        return list(values)
    return [values[index * len(values) // maximum] for index in range(maximum)]
