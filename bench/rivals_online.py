"""Models that learn online from each day's sales, and either move a forecast or make one anew.

Each is asked at midnight for the day that begins, and is taught each day once its sales are final;
the day's last hour never is by the midnight after it, so that nobody learns it.

Dimensions: N items, T context, H steps, Q quantile levels, F frequencies in, G frequencies out,
K features, X rows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from freshet.model.baselines.learner import FeatureLearner
from freshet.model.baselines.lightgbm import make as make_lightgbm
from freshet.model.tables.panel import Window
from freshet.online.drift.score import mean_pinball
from freshet.stream.arrays import Floats, Ints
from freshet.stream.schemas import WIRE_LEVELS
from freshet.stream.units import HOUR_MS

LEVELS_Q = np.array(WIRE_LEVELS)
Spectra = NDArray[np.complex128]
DAY, WEEK = 24, 168
MOST = 5.0  # a forecast is moved by so many times at most


@dataclass(frozen=True, slots=True)
class Midnight:
    """What everybody knows at the midnight of a day.

    Attributes:
        first_ms: Start of the first hour of the context.
        past_NT: Sales of the hours before it; NaN where nothing is known.
        base_NHQ: What the shipped weights forecast.
        promoted_NS: Where promotions were known, over context and horizon.
        segment_N: The category of each item.
    """

    day: int
    first_ms: int
    past_NT: Floats
    base_NHQ: Floats
    promoted_NS: Floats
    segment_N: Ints


class Rival(Protocol):
    """One that takes part."""

    name: str
    every: int
    """Asked at each so manieth midnight, for time's sake; what it learns is not less."""

    def learn(self, then: Midnight, actual_NH: Floats) -> None:
        """Take in what became of a midnight that was met before; NaN where not final."""

    def forecast(self, now: Midnight) -> Floats:
        """Quantiles of the day that begins: [N, H, Q]."""


def scaled(base_NHQ: Floats, factor: Floats) -> Floats:
    """A forecast moved by factors that are held within bounds."""
    return base_NHQ * np.clip(factor, 1 / MOST, MOST)[..., None]


def middle(base_NHQ: Floats) -> Floats:
    """The mean of a forecast, by its quantiles: [N, H]."""
    # Each level stands for the probability half way to its neighbours.
    edges = np.concatenate([[0.0], (LEVELS_Q[1:] + LEVELS_Q[:-1]) / 2, [1.0]])
    return np.asarray(base_NHQ @ np.diff(edges))


@dataclass
class FactorHead:
    """A factor of each segment's hours: what it sold lately over what was forecast of it.

    Both sums forget by half in `half_life` days, and `prior` units stand beside both.
    """

    half_life: float = 2.0
    prior: float = 20.0
    name: str = "factor head"
    every: int = 1
    sums: dict[int, Floats] = field(default_factory=dict)

    def learn(self, then: Midnight, actual_NH: Floats) -> None:
        """Add a day to the sums of each segment's hours: [2, H]."""
        expected_NH = np.where(np.isfinite(actual_NH), middle(then.base_NHQ), 0.0)
        sold_NH = np.nan_to_num(actual_NH)
        keep = 0.5 ** (1 / self.half_life)
        for segment in np.unique(then.segment_N):
            rows = then.segment_N == segment
            day_2H = np.stack([sold_NH[rows].sum(0), expected_NH[rows].sum(0)])
            before_2H = self.sums.get(segment, np.zeros_like(day_2H))
            self.sums[segment] = keep * before_2H + day_2H

    def forecast(self, now: Midnight) -> Floats:
        """The base's, moved."""
        factor_NH = np.ones(now.base_NHQ.shape[:2])
        for segment, (sold_H, expected_H) in self.sums.items():
            whole = (sold_H.sum() + self.prior) / (expected_H.sum() + self.prior)
            # An hour is drawn towards its day, of which more is known.
            hourly_H = (sold_H + self.prior * whole) / (expected_H + self.prior)
            factor_NH[now.segment_N == segment] = hourly_H
        return scaled(now.base_NHQ, factor_NH)


@dataclass
class Ridge:
    """Least squares of rows that come day by day, drawn to nothing by `penalty`.

    What is known is multiplied by `forget` before each day's rows are added.
    """

    penalty: float
    forget: float = 1.0
    products: NDArray[Any] | None = None
    targets: NDArray[Any] | None = None

    def add(self, weighted: NDArray[Any], seen: NDArray[Any], wanted: NDArray[Any]) -> None:
        """Take in a day's rows; `weighted` are those seen, each times its weight."""
        products, targets = weighted.conj().T @ seen, weighted.conj().T @ wanted
        if self.products is not None and self.targets is not None:
            products = products + self.forget * self.products
            targets = targets + self.forget * self.targets
        self.products, self.targets = products, targets

    def solution(self) -> NDArray[Any] | None:
        """The weights; None before the first day."""
        if self.products is None or self.targets is None:
            return None
        penalty = self.penalty * np.eye(len(self.products))
        return np.asarray(np.linalg.solve(self.products + penalty, self.targets))


