"""What a series usually sells at a step like this one: by slot of the week and by strong flags.

A learner that sees sales relative to this needs no memory for who sells how much on which weekday.
Dimensions: N series, T context steps, S context and horizon steps, F flags, C cells.
"""

from __future__ import annotations

import numpy as np

from freshet.stream.arrays import Bools, Floats, Ints

MAX_CELL_FLAGS = 2
# Share of the variance within slots that a flag must explain to split every slot in two.
WORTH = 0.02
# A flag that is up on a smaller share of the steps, or down, leaves too few to average.
SHARES = 0.05


def cells(values_NT: Floats, slot_NS: Ints, flags_NSF: Bools) -> tuple[Ints, list[int]]:
    """A number for every kind of step: [N, S]; and at most two flags that tell kinds apart.

    A kind is a slot of the week, with each of these flags up or down.

    Args:
        values_NT: what is sold (a logarithm of it), NaN where missing or closed.
        slot_NS: slot of the week of each step, from 0.
        flags_NSF: candidates, such as a promotion.

    >>> slot = np.array([[0, 1, 0, 1, 0, 1]])
    >>> promotion = np.array([[0, 0, 1, 1, 0, 1]])[..., None] > 0
    >>> cells(np.array([[1.0, 2.0, 5.0, 6.0, 1.0]]), slot, promotion)
    (array([[0, 1, 2, 3, 0, 3]]), [0])
    """
    cell_NS = slot_NS.astype(np.int64)
    slots = int(slot_NS.max(initial=0)) + 1
    chosen: list[int] = []
    for _ in range(min(MAX_CELL_FLAGS, flags_NSF.shape[2])):
        left_NT = values_NT - usual(values_NT, cell_NS)[:, : values_NT.shape[1]]
        worth = [
            0.0 if flag in chosen else _explained(left_NT, flags_NSF[..., flag])
            for flag in range(flags_NSF.shape[2])
        ]
        best = int(np.argmax(worth))
        if worth[best] < WORTH:
            break
        cell_NS = cell_NS + slots * 2 ** len(chosen) * flags_NSF[..., best]
        chosen.append(best)
    return cell_NS, chosen


def usual(values_NT: Floats, cell_NS: Ints, recent: int | None = None) -> Floats:
    """The mean of each series over the steps of the same cell, at every step: [N, S].

    Args:
        values_NT: NaN where missing or closed.
        cell_NS: number of the cell of each step.
        recent: only the last so many steps count fully; where a cell has few of them, its mean over
            the whole history, moved by how much the series has changed since, counts as one more.
            None takes all alike.

    A cell without any step takes the mean of the others, a series without any value 0.

    >>> usual(np.array([[1.0, 2.0, 3.0, 2.0]]), np.array([[0, 1, 0, 1, 0, 1, 2]])).tolist()
    [[2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]]
    """
    sums_NC, counts_NC = _sums(values_NT, cell_NS, values_NT.shape[1])
    mean_N = sums_NC.sum(1) / np.maximum(counts_NC.sum(1), 1)
    level_NC = np.where(counts_NC > 0, sums_NC / np.maximum(counts_NC, 1), mean_N[:, None])
    if recent is not None and recent < values_NT.shape[1]:
        sums_NC, counts_NC = _sums(values_NT, cell_NS, recent)
        change_N = (sums_NC - counts_NC * level_NC).sum(1) / np.maximum(counts_NC.sum(1), 1)
        level_NC = (sums_NC + level_NC + change_N[:, None]) / (counts_NC + 1)
    return np.take_along_axis(level_NC, cell_NS, 1)


def _sums(values_NT: Floats, cell_NS: Ints, recent: int) -> tuple[Floats, Floats]:
    """Sum and number of the values of each series and cell over the last steps: [N, C] each."""
    N, T = values_NT.shape
    num_cells = int(cell_NS.max(initial=0)) + 1
    values_NT, cell_NT = values_NT[:, T - recent :], cell_NS[:, T - recent : T]
    seen_NT = np.isfinite(values_NT)
    index = (np.arange(N)[:, None] * num_cells + cell_NT)[seen_NT]
    sums = np.bincount(index, values_NT[seen_NT], N * num_cells).astype(np.float64)
    counts = np.bincount(index, minlength=N * num_cells).astype(np.float64)
    return sums.reshape(N, num_cells), counts.reshape(N, num_cells)


def _explained(left_NT: Floats, flag_NS: Bools) -> float:
    """Share of the variance that goes with a flag; 0 where that hardly ever changes."""
    flag_NT = flag_NS[:, : left_NT.shape[1]]
    seen_NT = np.isfinite(left_NT)
    up = left_NT[seen_NT & flag_NT]
    down = left_NT[seen_NT & ~flag_NT]
    share = len(up) / max(1, len(up) + len(down))
    if not SHARES <= share <= 1 - SHARES:
        return 0.0
    variance = float(np.var(left_NT[seen_NT]))
    if variance <= 0:
        return 0.0
    # Variance between two groups, of which one holds this share of all.
    return share * (1 - share) * float(up.mean() - down.mean()) ** 2 / variance
