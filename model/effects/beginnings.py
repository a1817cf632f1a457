"""Where a series begins to be what it is: openings, ends, levels and profiles that moved for good.

A context that goes on from a past that is over is forecast by that past for months. So each series
has a beginning. What lies before it is missing, or is brought to the new level and profile, so that
what it knows of seasons stays. Everything is arithmetic on each series alone, from its own values.

Dimensions: N series, T context steps, C cycles of P steps, X stretches of the past.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from freshet.stream.arrays import Bools, Floats, Ints, Reals, Singles

# So unlikely must a silence be, at the rate at which the series else sells, and so many times as
# long as its longest one between two sales.
SILENCE = np.log(1e-4)
LONGER = 1.5
FEWEST_SALES = 3
END_CYCLES = 2

# The newest cycles that may be new, and how many before them say what was usual.
NEW_CYCLES = (3, 4)
USUAL_CYCLES = 8
FEWEST_STRETCHES = 6
# A change is one of more than this in log units, of so many times what stretches of that length
# usually differ by, and of more than they ever did. (Chosen on some of Rossmann's stores, other
# stores are reported: `bench/breaks.py`.)
LEAST_CHANGE = 0.35
TIMES_USUAL = 3.5
TIMES_MOST = 1.1
LASTING = 0.5  # share of the change that each new cycle must show
# The same for profiles, as mean squares over the phases.
LEAST_PROFILE = 0.01
PROFILE_TIMES_MOST = 1.5
# A place in the cycle that sells more or less than so many times as much is no rescaled past of it.
RESCALED_MAX = np.log(8.0)


class Change(NamedTuple):
    """A level or profile that moved.

    Attributes:
        begin_N: first step of the new one; 0 where nothing moved.
        shift_NP: log units by which each phase sells more than before; phase 0 is the step right
            after the cutoff.
    """

    begin_N: Ints
    shift_NP: Floats


@dataclass(frozen=True, slots=True)
class _Cycles:
    """Root sales folded into cycles, and their sums up to each cycle: [N, C + 1, P] each."""

    sums_NCP: Singles
    counts_NCP: Singles

    def stretch(self, first: int, cycles: int, length: int) -> tuple[Reals, Reals]:
        """Sums and counts by phase of `cycles` stretches of `length` cycles, from `first` on."""
        ends = slice(first + length, first + length + cycles)
        begins = slice(first, first + cycles)
        sums_NXP = self.sums_NCP[:, ends] - self.sums_NCP[:, begins]
        return sums_NXP, self.counts_NCP[:, ends] - self.counts_NCP[:, begins]

    def rows(self, index: Ints) -> _Cycles:
        """Some of the series."""
        return _Cycles(self.sums_NCP[index], self.counts_NCP[index])


def begun(target_NT: Floats, plain_NT: Floats, period: int, begin_N: Ints | None = None) -> Floats:
    """The targets, missing or rescaled before each series' beginning: [N, T].

    Args:
        target_NT: units >= 0, NaN where missing.
        plain_NT: the same without what promotions and the calendar do; NaN where closed.
        period: steps of a cycle.
        begin_N: first step of what a series now is, where it is known from elsewhere (a drift
            response); -1: look for it.
    """
    unknown_N = np.full(len(target_NT), True) if begin_N is None else begin_N < 0
    begun_NT = target_NT.copy()
    if begin_N is not None:
        known = change_at(plain_NT, period, np.where(unknown_N, 0, begin_N))
        begun_NT = _rescaled(target_NT, known)
    if not unknown_N.any():
        return begun_NT
    looked_XT = plain_NT[unknown_N]
    silent_X = silences(looked_XT, period)
    before_XT = np.arange(target_NT.shape[1]) < silent_X[:, None]
    # What lies before a silence is not what was usual either.
    looked_XT[before_XT] = np.nan
    moved_XT = _rescaled(target_NT[unknown_N], changes(looked_XT, period))
    moved_XT[before_XT] = np.nan
    begun_NT[unknown_N] = moved_XT
    return begun_NT


def silences(plain_NT: Floats, period: int) -> Ints:
    """The first step after a silence that its sales do not explain: [N]; 0 where there is none.

    Zeros before the first sale are not demand, and after the last sale of a dead series zeros are
    all there is. An end takes two cycles to be one: less is an empty shelf.

    >>> daily = np.r_[np.zeros(40), np.ones(20)]
    >>> silences(np.stack([daily, daily[::-1], np.ones(60)]), 7).tolist()
    [40, 20, 0]
    """
    seen_NT = np.isfinite(plain_NT)
    sold_NT = plain_NT > 0
    count_NT = seen_NT.cumsum(1, dtype=np.int32)
    sales_N = sold_NT.sum(1)
    first_N = sold_NT.argmax(1)
    rows = np.arange(len(plain_NT))

    # Seen steps up to each one's newest sale, and how many there are between two sales.
    at_sale_NT = np.maximum.accumulate(np.where(sold_NT, count_NT, 0), 1)
    gap_NT = np.where(sold_NT[:, 1:], count_NT[:, 1:] - at_sale_NT[:, :-1] - 1, 0)
    after_first_NT = at_sale_NT[:, :-1] > 0
    longest_N = (gap_NT * after_first_NT).max(1, initial=0)

    leading_N = count_NT[rows, first_N] - 1
    trailing_N = count_NT[:, -1] - at_sale_NT[:, -1]
    between_N = at_sale_NT[:, -1] - leading_N
    # Half a step without a sale stands beside those seen.
    quiet_N = np.log1p(-sales_N / (between_N + 0.5))
    least_N = np.maximum(SILENCE / np.minimum(quiet_N, -1e-9), LONGER * longest_N)
    enough_N = sales_N >= FEWEST_SALES
    opened_N = np.where(enough_N & (leading_N > least_N), first_N, 0)
    last_N = plain_NT.shape[1] - 1 - sold_NT[:, ::-1].argmax(1)
    ended_N = enough_N & (trailing_N > np.maximum(least_N, END_CYCLES * period))
    return np.where(ended_N, last_N + 1, opened_N)


def changes(plain_NT: Floats, period: int) -> Change:
    """Levels and profiles that moved within the last cycles, for good as far as one can see."""
    N, T = plain_NT.shape
    cycles = _folded(plain_NT, period)
    num_cycles = cycles.sums_NCP.shape[1] - 1
    begin_N = np.zeros(N, np.int64)
    trusted_N2 = np.zeros((N, 2))
    # The longest stretch that has changed throughout says most of what there is now.
    for new in NEW_CYCLES:
        stretches = num_cycles - USUAL_CYCLES - new + 1
        if stretches - new < FEWEST_STRETCHES:
            break
        found_N2 = _tested(cycles, new, stretches)
        moved_N = found_N2.any(1)
        begin_N[moved_N] = T - new * period
        trusted_N2[moved_N] = found_N2[moved_N]
    moved = np.flatnonzero(begin_N)
    if not len(moved):
        return Change(begin_N, np.zeros((N, period)))
    begin_N[moved] = _first_steps(plain_NT[moved], period, begin_N[moved], trusted_N2[moved])
    return change_at(plain_NT, period, begin_N, trusted_N2)


def change_at(
    plain_NT: Floats, period: int, begin_N: Ints, trusted_N2: Floats | None = None
) -> Change:
    """The change at a step that is known to be one, as far as the steps since then show it.

    Args:
        plain_NT: as for `begun`.
        period: steps of a cycle.
        begin_N: first step after it.
        trusted_N2: how far the level and the profile are believed, from 0 to 1; None: the level
            wholly, and each phase by how often it was seen.
    """
    moved = np.flatnonzero(begin_N > 0)
    shift_NP = np.zeros((len(plain_NT), period))
    if len(moved):
        trusted_X2 = None if trusted_N2 is None else trusted_N2[moved]
        shift_NP[moved] = _shift(plain_NT[moved], period, begin_N[moved], trusted_X2)
    return Change(begin_N, shift_NP)


def _shift(plain_NT: Floats, period: int, begin_N: Ints, trusted_N2: Floats | None) -> Floats:
    """Log units by which each phase sells more than in the usual cycles before: [N, P]."""
    T = plain_NT.shape[1]
    step_T = np.arange(T)
    after_NT = step_T >= begin_N[:, None]
    recent_NT = step_T >= begin_N[:, None] - USUAL_CYCLES * period
    old = _by_phase(plain_NT, recent_NT & ~after_NT, period)
    new = _by_phase(plain_NT, after_NT, period)
    level_N, beyond_NP = _compared(*new, _means(*old))
    if trusted_N2 is None:
        # Half of what one cycle says of a phase is chance, and less of what several say.
        trusted_NP = new[1] / (new[1] + 1.0)
        shift_NP = level_N[:, None] + trusted_NP * beyond_NP
    else:
        shift_NP = trusted_N2[:, :1] * level_N[:, None] + trusted_N2[:, 1:] * beyond_NP
    compared_N1 = (old[1].sum(1) > 0) & (new[1].sum(1) > 0)
    return np.where(compared_N1[:, None], shift_NP, 0.0)


def _first_steps(plain_NT: Floats, period: int, begin_N: Ints, trusted_N2: Floats) -> Ints:
    """The step, at most a cycle away, at which old and new levels part best: [N]."""
    T = plain_NT.shape[1]
    shift_NP = _shift(plain_NT, period, begin_N, trusted_N2)
    earlier_N = np.maximum(begin_N - period, 1)
    step_T = np.arange(T)
    recent_NT = step_T >= (earlier_N - USUAL_CYCLES * period)[:, None]
    old_NT = recent_NT & (step_T < earlier_N[:, None])
    usual_NP = _means(*_by_phase(plain_NT, old_NT, period))
    phase_T = np.arange(-T, 0) % period
    beyond_NT = 2.0 * np.log((np.sqrt(plain_NT) + 1.0) / (usual_NP[:, phase_T] + 1.0))
    shift_NT = shift_NP[:, phase_T]
    # By how much each step is more like the old level than like the new one.
    older_NT = np.nan_to_num((beyond_NT - shift_NT) ** 2 - beyond_NT**2)
    possible_NT = (step_T >= earlier_N[:, None]) & (step_T <= (begin_N + period)[:, None])
    since_NT = older_NT[:, ::-1].cumsum(1)[:, ::-1]
    first_N: Ints = np.where(possible_NT, since_NT, np.inf).argmin(1)
    return first_N


def _by_phase(plain_NT: Floats, where_NT: Bools, period: int) -> tuple[Floats, Floats]:
    """Sums of roots and their number over some steps of each phase: [N, P] each."""
    phase_T = np.arange(-plain_NT.shape[1], 0) % period
    seen_NT = np.isfinite(plain_NT) & where_NT
    root_NT = np.sqrt(np.where(seen_NT, plain_NT, 0.0))
    one_hot_TP = (phase_T[:, None] == np.arange(period)).astype(np.float64)
    return root_NT @ one_hot_TP, seen_NT @ one_hot_TP


def _folded(plain_NT: Floats, period: int) -> _Cycles:
    """Whole cycles before the cutoff, as sums since the first of them.

    Roots of sales, whose chance is alike whatever their size, and in which a spike weighs little.
    """
    T = plain_NT.shape[1]
    whole = T // period * period
    seen_NX = np.isfinite(plain_NT[:, T - whole :])
    root_NX = np.sqrt(np.where(seen_NX, plain_NT[:, T - whole :], 0.0), dtype=np.float32)
    return _Cycles(_since_first(root_NX, period), _since_first(seen_NX, period))


def _since_first(values_NX: Singles | Bools, period: int) -> Singles:
    N = len(values_NX)
    folded_NCP = values_NX.reshape(N, -1, period)
    sums_NCP = np.zeros((N, folded_NCP.shape[1] + 1, period), np.float32)
    np.cumsum(folded_NCP, 1, out=sums_NCP[:, 1:], dtype=np.float32)
    return sums_NCP


class _Compared(NamedTuple):
    """Stretches of new cycles beside what was usual in the cycles before each.

    Attributes:
        level_NX: log units by which they sell more.
        agreed_NX: what both halves of a stretch say of a phase, multiplied: the product of two
            chances is none on average.
        beyond_NX: mean square of what the whole stretch says of a phase.
        usual_NXP: root sales before.
    """

    level_NX: Reals
    agreed_NX: Reals
    beyond_NX: Reals
    usual_NXP: Reals


def _stretches(cycles: _Cycles, new: int, first: int, count: int) -> _Compared:
    """`count` stretches of `new` cycles, the first of them after `first` + USUAL_CYCLES cycles."""
    begin = first + USUAL_CYCLES
    half = new // 2
    usual_NXP = _means(*cycles.stretch(first, count, USUAL_CYCLES))
    early = cycles.stretch(begin, count, half)
    late = cycles.stretch(begin + half, count, new - half)
    whole = (early[0] + late[0], early[1] + late[1])
    level_NX, beyond_NXP = _compared(*whole, usual_NXP)
    _, early_NXP = _compared(*early, usual_NXP)
    _, late_NXP = _compared(*late, usual_NXP)
    weight_NXP = usual_NXP + _means(*whole)
    agreed_NX = _weighted(early_NXP * late_NXP, weight_NXP)
    return _Compared(level_NX, agreed_NX, _weighted(beyond_NXP**2, weight_NXP), usual_NXP)


def _tested(cycles: _Cycles, new: int, stretches: int) -> Reals:
    """How far the newest `new` cycles have another level, 0 or 1, and another profile: [N, 2].

    Each stretch of the past is compared with the cycles before it, as the newest one is: only what
    was never seen between two of them is a change.
    """
    newest = _stretches(cycles, new, stretches - 1, 1)
    level_N = newest.level_NX[:, 0]
    agreed_N = newest.agreed_NX[:, 0]
    lasts_N = _lasts(cycles, new, newest.usual_NXP[:, 0], level_N)
    level_moved_N = lasts_N & (np.abs(level_N) > LEAST_CHANGE)
    profile_moved_N = agreed_N > LEAST_PROFILE

    # Few series get so far as to be held against their past: stretches that share no cycle with
    # the newest.
    some = np.flatnonzero(level_moved_N | profile_moved_N)
    past = _stretches(cycles.rows(some), new, 0, stretches - new)
    size_XX = np.abs(past.level_NX)
    usual_X = TIMES_USUAL * 1.4826 * np.median(size_XX, 1)
    most_X = TIMES_MOST * size_XX.max(1, initial=0.0)
    level_moved_N[some] &= np.abs(level_N[some]) > np.maximum(usual_X, most_X)
    profile_most_X = PROFILE_TIMES_MOST * past.agreed_NX.max(1, initial=0.0)
    profile_moved_N[some] &= agreed_N[some] > profile_most_X

    trusted_N = np.clip(agreed_N / np.maximum(newest.beyond_NX[:, 0], 1e-9), 0.0, 1.0)
    return np.stack([level_moved_N, profile_moved_N * trusted_N], -1)


def _lasts(cycles: _Cycles, new: int, usual_NP: Reals, level_N: Reals) -> Bools:
    """Whether each new cycle shows a good part of the change: [N]."""
    num_cycles = cycles.sums_NCP.shape[1] - 1
    each_NX, _ = _compared(*cycles.stretch(num_cycles - new, new, 1), usual_NP[:, None])
    lasts_NX = each_NX * np.sign(level_N)[:, None] >= LASTING * np.abs(level_N)[:, None]
    return np.asarray(lasts_NX.all(1))


def _means(sums: Reals, counts: Reals) -> Reals:
    """Means of each phase; that of all phases where one was never seen."""
    all_sums = sums.sum(-1, keepdims=True)
    all_counts = counts.sum(-1, keepdims=True)
    overall = all_sums / np.maximum(all_counts, 1.0)
    return np.where(counts > 0, sums / np.maximum(counts, 1.0), overall)


def _compared(sums: Reals, counts: Reals, usual: Reals) -> tuple[Reals, Reals]:
    """Log units by which all phases together differ from the usual, and each one beyond that.

    One root unit stands beside what was seen.
    """
    expected = counts * usual
    ratio = (sums.sum(-1) + 1.0) / (expected.sum(-1) + 1.0)
    beyond = (sums + 1.0) / (expected * ratio[..., None] + 1.0)
    return 2.0 * np.log(ratio), 2.0 * np.log(beyond)


def _weighted(values: Reals, weights: Reals) -> Reals:
    mean: Reals = (values * weights).sum(-1) / np.maximum(weights.sum(-1), 1e-9)
    return mean


def _rescaled(target_NT: Floats, change: Change) -> Floats:
    """Targets before a change at the level of after it; missing where that is a far one."""
    moved_N = change.begin_N > 0
    if not moved_N.any():
        return target_NT.copy()
    T = target_NT.shape[1]
    period = change.shift_NP.shape[1]
    phase_T = np.arange(-T, 0) % period
    shift_XT = change.shift_NP[moved_N][:, phase_T]
    factor_XT = np.where(np.abs(shift_XT) > RESCALED_MAX, np.nan, np.exp(shift_XT))
    before_XT = np.arange(T) < change.begin_N[moved_N, None]
    rescaled_NT = target_NT.copy()
    rescaled_NT[moved_N] = np.where(before_XT, target_NT[moved_N] * factor_XT, target_NT[moved_N])
    return rescaled_NT