@dataclass
class LinearHead:
    """Recursive least squares on the logarithm of what was sold over what was forecast.

    Features are what the newest days sold over their forecasts, of the segment and of the item,
    and the hour; each row weighs as many units as were forecast.
    """

    name: str = "linear head"
    every: int = 1
    sums: Ridge = field(default_factory=lambda: Ridge(penalty=200.0, forget=0.95))
    days: deque[tuple[Floats, Floats]] = field(default_factory=lambda: deque(maxlen=7))

    def learn(self, then: Midnight, actual_NH: Floats) -> None:
        """One step of the recursion; what it then knew is what it will know."""
        features_NHK = self._features(then)
        expected_NH = middle(then.base_NHQ)
        known_NH = np.isfinite(actual_NH)
        sold_NH = np.nan_to_num(actual_NH)
        features_XK = features_NHK[known_NH]
        weight_X = expected_NH[known_NH]
        # A ratio of single counts is noise: half a unit stands beside both.
        ratio_X = np.log((sold_NH[known_NH] + 0.5) / (weight_X + 0.5))
        self.sums.add(features_XK * weight_X[:, None], features_XK, ratio_X)
        self.days.append((sold_NH, np.where(known_NH, expected_NH, 0.0)))

    def forecast(self, now: Midnight) -> Floats:
        """The base's, moved."""
        weights_K = self.sums.solution()
        if weights_K is None:
            return now.base_NHQ
        return scaled(now.base_NHQ, np.exp(self._features(now) @ weights_K))

    def _features(self, now: Midnight) -> Floats:
        N, H = now.base_NHQ.shape[:2]
        columns = [np.ones((N, H))]
        for span in (1, 7):
            days = list(self.days)[-span:]
            sold_NH = sum((day[0] for day in days), np.zeros((N, H)))
            expected_NH = sum((day[1] for day in days), np.zeros((N, H)))
            item_N = _log_ratio(sold_NH.sum(1), expected_NH.sum(1))
            columns.append(np.repeat(item_N[:, None], H, 1))
            segment_NH = np.zeros((N, H))
            for segment in np.unique(now.segment_N):
                rows = now.segment_N == segment
                segment_NH[rows] = _log_ratio(sold_NH[rows].sum(0), expected_NH[rows].sum(0))
            columns.append(segment_NH)
        return np.stack(columns, -1)


def _log_ratio(sold: Floats, expected: Floats, prior: float = 5.0) -> Floats:
    return np.log((sold + prior) / (expected + prior))


@dataclass
class Frequencies:
    """A linear map from the spectrum of the past to that of the day, mixed with the base.

    After ELF (Lee et al. 2025, "Lightweight Online Adaption for Time Series Foundation Model
    Forecasts"): ridge regression in the frequency domain, fitted anew as days come, and two
    weights, one of the newest days and one of all, that follow past losses exponentially.
    """

    context: int = 504
    kept: int = 130
    rate: float = 2.0
    name: str = "frequencies"
    every: int = 1
    sums: Ridge = field(default_factory=lambda: Ridge(penalty=20.0))
    weights_FG: Spectra | None = None
    lost: deque[tuple[float, float]] = field(default_factory=deque)

    def learn(self, then: Midnight, actual_NH: Floats) -> None:
        """Losses first, of what was forecast before this day was learnt."""
        known_NH = np.isfinite(actual_NH)
        sold_NH = np.where(known_NH, actual_NH, middle(then.base_NHQ))
        if self.weights_FG is not None:
            own_NHQ = scaled(then.base_NHQ, self._factor(then))
            self.lost.append((_loss(sold_NH, then.base_NHQ), _loss(sold_NH, own_NHQ)))
        seen_NF, loc_N1, scale_N1 = self._spectrum(then)
        wanted_NG = np.fft.rfft((sold_NH - loc_N1) / scale_N1, axis=1)
        self.sums.add(seen_NF, seen_NF, wanted_NG)
        self.weights_FG = self.sums.solution()

    def forecast(self, now: Midnight) -> Floats:
        """Base and own, by what each has lost."""
        if self.weights_FG is None or not self.lost:
            return now.base_NHQ
        shares = [self._share(list(self.lost)[-days:]) for days in (5, len(self.lost))]
        factor_NH = self._factor(now)
        share = float(np.mean(shares))
        return scaled(now.base_NHQ, 1 - share + share * factor_NH)

    def _share(self, lost: list[tuple[float, float]]) -> float:
        base, own = np.sum(lost, axis=0)
        return float(1 / (1 + np.exp(self.rate * len(lost) * (own - base) / base)))

    def _factor(self, now: Midnight) -> Floats:
        assert self.weights_FG is not None
        seen_NF, loc_N1, scale_N1 = self._spectrum(now)
        hours = now.base_NHQ.shape[1]
        own_NH = np.fft.irfft(seen_NF @ self.weights_FG, hours, axis=1) * scale_N1 + loc_N1
        expected_NH = middle(now.base_NHQ)
        factor_NH = np.maximum(own_NH, 0.0) / np.maximum(expected_NH, 1e-3)
        return np.clip(factor_NH, 1 / MOST, MOST)

    def _spectrum(self, now: Midnight) -> tuple[Spectra, Floats, Floats]:
        past_NT = np.nan_to_num(now.past_NT[:, -self.context :])
        loc_N1 = past_NT.mean(1, keepdims=True)
        scale_N1 = np.maximum(past_NT.std(1, keepdims=True), 0.1)
        # Before the first hour that is known all is as usual.
        missing = self.context - past_NT.shape[1]
        plain_NT = np.pad((past_NT - loc_N1) / scale_N1, ((0, 0), (missing, 0)))
        seen_NF = np.fft.rfft(plain_NT, axis=1)[:, : self.kept]
        return seen_NF / np.sqrt(self.context), loc_N1, scale_N1


