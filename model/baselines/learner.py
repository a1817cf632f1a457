"""A learner on features of steps ahead, whatever it is, with quantiles from its own past errors.

Three models, each trained without a third of the blocks of days, answer together; what each leaves
unexplained in its own third is the distribution of errors. Quantiles that a learner fits itself are
overconfident here, because all series share a day's luck: nine separate fits cover 69 % where they
promise 80. Dimensions: N series, T context steps, H horizon steps, Q quantile levels, X rows to
learn from, K features, L levels of a table, G groups of rows with about the same expected sales.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from freshet.model.baselines.steps import Ahead, Codes, Past, ahead
from freshet.model.baselines.tidy import tidy
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats, Ints, Singles
from freshet.stream.units import DAY_MS

MAX_ROWS = 250_000
MAX_ORIGINS = 18
# Days older than this teach a learner of days more about then than about now: on one chain's
# Christmas the scaled quantile loss was .303 with all 23 months and .254 with the last 14. Weeks
# and months are too few to leave any out.
TAUGHT_WEEKS = 60
FOLDS = 3
GROUPS, FEWEST_IN_GROUP = 10, 300
SPREAD_POWER, SPREADS = 0.5, (0.3, 3.0)
GRID_L = np.array([0.001, 0.005, *np.arange(1, 100) / 100, 0.995, 0.999])
ROWS_AT_ONCE = 2_000
FARTHEST = 3.0  # log units beyond the largest sale of a series at which a forecast has run away

Answer = Callable[[Singles], Floats]


@dataclass(frozen=True, slots=True)
class Lessons:
    """Rows to learn from: features, targets and where they come from."""

    names: tuple[str, ...]
    features_XK: Singles
    target_X: Floats
    base_X: Floats
    spread_X: Floats
    ahead_X: Ints
    step_X: Ints

    def rows(self, kept_X: Bools) -> Lessons:
        """Some of them."""
        return Lessons(
            self.names,
            self.features_XK[kept_X],
            self.target_X[kept_X],
            self.base_X[kept_X],
            self.spread_X[kept_X],
            self.ahead_X[kept_X],
            self.step_X[kept_X],
        )


# Trains on rows for one of the folds and gives what answers for others.
Train = Callable[[Lessons, int], Answer]


@dataclass(frozen=True, slots=True)
class Errors:
    """Quantiles of errors in log units, by expected sales, on the scale of a series' own spread.

    Attributes:
        expected_G: log of expected sales at the middle of each group.
        quantiles_GL: at the levels of the grid.
        usual_spread: the spread at which they hold.
        growth: by how much of itself an error grows over the whole horizon.
    """

    expected_G: Floats
    quantiles_GL: Floats
    usual_spread: float
    growth: float

    @classmethod
    def of(cls, error_X: Floats, expected_X: Floats, spread_X: Floats, share_X: Floats) -> Errors:
        """What errors on rows not learnt from look like; `share_X` is how far ahead, 0 to 1."""
        usual_spread = float(np.median(spread_X)) or 1.0
        unit = cls(np.zeros(1), np.zeros((1, 1)), usual_spread, _growth(np.abs(error_X), share_X))
        scaled_X = error_X / unit.scale(spread_X, share_X)
        # Rare sellers err by other shapes than brisk ones, so each group has its own quantiles.
        groups = max(1, min(GROUPS, len(error_X) // FEWEST_IN_GROUP))
        parts = np.array_split(np.argsort(expected_X, kind="stable"), groups)
        expected_G = np.array([np.median(expected_X[part]) for part in parts])
        quantiles_GL = np.stack([np.quantile(scaled_X[part], GRID_L) for part in parts])
        return cls(expected_G, quantiles_GL, usual_spread, unit.growth)

    def scale(self, spread: Floats, share: Floats) -> Floats:
        """How much larger than usual errors are, for a spread and a share of the horizon."""
        relative = np.maximum(spread, 1e-9) / self.usual_spread
        return np.clip(relative**SPREAD_POWER, *SPREADS) * (1 + self.growth * share)

    def at(self, expected_NH: Floats, levels: tuple[float, ...]) -> Floats:
        """Quantiles [N, H, Q] of the scaled error, linear between groups and between levels."""
        table_GQ = np.stack([np.interp(levels, GRID_L, row_L) for row_L in self.quantiles_GL])
        columns = [np.interp(expected_NH, self.expected_G, column_G) for column_G in table_GQ.T]
        return np.stack(columns, -1)


class FeatureLearner:
    """A baseline that learns from features of steps ahead, one model for all series.

    Args:
        name: in tables.
        train: gives a model for lessons; told which fold they are for.
    """

    needs_fit = True

    def __init__(self, name: str, train: Train) -> None:
        self.name = name
        self._train = train
        self._codes = Codes((), {})
        self._answers: list[Answer] = []
        self._errors: Errors | None = None

    def fit(self, window: Window) -> None:
        """Learn from origins all over the window's past; a short one leaves usual sales only."""
        past = Past.of(window)
        self._codes, self._answers, self._errors = Codes.of(window), [], None
        lessons = lessons_of(past, self._codes)
        if lessons is None:
            return
        folds_X = _folds(lessons.step_X, max(window.horizon, 4 * past.pace.week))
        answer_X = np.zeros(len(lessons.target_X))
        for fold in np.unique(folds_X):
            held_X = folds_X == fold
            if held_X.all():
                return
            answer = self._train(lessons.rows(~held_X), int(fold))
            answer_X[held_X] = answer(lessons.features_XK[held_X])
            self._answers.append(answer)
        share_X = lessons.ahead_X / window.horizon
        expected_X = lessons.base_X + answer_X
        self._errors = Errors.of(lessons.target_X - answer_X, expected_X, lessons.spread_X, share_X)

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        """Quantiles [N, H, Q], 0 on closed steps."""
        past = Past.of(window)
        parts = []
        for start in range(0, len(window), ROWS_AT_ONCE):
            rows = np.arange(start, min(start + ROWS_AT_ONCE, len(window)))
            parts.append(self._quantiles(past.rows(rows), levels))
        quantiles_NHQ = np.concatenate(parts)
        quantiles_NHQ[past.closed_NS[:, past.window.context_length :]] = 0.0
        return tidy(quantiles_NHQ, window)

    def _quantiles(self, past: Past, levels: tuple[float, ...]) -> Floats:
        seen = ahead(past, self._codes, past.window.context_length)
        expected_NH = seen.base_NH + self._answer(seen)
        share_H = np.arange(past.window.horizon) / past.window.horizon
        errors = self._errors or _normal_errors(float(np.median(seen.spread_N)))
        scale_NH = errors.scale(seen.spread_N[:, None], share_H)
        log_NHQ = expected_NH[..., None] + scale_NH[..., None] * errors.at(expected_NH, levels)
        largest_N = np.log1p(np.nan_to_num(past.window.target_NT).max(1, initial=0.0))
        return np.asarray(np.expm1(np.minimum(log_NHQ, largest_N[:, None, None] + FARTHEST)))

    def _answer(self, seen: Ahead) -> Floats:
        N, H, K = seen.features_NHK.shape
        answers = [answer(seen.features_NHK.reshape(N * H, K)) for answer in self._answers]
        return np.asarray(np.mean(answers, 0)).reshape(N, H) if answers else np.zeros((N, H))


