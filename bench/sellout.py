"""When a flash sale's stock is gone: the interval of the minute forecasts, held against the truth.

Each sale is drawn from its own seed: hours of ordinary demand by the minute with a daily pattern,
then a sale that ramps up, fades, and has a burst now and then. Some way into it the shipped weights
forecast two hours of minutes, as a worker does, and `estimate_sell_out` says between when and when
(10 to 90 %) the stock will be gone. Beside it stand intervals of a constant pace, that of the sale
so far. Constants were chosen on the seeds of `CHOSEN_ON`; `REPORTED` and `MORE` are others.
Run: python -m bench.sellout [--weights DIR]

Dimensions: B sales, T minutes of context, H minutes ahead, S = T + H, Q levels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from scipy import stats

from bench.report import write_result
from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, Batch
from freshet.model.forecaster import BatchForecaster
from freshet.model.text import static_features
from freshet.online.forecast.publish import significant, wire_columns
from freshet.online.forecast.sums import StepSums
from freshet.stream.arrays import Floats
from freshet.stream.catalog import flashsale
from freshet.stream.catalog.flashsale import Outlook, estimate_sell_out
from freshet.stream.schemas import WIRE_LEVELS, Cumulative
from freshet.stream.settings import BY_MINUTE
from freshet.stream.units import DAY_MS, MINUTE_MS

CHOSEN_ON = range(1_000, 1_400)
REPORTED = range(40)
MORE = range(2_000, 2_400)  # the same again, for a figure that chance moves less
CONTEXT = BY_MINUTE.context_length
AHEAD = BY_MINUTE.prediction_length
MONDAY_MS = 1_773_014_400_000  # 9 March 2026, 00:00 UTC
LOW, HIGH = 0.1, 0.9
WIDTHS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)


@dataclass(frozen=True, slots=True)
class Sale:
    """One sale: what was sold each minute of context and horizon, and what was left at the cutoff.

    Attributes:
        units_S: Demand, whether or not there was stock.
        begun: Minutes of the sale before the cutoff.
        discount: Of the sale, as a share.
        left: Units in stock at the cutoff.
        start_ms: Of the first minute of context.
    """

    units_S: Floats
    begun: int
    discount: float
    left: float
    start_ms: int

    @property
    def sold_out(self) -> float:
        """After how many minutes from the cutoff on the stock is gone; inf beyond the horizon."""
        demand_H = self.units_S[CONTEXT:].cumsum()
        gone = np.flatnonzero(demand_H >= self.left)
        if not len(gone):
            return float("inf")
        step = int(gone[0])
        before = demand_H[step - 1] if step else 0.0
        return step + float((self.left - before) / (demand_H[step] - before))


def sale_of(seed: int) -> Sale:
    """The sale of a seed."""
    random = np.random.default_rng([seed, 77])
    minutes = np.arange(CONTEXT + AHEAD)
    begun = int(random.integers(15, 61))
    start = CONTEXT - begun
    # Between nine in the morning and seven in the evening.
    opens_ms = MONDAY_MS + int(random.integers(7)) * DAY_MS
    cutoff_ms = opens_ms + int(random.integers(9 * 60, 19 * 60)) * MINUTE_MS
    start_ms = cutoff_ms - CONTEXT * MINUTE_MS

    base = float(np.exp(random.uniform(np.log(0.3), np.log(6.0))))
    of_day = ((start_ms + minutes * MINUTE_MS) % DAY_MS) / DAY_MS * 24
    pattern = 0.15 + np.exp(-((of_day - 12.5) ** 2) / 14) + 1.2 * np.exp(-((of_day - 20) ** 2) / 8)
    discount = float(random.uniform(0.15, 0.5))
    lift = 1.0 + discount * random.uniform(5.0, 16.0)
    since = np.maximum(minutes - start, 0.0)
    ramp = 1.0 - np.exp(-since / random.uniform(2.0, 12.0))
    fade = 0.4 + 0.6 * np.exp(-since / random.uniform(40.0, 240.0))
    sale = np.where(minutes >= start, 1.0 + (lift - 1.0) * ramp * fade, 1.0)
    rate = base * pattern * sale * _bursts(random, minutes, start) * _mood(random, len(minutes))
    # Orders of several pieces now and then.
    orders = random.poisson(rate / 1.3)
    units_S = (orders + random.binomial(orders, 0.3)).astype(np.float64)

    # So much that it lasts some 10 to 100 minutes at the rate that really comes.
    lasts = int(random.integers(10, 101))
    left = max(1.0, float(np.round(rate[CONTEXT : CONTEXT + lasts].sum())))
    return Sale(units_S, begun, discount, left, start_ms)


def _bursts(random: Any, minutes: Any, start: int) -> Floats:
    """Mails and mentions within the sale: each half as much again, or more, for a while."""
    found = np.ones(len(minutes))
    for _ in range(int(random.poisson(1.0))):
        at = start + random.uniform(0.0, len(minutes) - start)
        height, length = random.uniform(0.4, 1.6), random.uniform(5.0, 20.0)
        since = minutes - at
        found += np.where(since >= 0, height * np.exp(-np.maximum(since, 0.0) / length), 0.0)
    return found


def _mood(random: Any, length: int) -> Floats:
    """What no pattern knows: a level that drifts, in some sales twice as far as in others."""
    steps = random.normal(0.0, random.uniform(0.02, 0.06), length)
    level = np.zeros(length)
    for minute in range(1, length):
        level[minute] = 0.985 * level[minute - 1] + steps[minute]
    return np.exp(level)


# The forecast -------------------------------------------------------------------------------------


def batch_of(sales: Sequence[Sale], ends: int = CONTEXT) -> Batch:
    """What a worker would see at the minute `ends` of each sale."""
    B, S = len(sales), CONTEXT + AHEAD
    target_BT = torch.full((B, CONTEXT), torch.nan)
    known_BSK = torch.full((B, S, len(KNOWN_SLOTS)), torch.nan)
    known_BSK[..., :3] = torch.tensor([1.0, 0.0, 0.0])
    first = CONTEXT - ends
    for row, sale in enumerate(sales):
        target_BT[row, first:] = torch.from_numpy(sale.units_S[:ends])
        begins = CONTEXT - sale.begun + first
        known_BSK[row, begins:, 1] = 1.0
        known_BSK[row, begins:, 2] = sale.discount
    past_BTP = torch.full((B, CONTEXT, len(PAST_SLOTS)), torch.nan)
    unknown = np.full(B, np.nan)
    starts_ms = [sale.start_ms - first * MINUTE_MS for sale in sales]
    return Batch(
        target_BT=target_BT,
        past_BTP=past_BTP,
        known_BSK=known_BSK,
        static_BF=torch.from_numpy(static_features([""] * B, unknown, unknown)),
        start_ms_B=torch.tensor(starts_ms, dtype=torch.int64),
        resolution_ms=MINUTE_MS,
    )


def outlooks(forecaster: BatchForecaster, sales: Sequence[Sale]) -> list[Outlook]:
    """The forecasts of the sales as records say them: nine levels, four digits, sums."""
    batch = batch_of(sales)
    quantiles_BHQ = forecaster.forecast(batch).cpu()
    sums = StepSums(MINUTE_MS, AHEAD)
    sums_BKQ = sums.quantiles(batch.target_BT, quantiles_BHQ, forecaster.quantile_levels)
    columns = wire_columns(forecaster.quantile_levels)
    steps_BHW = significant(quantiles_BHQ[..., columns].double().numpy())
    sums_BKW = significant(sums_BKQ[..., columns].double().numpy())
    edges_ms = [step * MINUTE_MS for step in range(AHEAD + 1)]
    return [
        Outlook(
            list(WIRE_LEVELS),
            steps_BHW[row],
            edges_ms,
            Cumulative(steps=sums.steps, quantiles=sums_BKW[row].tolist()),
        )
        for row in range(len(sales))
    ]


Interval = tuple[float, float]
"""Minutes from the cutoff at which the stock is gone with 10 and with 90 %; inf: beyond them."""


def forecast_interval(outlook: Outlook, sale: Sale) -> Interval:
    """By the forecast."""
    found = estimate_sell_out(outlook, on_hand=sale.left, now_ms=0, ends_at_ms=AHEAD * MINUTE_MS)
    early, late = found.eta_ms_p10, found.eta_ms_p90
    return (
        float("inf") if early is None else early / MINUTE_MS,
        float("inf") if late is None else late / MINUTE_MS,
    )


# A constant pace ----------------------------------------------------------------------------------


def poisson_interval(sale: Sale) -> Interval:
    """The pace of the sale so far goes on, and chance is all there is."""
    pace = max(_so_far(sale).mean(), 1e-9)
    low, high = stats.gamma(sale.left, scale=1.0 / pace).ppf([LOW, HIGH])
    return float(low), float(high)


def negative_binomial_interval(sale: Sale, wider: float = 1.0) -> Interval:
    """The same, with a pace that is as unsure as minutes so far differ more than by chance.

    It is one number for all that comes, gamma distributed: units within a time are then negative
    binomial. `wider` multiplies the pace's variance.
    """
    units = _so_far(sale)
    mean = max(float(units.mean()), 1e-9)
    excess = max(float(units.var(ddof=1)) - mean, 0.0) / mean**2 + 1.0 / max(units.sum(), 1.0)
    shape = 1.0 / (excess * wider)
    minutes = np.linspace(0.0, 20.0 * AHEAD, 4_801)[1:]
    # Gone by t: at least `left` units within it.
    gone = stats.nbinom.sf(sale.left - 1, shape, shape / (shape + mean * minutes))
    low, high = np.interp([LOW, HIGH], gone, minutes, right=np.inf)
    return float(low), float(high)


def _so_far(sale: Sale) -> Floats:
    return sale.units_S[CONTEXT - sale.begun : CONTEXT]


# Judging ------------------------------------------------------------------------------------------


def judge(sales: Sequence[Sale], intervals: Sequence[Interval]) -> dict[str, float]:
    """How often intervals hold the truth, how wide they are within the horizon, and their score.

    The score is Winkler's: the width, and ten minutes for each minute that the truth lies outside
    (2 / .2). All is cut off at the horizon, and so is the truth.
    """
    truth = np.minimum([sale.sold_out for sale in sales], AHEAD)
    low, high = np.minimum(np.array(intervals), AHEAD).T
    inside = (truth >= low - 0.5) & (truth <= high + 0.5)
    width = high - low
    outside = np.maximum(low - truth, 0.0) + np.maximum(truth - high, 0.0)
    return {
        "coverage": round(float(inside.mean()), 3),
        "below": round(float((truth < low - 0.5).mean()), 3),
        "above": round(float((truth > high + 0.5).mean()), 3),
        "mean_width_minutes": round(float(width.mean()), 2),
        "interval_score": round(float((width + 10.0 * outside).mean()), 2),
    }


def calibrated(sales: Sequence[Sale], target: float) -> float:
    """By how much the pace's variance is multiplied so that its interval covers the target."""
    factors = np.geomspace(0.01, 4.0, 60)
    covers = [
        judge(sales, [negative_binomial_interval(sale, wider) for sale in sales])["coverage"]
        for wider in factors
    ]
    enough = [factor for factor, cover in zip(factors, covers, strict=True) if cover >= target]
    return float(min(enough, default=factors[-1]))


