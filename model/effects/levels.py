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
    T = values_NT.shape[1]
    flags = flags_NSF.shape[2]
    cell_NS = slot_NS.astype(np.int64)
    num_cells = int(slot_NS.max(initial=0)) + 1
    chosen: list[int] = []
    # Greedily: the best flag first, then the one that explains most of what it leaves.
    for _ in range(min(MAX_CELL_FLAGS, flags)):
        usual_NT = usual(values_NT, cell_NS)[:, :T]
        left_NT = values_NT - usual_NT
        # Of what a chosen flag left over, that flag explains nothing.
        worth_F = [_explained(left_NT, flags_NSF[..., flag]) for flag in range(flags)]
        best = int(np.argmax(worth_F))
        if worth_F[best] < WORTH:
            break
        # Every cell so far has a twin for the steps on which the flag is up.
        cell_NS = cell_NS + num_cells * flags_NSF[..., best]
        num_cells *= 2
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
    T = values_NT.shape[1]
    sums_NC, counts_NC = _sums(values_NT, cell_NS, T)
    count_N = counts_NC.sum(1)
    mean_N = sums_NC.sum(1) / np.maximum(count_N, 1)
    mean_NC = sums_NC / np.maximum(counts_NC, 1)
    level_NC = np.where(counts_NC > 0, mean_NC, mean_N[:, None])

    if recent is not None and recent < T:
        sums_NC, counts_NC = _sums(values_NT, cell_NS, recent)
        # How far the recent steps lie from what the whole history says of their cells: one number
        # a series, since a cell alone has too few of them.
        beyond_NC = sums_NC - counts_NC * level_NC
        count_N = counts_NC.sum(1)
        change_N = beyond_NC.sum(1) / np.maximum(count_N, 1)
        with_prior_NC = sums_NC + level_NC + change_N[:, None]
        level_NC = with_prior_NC / (counts_NC + 1)
    return np.take_along_axis(level_NC, cell_NS, 1)


def _sums(values_NT: Floats, cell_NS: Ints, recent: int) -> tuple[Floats, Floats]:
    """Sum and number of the values of each series and cell over the last steps: [N, C] each."""
    N, T = values_NT.shape
    num_cells = int(cell_NS.max(initial=0)) + 1
    last = slice(T - recent, T)
    values_NX = values_NT[:, last]
    cell_NX = cell_NS[:, last]
    seen_NX = np.isfinite(values_NX)

    # One number for each series and cell, so that a single count serves all of them.
    row_N1 = np.arange(N)[:, None]
    index_NX = row_N1 * num_cells + cell_NX
    seen_index = index_NX[seen_NX]
    size = N * num_cells
    sums = np.bincount(seen_index, values_NX[seen_NX], size)
    counts = np.bincount(seen_index, minlength=size)
    sums_NC = sums.astype(np.float64).reshape(N, num_cells)
    counts_NC = counts.astype(np.float64).reshape(N, num_cells)
    return sums_NC, counts_NC


def _explained(left_NT: Floats, flag_NS: Bools) -> float:
    """Share of the variance that goes with a flag; 0 where that hardly ever changes."""
    T = left_NT.shape[1]
    flag_NT = flag_NS[:, :T]
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
    gap = float(up.mean() - down.mean())
    between = share * (1 - share) * gap**2
    return between / variance