def lessons_of(past: Past, codes: Codes, seed: int = 0) -> Lessons | None:
    """Rows from up to 18 origins, of other series at each; None where no horizon fits."""
    N, H = len(past.window), past.window.horizon
    origins = _origins(past)
    if not len(origins):
        return None
    random = np.random.default_rng(seed)
    per_origin = min(N, -(-MAX_ROWS // (H * len(origins))))
    seen = []
    for origin in origins:
        rows = np.sort(random.choice(N, per_origin, replace=False))
        seen.append(ahead(past.rows(rows), codes, origin))
    each_H = np.arange(H)
    names = seen[0].names
    step_X = np.concatenate([np.tile(origin + each_H, per_origin) for origin in origins])
    found = Lessons(
        names,
        np.concatenate([part.features_NHK.reshape(-1, len(names)) for part in seen]),
        np.concatenate([part.target_NH.ravel() for part in seen]),
        np.concatenate([part.base_NH.ravel() for part in seen]),
        np.concatenate([np.repeat(part.spread_N, H) for part in seen]),
        np.tile(each_H, per_origin * len(seen)),
        step_X,
    )
    usable_X = np.isfinite(found.target_X)
    return found.rows(usable_X) if usable_X.any() else None


def _origins(past: Past) -> range:
    """Cutoffs in the past from which a whole horizon can be learnt, the newest first."""
    T, H = past.window.context_length, past.window.horizon
    newest = T - H
    # Some history must lie before an origin, or there is nothing to tell a learner about it.
    first = max(1, min(past.pace.recent // 2, newest // 2))
    if past.window.resolution_ms <= DAY_MS:
        first = max(first, newest - TAUGHT_WEEKS * past.pace.week)
    if first > newest:
        return range(0)
    step = max(1, H // 2, -(-(newest - first + 1) // MAX_ORIGINS))
    return range(newest, first - 1, -step)


def _folds(step_X: Ints, block: int) -> Ints:
    """A fold for each row, by blocks of days, so that no day is both learnt from and judged.

    Rows of one day share its luck: spread over folds, they would make errors look too small.
    """
    from_start_X = step_X - step_X.min()
    block = max(1, min(block, int(from_start_X.max() + 1) // (2 * FOLDS)))
    return np.asarray(from_start_X // block % FOLDS)


def _growth(size_X: Floats, share_X: Floats) -> float:
    """By how much of itself an error grows over the whole horizon, at most twofold."""
    far_X = share_X >= 0.5
    near = size_X[~far_X].mean()
    if not near > 0:
        return 0.0
    far = size_X[far_X].mean() if far_X.any() else 0.0
    # The halves' middles lie half a horizon apart.
    return float(np.clip(2 * (far / near - 1), 0.0, 2.0))


def _normal_errors(usual_spread: float) -> Errors:
    """Normal errors of the size of the spread, for who has nothing learnt."""
    spread = usual_spread or 1.0
    scores_L = np.array([NormalDist().inv_cdf(level) for level in GRID_L])
    return Errors(np.zeros(1), spread * scores_L[None], spread, 0.0)
