"""What base weights' 80 % intervals hold, and what is gained by serving other levels of theirs.

Shops by the hour as in `bench.base_scores`, seven weeks each: every hour is a cutoff, and what is
scored of a bucket are the forecasts made 1, 3, 6, 12 and 24 hours before its end. Day after day
maps are learnt and chosen by the owner's own code, and what is forecast from the fourth hour of the
next day on is served by them; the first two weeks are not reported. Coverage is that of PITs which
chance spreads over a count's probability: closed intervals of counts hold more, however right the
forecasts are.

The same with quantiles that were drawn together to .7 of their distance from the median, or apart
to 1.4, says what happens to weights that err.

Constants of `online/adjust/evidence.py` were chosen on `online_retail` and `demo_1`.

Dimensions: N items, L hours, K scored steps, Q levels of the network, W wire levels, R of all.

Run: FRESHET_DATA=... python -m bench.calibration [--forecast NAME WEEK]   (an hour on one core)
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.base_scores import NAMES, STEPS, World, quantiles, simulated, world
from bench.report import write_result
from freshet.model.batch import QUANTILE_LEVELS
from freshet.model.forecaster import BatchForecaster
from freshet.online.adjust.evidence import SHOP, Evidence, saving
from freshet.online.adjust.levels import UPPER, WIRE_W, served
from freshet.online.drift.score import mean_pinball, place
from freshet.online.owner.calibrating import VOLUMES
from freshet.stream.arrays import Bools, Floats, Ints, Singles

CACHE = Path("build/calibration")
WEEKS, WEEK, DAY = 7, 7 * 24, 24
WEEKS_BACK = 12  # from the last hour that is known, the first of them begins
SOURCES = NAMES[:4]
CHOSEN = ("online_retail", "demo_1")
UNREPORTED_DAYS = 14
# The first bucket of a day is scored in its third hour at the earliest.
HOLDS_FROM = 4
WIDTHS = (1.0, 0.7, 1.4)
WIRE_COLUMNS = [QUANTILE_LEVELS.index(level) for level in WIRE_W]
MEDIAN = QUANTILE_LEVELS.index(0.5)


@cache
def shop_of(name: str) -> World:
    """One of the shops, of which twelve weeks may be forecast; kept."""
    path = CACHE / f"{name}.npz"
    days = WEEKS_BACK * 7
    if not path.exists():
        made = simulated(int(name[5:]), days + 32) if name.startswith("demo_") else world(name)
        CACHE.mkdir(parents=True, exist_ok=True)
        np.savez(path, **asdict(replace(made, days=days)))
    kept = np.load(path)
    return World(*(kept[field.name] for field in fields(World)))


def forecast_week(name: str, week: int) -> Singles:
    """Forecasts of a week at all levels of the network; kept."""
    path = CACHE / f"{name}_{week:02d}.npy"
    if not path.exists():
        shop = shop_of(name)
        num_items, length = shop.units_NL.shape
        first_N = np.full(num_items, length - (WEEKS_BACK - week) * WEEK)
        forecaster = BatchForecaster.from_pretrained(device="cpu")
        levels = QUANTILE_LEVELS
        found_NhKQ = quantiles(shop, forecaster, first_N, first_N + WEEK, levels)
        CACHE.mkdir(parents=True, exist_ok=True)
        np.save(path, found_NhKQ)
    return np.asarray(np.load(path), np.float32)


@dataclass(frozen=True, slots=True)
class Scored:
    """What a day's forecasts turned out to be worth: of each step, one row."""

    pit_R: Floats
    own_pit_R: Floats
    loss_R: Floats
    own_loss_R: Floats
    saved_R: Floats
    closed_R: Bools
    moved_R: Bools
    actual_R: Floats


class Day(NamedTuple):
    """Forecasts of the buckets of a day."""

    quantiles_RQ: Floats
    actual_R: Floats
    segment_R: Ints
    band_R: Ints
    volume_R: Ints
    decided_R: Ints
    counts_R: Bools
    learns_R: Bools


