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

from freshet.model.baselines.past import Past
from freshet.model.baselines.steps import Ahead, Codes, ahead
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
# A group has rows enough for its outer quantiles.
GROUPS = 10
FEWEST_IN_GROUP = 300
# Errors go with the root of a series' own spread, half way between all alike and each its own.
SPREAD_POWER = 0.5
SPREADS = (0.3, 3.0)
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
        growth = _growth(np.abs(error_X), share_X)
        # What the spread and the distance explain is taken out, so that errors can be pooled.
        scaled_X = error_X / _scale(spread_X, usual_spread, growth, share_X)
        # Rare sellers err by other shapes than brisk ones, so each group has its own quantiles.
        groups = max(1, min(GROUPS, len(error_X) // FEWEST_IN_GROUP))
        order_X = np.argsort(expected_X, kind="stable")
        parts = np.array_split(order_X, groups)
        expected_G = np.array([np.median(expected_X[part]) for part in parts])
        quantiles_GL = np.stack([np.quantile(scaled_X[part], GRID_L) for part in parts])
        return cls(expected_G, quantiles_GL, usual_spread, growth)

    def scale(self, spread: Floats, share: Floats) -> Floats:
        """How much larger than usual errors are, for a spread and a share of the horizon."""
        return _scale(spread, self.usual_spread, self.growth, share)

    def at(self, expected_NH: Floats, levels: tuple[float, ...]) -> Floats:
        """Quantiles [N, H, Q] of the scaled error, linear between groups and between levels."""
        rows = [np.interp(levels, GRID_L, row_L) for row_L in self.quantiles_GL]
        table_GQ = np.stack(rows)
        columns = []
        for group_G in table_GQ.T:
            columns.append(np.interp(expected_NH, self.expected_G, group_G))
        return np.stack(columns, -1)


def _scale(spread: Floats, usual_spread: float, growth: float, share: Floats) -> Floats:
    relative = np.maximum(spread, 1e-9) / usual_spread
    by_spread = np.clip(relative**SPREAD_POWER, *SPREADS)
    by_distance = 1 + growth * share
    return np.asarray(by_spread * by_distance)


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
        self._codes = Codes.of(window)
        self._answers = []
        self._errors = None
        lessons = lessons_of(past, self._codes)
        if lessons is None:
            return
        # Blocks at least as long as a horizon, so that few forecasts reach into the next one.
        block = max(window.horizon, 4 * past.pace.week)
        folds_X = _folds(lessons.step_X, block)
        answer_X = np.zeros(len(lessons.target_X))
        for fold in np.unique(folds_X):
            held_X = folds_X == fold
            if held_X.all():
                return
            answer = self._train(lessons.rows(~held_X), int(fold))
            answer_X[held_X] = answer(lessons.features_XK[held_X])
            self._answers.append(answer)
        # Each row was answered by a model that had not seen its block: honest errors.
        error_X = lessons.target_X - answer_X
        expected_X = lessons.base_X + answer_X
        share_X = lessons.ahead_X / window.horizon
        self._errors = Errors.of(error_X, expected_X, lessons.spread_X, share_X)

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        """Quantiles [N, H, Q], 0 on closed steps."""
        past = Past.of(window)
        parts = []
        for start in range(0, len(window), ROWS_AT_ONCE):
            end = min(start + ROWS_AT_ONCE, len(window))
            some = past.rows(np.arange(start, end))
            parts.append(self._quantiles(some, levels))
        quantiles_NHQ = np.concatenate(parts)
        closed_NH = past.closed_NS[:, past.window.context_length :]
        quantiles_NHQ[closed_NH] = 0.0
        return tidy(quantiles_NHQ, window)

    def _quantiles(self, past: Past, levels: tuple[float, ...]) -> Floats:
        seen = ahead(past, self._codes, past.window.context_length)
        expected_NH = seen.base_NH + self._answer(seen)
        horizon = past.window.horizon
        share_H = np.arange(horizon) / horizon
        errors = self._errors or _normal_errors(float(np.median(seen.spread_N)))
        scale_NH = errors.scale(seen.spread_N[:, None], share_H)
        error_NHQ = scale_NH[..., None] * errors.at(expected_NH, levels)
        log_NHQ = expected_NH[..., None] + error_NHQ
        # Back in units a forecast that has run away would decide every mean: it is stopped.
        largest_N = np.nan_to_num(past.window.target_NT).max(1, initial=0.0)
        most_N11 = np.log1p(largest_N)[:, None, None] + FARTHEST
        return np.asarray(np.expm1(np.minimum(log_NHQ, most_N11)))

    def _answer(self, seen: Ahead) -> Floats:
        """The mean of what the models say: [N, H], 0 where there are none."""
        N, H, K = seen.features_NHK.shape
        if not self._answers:
            return np.zeros((N, H))
        features_XK = seen.features_NHK.reshape(N * H, K)
        answers = [answer(features_XK) for answer in self._answers]
        mean_X = np.asarray(np.mean(answers, 0))
        return mean_X.reshape(N, H)


def lessons_of(past: Past, codes: Codes, seed: int = 0) -> Lessons | None:
    """Rows from up to 18 origins, of other series at each; None where no horizon fits."""
    N = len(past.window)
    H = past.window.horizon
    origins = _origins(past)
    if not len(origins):
        return None
    # Other series at each origin: as many dates as can be, since series share a day's luck.
    random = np.random.default_rng(seed)
    wanted = -(-MAX_ROWS // (H * len(origins)))
    per_origin = min(N, wanted)
    seen = []
    steps = []
    each_H = np.arange(H)
    for origin in origins:
        some = random.choice(N, per_origin, replace=False)
        seen.append(ahead(past.rows(np.sort(some)), codes, origin))
        steps.append(np.tile(origin + each_H, per_origin))
    num_features = len(seen[0].names)
    found = Lessons(
        names=seen[0].names,
        features_XK=np.concatenate([part.features_NHK.reshape(-1, num_features) for part in seen]),
        target_X=np.concatenate([part.target_NH.ravel() for part in seen]),
        base_X=np.concatenate([part.base_NH.ravel() for part in seen]),
        spread_X=np.concatenate([np.repeat(part.spread_N, H) for part in seen]),
        ahead_X=np.tile(each_H, per_origin * len(seen)),
        step_X=np.concatenate(steps),
    )
    usable_X = np.isfinite(found.target_X)
    return found.rows(usable_X) if usable_X.any() else None


def _origins(past: Past) -> range:
    """Cutoffs in the past from which a whole horizon can be learnt, the newest first."""
    H = past.window.horizon
    newest = past.window.context_length - H
    # Some history must lie before an origin, or there is nothing to tell a learner about it.
    first = max(1, min(past.pace.recent // 2, newest // 2))
    if past.window.resolution_ms <= DAY_MS:
        first = max(first, newest - TAUGHT_WEEKS * past.pace.week)
    if first > newest:
        return range(0)
    # Half a horizon apart at least: nearer origins would teach the same days again.
    room = newest - first + 1
    step = max(1, H // 2, -(-room // MAX_ORIGINS))
    return range(newest, first - 1, -step)


def _folds(step_X: Ints, block: int) -> Ints:
    """A fold for each row, by blocks of days, so that no day is both learnt from and judged.

    Rows of one day share its luck: spread over folds, they would make errors look too small.
    """
    from_start_X = step_X - step_X.min()
    span = int(from_start_X.max()) + 1
    # Two blocks a fold at least, or one would be the newest season alone.
    block = max(1, min(block, span // (2 * FOLDS)))
    block_X = from_start_X // block
    return np.asarray(block_X % FOLDS)


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
    return Errors(
        expected_G=np.zeros(1),
        quantiles_GL=spread * scores_L[None],
        usual_spread=spread,
        growth=0.0,
    )