def _loss(sold_NH: Floats, quantiles_NHQ: Floats) -> float:
    quantiles_XQ = quantiles_NHQ.reshape(-1, len(LEVELS_Q))
    return float(mean_pinball(sold_NH.ravel(), quantiles_XQ, LEVELS_Q).sum())


@dataclass
class RiverSnarimax:
    """River's SNARIMAX, one an item, taught hour by hour; errors of each step make its quantiles.

    Attributes:
        errors: Of the newest 20 days: [N, H].
    """

    name: str = "River's SNARIMAX"
    every: int = 1
    models: list[Any] = field(default_factory=list)
    largest_N: Floats = field(default_factory=lambda: np.zeros(0))
    errors: deque[Floats] = field(default_factory=lambda: deque(maxlen=20))

    def learn(self, then: Midnight, actual_NH: Floats) -> None:
        """Each item's model learns its day; the hour that is not final is missing."""
        if not self.models:
            self._begin(then)
        self.errors.append(actual_NH - self._point(actual_NH.shape[1]))
        for row, model in enumerate(self.models):
            for sold in actual_NH[row]:
                if np.isfinite(sold):
                    model.learn_one(float(sold / self.largest_N[row]))

    def _begin(self, then: Midnight) -> None:
        from river.linear_model import LinearRegression
        from river.optim import Adam
        from river.time_series import SNARIMAX

        past_NT = np.nan_to_num(then.past_NT)
        self.largest_N = np.maximum(past_NT.max(1), 1.0)
        for row, past_T in enumerate(past_NT):
            model = SNARIMAX(p=1, d=0, q=0, m=DAY, sp=7, regressor=LinearRegression(Adam(0.01)))
            for sold in past_T:
                model.learn_one(float(sold / self.largest_N[row]))
            self.models.append(model)

    def forecast(self, now: Midnight) -> Floats:
        """Its own, with the quantiles of past errors."""
        point_NH = self._point(now.base_NHQ.shape[1])
        errors_DNH = np.stack(self.errors)
        # Of an hour that is never final the hour before it tells.
        errors_DNH[..., -1] = errors_DNH[..., -2]
        # An item that was sold out at an hour of all these days has no error there.
        errors_DNH = np.nan_to_num(errors_DNH)
        error_NHQ = np.moveaxis(np.quantile(errors_DNH, LEVELS_Q, axis=0), 0, -1)
        return np.sort(np.maximum(point_NH[..., None] + error_NHQ, 0.0), -1)

    def _point(self, hours: int) -> Floats:
        ahead_NH = np.array([model.forecast(horizon=hours) for model in self.models])
        return np.clip(np.nan_to_num(ahead_NH), 0.0, 3.0) * self.largest_N[:, None]


@dataclass
class Trees:
    """LightGBM on features of steps ahead, trained anew on all that is known each time."""

    name: str = "LightGBM each night"
    every: int = 3

    def learn(self, then: Midnight, actual_NH: Floats) -> None:
        """It is trained when it is asked."""

    def forecast(self, now: Midnight) -> Floats:
        """Its own."""
        learner: FeatureLearner = make_lightgbm("lightgbm")
        window = window_of(now)
        # The newest hour is not final.
        final_NT = window.target_NT.copy()
        final_NT[:, -1] = np.nan
        learner.fit(replace(window, target_NT=final_NT))
        return learner.predict(window, WIRE_LEVELS)


def window_of(now: Midnight) -> Window:
    """What a model of tables is given."""
    N, S = now.promoted_NS.shape
    time_ms_S = now.first_ms + np.arange(S) * HOUR_MS
    return Window(
        item_ids=tuple(f"item{row}" for row in range(N)),
        frequency="h",
        resolution_ms=HOUR_MS,
        season_length=WEEK,
        time_ms_NS=np.broadcast_to(time_ms_S, (N, S)).copy(),
        target_NT=now.past_NT.astype(np.float64),
        known_NSK=now.promoted_NS.astype(np.float64)[..., None],
        past_NTP=np.zeros((N, now.past_NT.shape[1], 0)),
        known_names=("promotion",),
        past_names=(),
        static={"segment": now.segment_N.astype(np.float64)},
    )


def all_rivals() -> list[Rival]:
    """Those that take part, fresh."""
    return [FactorHead(), LinearHead(), Frequencies(), RiverSnarimax(), Trees()]