def by_width(forecaster: BatchForecaster, sales: Sequence[Sale]) -> dict[str, dict[str, float]]:
    """The forecasts' intervals by `SHORT_STEP_WIDTH`, which is chosen from these."""
    found, judged = outlooks(forecaster, sales), {}
    for width in WIDTHS:
        with mock.patch.object(flashsale, "SHORT_STEP_WIDTH", width):
            intervals = [forecast_interval(*pair) for pair in zip(found, sales, strict=True)]
        judged[f"{width:g}"] = judge(sales, intervals)
        print("width", width, judged[f"{width:g}"])
    return judged


def run(forecaster: BatchForecaster, seeds: Sequence[int], wider: float) -> dict[str, Any]:
    """All intervals of some seeds."""
    sales = [sale_of(seed) for seed in seeds]
    found = outlooks(forecaster, sales)
    ways: dict[str, Callable[[int], Interval]] = {
        "minute_forecasts": lambda row: forecast_interval(found[row], sales[row]),
        "constant_pace_poisson": lambda row: poisson_interval(sales[row]),
        "constant_pace_negative_binomial": lambda row: negative_binomial_interval(sales[row]),
        "constant_pace_calibrated": lambda row: negative_binomial_interval(sales[row], wider),
    }
    result: dict[str, Any] = {
        name: judge(sales, [way(row) for row in range(len(sales))]) for name, way in ways.items()
    }
    return {"sold_out_within_horizon": sum(s.sold_out < AHEAD for s in sales)} | result