def days_of(name: str, width: float) -> Iterator[Day]:
    """Every day's forecasts, `width` times as wide as they were."""
    shop = shop_of(name)
    K, N = len(STEPS), len(shop.segment_N)
    first = shop.units_NL.shape[1] - WEEKS_BACK * WEEK
    hour_LK = np.arange(DAY)[:, None] - (np.array(STEPS) - 1)
    for day in range(WEEKS * 7):
        week_NLKQ = forecast_week(name, day // 7)
        own_RQ = week_NLKQ[:, day % 7 * DAY :][:, :DAY].reshape(N * DAY * K, -1).astype(np.float64)
        middle_R1 = own_RQ[:, MEDIAN, None]
        quantiles_RQ = np.maximum(middle_R1 + width * (own_RQ - middle_R1), 0.0)
        part = slice(first + day * DAY, first + (day + 1) * DAY)
        upper_R = quantiles_RQ[:, QUANTILE_LEVELS.index(UPPER)]
        in_stock_R = np.repeat(shop.in_stock_NL[:, part], K)
        yield Day(
            quantiles_RQ,
            np.repeat(shop.units_NL[:, part].astype(np.float64), K),
            np.repeat(shop.segment_N + 1, DAY * K),
            np.tile(np.arange(K), N * DAY),
            np.searchsorted(VOLUMES, upper_R, side="right"),
            np.tile((day + (hour_LK - HOLDS_FROM) // DAY).ravel(), N),
            in_stock_R,
            in_stock_R & ~np.repeat(shop.promoted_NL[:, part], K),
        )


def replay(name: str, width: float) -> list[Scored]:
    """Day after day: serve by what was decided, score, learn, decide."""
    rng = np.random.default_rng(1)
    evidence: Evidence | None = None
    decided: dict[int, Floats] = {}
    found = []
    for number, day in enumerate(days_of(name, width)):
        if evidence is None:
            evidence = Evidence.none(int(day.segment_R.max()) + 1, len(STEPS), len(VOLUMES) + 1)
        maps = evidence.maps()
        # What is scored today was forecast today or on one of the two days before.
        decided = {
            **{n: decided[n] for n in decided if n >= number - 2},
            number: chosen(evidence, maps),
        }
        scored = score(day, decided, rng.random(len(day.actual_R)))
        cell_R = (day.segment_R, day.band_R, day.volume_R)
        learns = day.learns_R
        evidence.take(tuple(one[learns] for one in cell_R), scored.own_pit_R[learns], maps)  # type: ignore[arg-type]
        evidence.end_day()
        found.append(rows_of(scored, day.counts_R))
    return found


def chosen(evidence: Evidence, maps: Floats) -> Floats:
    """By which levels each cell is served: [S,K,C,W]."""
    as_shop_W = np.where(evidence.as_shop()[..., None], maps[SHOP], WIRE_W)
    return np.where(evidence.serving[..., None], maps, as_shop_W)


def score(day: Day, decided: dict[int, Floats], uniform_R: Floats) -> Scored:
    """Hold a day's forecasts against what was sold, as served and as the network's own."""
    own_RW = day.quantiles_RQ[:, WIRE_COLUMNS]
    served_RW, map_RW = own_RW.copy(), np.tile(WIRE_W, (len(own_RW), 1))
    shape = next(iter(decided.values())).shape[:-1]
    cell_R = np.ravel_multi_index((day.segment_R, day.band_R, day.volume_R), shape)
    for number, levels in decided.items():
        of_day_CW = levels.reshape(-1, len(WIRE_W))
        for cell in np.flatnonzero((of_day_CW != WIRE_W).any(1)).tolist():
            rows = np.flatnonzero((day.decided_R == number) & (cell_R == cell))
            map_RW[rows] = of_day_CW[cell]
            made_RQ = served(day.quantiles_RQ[rows], QUANTILE_LEVELS, of_day_CW[cell])
            served_RW[rows] = made_RQ[:, WIRE_COLUMNS]
    own = place(day.actual_R, own_RW, WIRE_W, uniform_R)
    made = place(day.actual_R, served_RW, WIRE_W, uniform_R)
    return Scored(
        made.pit_I,
        own.pit_I,
        mean_pinball(day.actual_R, served_RW, WIRE_W),
        mean_pinball(day.actual_R, own_RW, WIRE_W),
        saving(own.pit_I, map_RW),
        (own.low_I <= day.actual_R) & (day.actual_R <= own.high_I),
        (map_RW != WIRE_W).any(1),
        day.actual_R,
    )


def rows_of(scored: Scored, counts_R: Bools) -> Scored:
    """Of what could be sold alone."""
    return Scored(*(getattr(scored, one.name)[counts_R] for one in fields(Scored)))


def inside(pit_R: Floats) -> float:
    """The share of PITs within the 80 % interval."""
    return round(float(((pit_R > 0.1) & (pit_R < 0.9)).mean()), 4)


def told(days: list[Scored]) -> dict[str, Any]:
    """The figures of a shop, after the days that are not reported."""
    days = days[UNREPORTED_DAYS:]
    whole = joined(days)
    weeks = [joined(days[start : start + 7]) for start in range(0, len(days), 7)]
    made, own = ([inside(getattr(week, name)) for week in weeks] for name in ("pit_R", "own_pit_R"))
    units = whole.actual_R.sum()
    gain_D = np.array([(day.loss_R - day.own_loss_R).sum() for day in days])
    chance = gain_D.std(ddof=1) * np.sqrt(len(gain_D)) / whole.own_loss_R.sum()
    return {
        "steps": len(whole.pit_R),
        "coverage_80": {"served": inside(whole.pit_R), "network": inside(whole.own_pit_R)},
        "closed_80_of_network": round(float(whole.closed_R.mean()), 4),
        "coverage_80_by_week": {"served": made, "network": own},
        "weeks_within_74_to_86": {
            name: round(float(np.mean([0.74 <= one <= 0.86 for one in of_weeks])), 3)
            for name, of_weeks in (("served", made), ("network", own))
        },
        "wql": {
            "served": round(float(whole.loss_R.sum() / units), 5),
            "network": round(float(whole.own_loss_R.sum() / units), 5),
            "change": round(float(whole.loss_R.sum() / whole.own_loss_R.sum() - 1.0), 5),
            "standard_error_by_days": round(float(chance), 5),
        },
        "pit_pinball_saved": round(float(whole.saved_R.mean() / even_loss()), 5),
        "served_at_other_levels": round(float(whole.moved_R.mean()), 4),
    }


def even_loss() -> float:
    """Twice the mean pinball loss of the levels themselves where PITs are even."""
    return float((WIRE_W * (1.0 - WIRE_W)).mean())


def joined(days: list[Scored]) -> Scored:
    """Several days as one."""
    names = [one.name for one in fields(Scored)]
    return Scored(*(np.concatenate([getattr(day, name) for day in days]) for name in names))


def main() -> None:
    """Forecast a week, or measure all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forecast", nargs=2, metavar=("NAME", "WEEK"), help="only that, kept")
    asked = parser.parse_args().forecast
    if asked:
        forecast_week(asked[0], int(asked[1]))
        return
    shops: dict[str, Any] = {}
    for width in WIDTHS:
        for name in SOURCES:
            label = name if width == 1.0 else f"{name}, {width} times as wide"
            shops[label] = told(replay(name, width))
            print(label, shops[label], flush=True)
    numbers = {"weeks": WEEKS - UNREPORTED_DAYS // 7, "chosen_on": CHOSEN, "shops": shops}
    print(write_result("calibration", numbers, ["numpy", "torch", "freshet"]))


if __name__ == "__main__":
    main()
