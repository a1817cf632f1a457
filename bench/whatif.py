"""Does a planned promotion add what was planted, wherever earlier promotions were set?

Generated tables of twelve items by day, each with an effect of its own. Promotions (a flag and a
lower price, or a lower price alone) were set on any days; on weekends and in the busy season, which
a table shows; or on days that were good for reasons that no column holds. Asked of the next two
weeks: three days of promotion against none, four items a table. A case is covered where the range
of 80 % holds the planted effect: what is expected more on those days. Beside it the naive answer:
the mean of days with a promotion less that of days without; and how often the words warn of good
days.

Run: python -m bench.whatif [--tables N]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.report import write_result
from freshet.model.effects.slots import dress
from freshet.model.explain.beforehand import beforehand
from freshet.model.explain.plan import PlannedPromotion, planned_window
from freshet.model.explain.whatif import compare
from freshet.model.forecaster import BatchForecaster
from freshet.model.tables.ahead import window_ahead
from freshet.model.tables.table import Columns, TableSettings, read_panel
from freshet.stream.arrays import Bools, Floats

DAYS, AHEAD, ITEMS, ASKED = 420, 14, 12, 4
STEPS = range(3, 6)
DISCOUNT = 0.2
SET_ON = ("any days", "weekends and the busy season", "good days that no column tells")
WEEK = np.array([0.8, 0.8, 0.9, 1.0, 1.2, 1.6, 1.1])
SPREAD = 0.4  # of a day's luck, in log units, which lasts for some days
LASTS = 0.7


@dataclass(frozen=True, slots=True)
class Made:
    """A table, and what a promotion really adds in the asked steps: one number an item."""

    rows: pd.DataFrame
    added_N: Floats


def make_table(seed: int, set_on: str, *, flag: bool) -> Made:
    """A table whose promotions were set as told, with or without a flag beside the price."""
    rng = np.random.default_rng(seed)
    day = pd.date_range("2023-01-02", periods=DAYS + AHEAD)
    season = 1.0 + 0.3 * np.cos(2 * np.pi * (day.dayofyear - 345) / 365)
    parts, added = [], []
    for item in range(ITEMS):
        luck = _luck(rng, len(day))
        promoted = _promoted(rng, set_on, luck, day)
        factor = rng.uniform(1.3, 3.0)
        usual = rng.uniform(5.0, 60.0) * WEEK[day.dayofweek] * season.to_numpy()
        mean = usual * np.exp(luck) * np.where(promoted, factor, 1.0)
        sold = rng.poisson(mean * rng.gamma(20.0, 1 / 20.0, len(day))).astype(float)
        sold[DAYS:] = np.nan
        price = np.where(promoted, 1.0 - DISCOUNT, 1.0) * 10.0
        part = pd.DataFrame({"item": f"i{item:02d}", "day": day, "sold": sold, "price": price})
        parts.append(part.assign(promo=promoted * 1.0) if flag else part)
        # Nobody knows the luck of days to come: its mean counts.
        expected = usual[DAYS:] * np.exp(SPREAD**2 / 2)
        added.append((factor - 1.0) * expected[STEPS.start : STEPS.stop].sum())
    return Made(pd.concat(parts, ignore_index=True), np.array(added))


def _luck(rng: np.random.Generator, num: int) -> Floats:
    """What makes days good or bad for an item, in log units, without a trace in any column."""
    luck = np.empty(num)
    luck[0] = rng.normal(0.0, SPREAD)
    for step in range(1, num):
        luck[step] = LASTS * luck[step - 1] + rng.normal(0.0, SPREAD * np.sqrt(1 - LASTS**2))
    return luck


def _promoted(rng: np.random.Generator, set_on: str, luck: Floats, day: pd.DatetimeIndex) -> Bools:
    """About one day in eight, by spells of three days; none ahead."""
    chance = np.full(len(day), 0.05)
    if set_on == SET_ON[1]:
        busy = np.isin(day.month, (10, 11, 12, 1))
        chance = np.where(day.dayofweek == 4, np.where(busy, 0.7, 0.2), 0.0)
    elif set_on == SET_ON[2]:
        chance = np.where(luck > SPREAD, 0.25, 0.01)
    promoted = np.zeros(len(day), bool)
    for start in np.flatnonzero(rng.random(len(day)) < chance):
        promoted[start : start + len(STEPS)] = True
    promoted[DAYS:] = False
    return promoted


def asked(forecaster: BatchForecaster, made: Made, items: range) -> list[dict[str, float]]:
    """The answer for some items, beside what was planted and what a naive look says."""
    known = tuple(name for name in ("promo", "price") if name in made.rows)
    table = TableSettings(Columns("item", "day", "sold", known), "D")
    past = made.rows[made.rows.sold.notna()]
    window = window_ahead(read_panel(past, table), AHEAD, table.columns, made.rows)
    promotion = PlannedPromotion(STEPS, DISCOUNT)
    warned = float(beforehand(window).sure)
    T = window.context_length
    found = []
    for row in items:
        worlds = []
        for on in (True, False):
            dressed = dress(planned_window(window, row, promotion, on=on))
            context = min(T, forecaster.context_length)
            worlds.append(
                dressed.batch(np.array([row]), np.array([T]), context=context, horizon=AHEAD)[0]
            )
        told = compare(forecaster, worlds[0], worlds[1], promotion)
        own = past[past.item == f"i{row:02d}"]
        lower = own.price < 10.0
        naive = len(STEPS) * (own.sold[lower].mean() - own.sold[~lower].mean())
        low, middle, high = (float(value) for value in told.uplift_P)
        planted = float(made.added_N[row])
        answer = {"low": low, "middle": middle, "high": high}
        found.append({"planted": planted, "naive": float(naive), "warned": warned, **answer})
    return found


def summary(cases: list[dict[str, float]]) -> dict[str, Any]:
    """How often the range holds what was planted, and how far both answers are off."""
    frame = pd.DataFrame(cases)
    covered = (frame.low <= frame.planted) & (frame.planted <= frame.high)
    share, num = float(covered.mean()), len(frame)
    off = float(np.sqrt(share * (1 - share) / num))
    return {
        "cases": num,
        "covered": round(share, 3),
        "covered_95": [round(share - 1.96 * off, 3), round(share + 1.96 * off, 3)],
        "warned": round(float(frame.warned.mean()), 3),
        "too_high": round(float((frame.planted < frame.low).mean()), 3),
        "too_low": round(float((frame.planted > frame.high).mean()), 3),
        "bias": round(float((frame.middle - frame.planted).sum() / frame.planted.sum()), 3),
        "naive_bias": round(float((frame.naive - frame.planted).sum() / frame.planted.sum()), 3),
    }


def main() -> None:
    """Ask, count, print and write bench/results/whatif.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=50, help="of each kind; four cases each")
    arguments = parser.parse_args()
    forecaster = BatchForecaster.from_pretrained(device="cpu", dtype="float32")
    found: dict[str, Any] = {}
    for set_on in SET_ON:
        cases = []
        for seed in range(arguments.tables):
            made = make_table(seed, set_on, flag=seed % 2 == 0)
            cases += asked(forecaster, made, range(ASKED))
        found[set_on] = summary(cases)
        print(set_on, found[set_on], flush=True)
    write_result("whatif", {"promotions_set_on": found}, ["torch", "numpy"])


if __name__ == "__main__":
    main()