def main() -> None:
    """Measure, print and write bench/results/sellout.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    forecaster = BatchForecaster.from_pretrained(arguments.weights, device="cpu", dtype="float32")
    chosen = [sale_of(seed) for seed in CHOSEN_ON]
    wider = calibrated(chosen, 0.8)
    widths = by_width(forecaster, chosen)
    numbers = {
        "what": "minutes at which a simulated flash sale is sold out, 10 to 90 % interval, against "
        "the truth; both cut off at the horizon",
        "horizon_minutes": AHEAD,
        "weights_sha256": forecaster.sha256,
        "calibrated_variance_factor": round(wider, 4),
        "chosen_on_by_width_of_sums": widths,
        "chosen_on": {"seeds": [CHOSEN_ON[0], CHOSEN_ON[-1]]} | run(forecaster, CHOSEN_ON, wider),
        "reported": {"seeds": [REPORTED[0], REPORTED[-1]]} | run(forecaster, REPORTED, wider),
        "more": {"seeds": [MORE[0], MORE[-1]]} | run(forecaster, MORE, wider),
    }
    for part in ("chosen_on", "reported", "more"):
        for name, value in numbers[part].items():  # type: ignore[attr-defined]
            print(part, name, value)
    print(write_result("sellout", numbers, ["numpy", "scipy", "torch"]))


if __name__ == "__main__":
    main()
