"""How far days lie from the sums of their hours, as forecast and as published, and how good both
are.

The shipped weights forecast the same items by the hour (48) and by the day (7) from the same
midnights, with a few days of history and with many, as a worker does: how steps move together is
learnt from one horizon ago, and `online/forecast/wholedays.py` brings both together. Held against
each other are medians: of the first day with that of the sum over its hours, and of the first two
days with that over 48 hours; beside it the plain sum of the hours' medians.
Run: python -m bench.coherence [--from DIR] [--cutoffs N] [--rows N]

Dimensions: B rows, H hours, D days, W wire levels.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch

from bench.hours import Shop, batch_of, shops
from bench.report import write_result
from freshet.model.batch import Batch
from freshet.model.forecaster import BatchForecaster
from freshet.model.quantiles.dependence import estimate_dependence
from freshet.model.quantiles.metrics import wape, wql
from freshet.online.forecast.publish import Numbers, published, wire_columns
from freshet.online.forecast.sums import LEARN_ROWS, StepSums
from freshet.online.forecast.wholedays import DaySums, FollowsDays, Hours, LeadsHours
from freshet.stream.arrays import Floats, Singles
from freshet.stream.schemas import WIRE_LEVELS, Cumulative
from freshet.stream.units import DAY_MS, HOUR_MS

HOURS, DAYS, CONTEXT = 48, 7, 512
ENDS = [24, 48]
HISTORIES = (7, 14, 28, 56, 512)
EVERY_DAYS = 9
MEDIAN = WIRE_LEVELS.index(0.5)


class Made(NamedTuple):
    """A batch of one width, what a worker would publish of it, and what came."""

    batch: Batch
    sums: StepSums
    numbers: Numbers
    actual_BH: Floats


def made(
    forecaster: BatchForecaster, units_BS: Singles, horizon: int, cutoff_ms: int, width_ms: int
) -> Made:
    """Forecasts from a cutoff before the last `horizon` steps; what was not there yet is NaN."""
    levels = forecaster.quantile_levels
    columns = wire_columns(levels)
    past_BT = units_BS[:, :-horizon][:, -CONTEXT:]
    batch = batch_of(past_BT, horizon, cutoff_ms, width_ms)
    sums = StepSums(width_ms, horizon)
    before_BT = past_BT[:LEARN_ROWS, :-horizon]
    begun_B = np.isfinite(before_BT).any(1)
    if begun_B.any():
        earlier_ms = cutoff_ms - horizon * width_ms
        earlier = batch_of(before_BT[begun_B], horizon, earlier_ms, width_ms)
        came_BH = torch.from_numpy(past_BT[:LEARN_ROWS, -horizon:][begun_B])
        sums.dependence = estimate_dependence(
            came_BH,
            forecaster.forecast(earlier),
            levels,
            prior=sums.dependence,
            prior_rows=LEARN_ROWS,
        )
    steps_BHQ = forecaster.forecast(batch)
    sums_BKQ = sums.quantiles(batch.target_BT, steps_BHQ, levels)
    numbers = Numbers(published(steps_BHQ, columns), published(sums_BKQ, columns), sums.steps)
    return Made(batch, sums, numbers, units_BS[:, -horizon:].astype(float))


def pairs(
    forecaster: BatchForecaster, shop: Shop, history: int, cutoffs: int
) -> Iterator[tuple[Made, Made, int]]:
    """Hours and days from several midnights, the newest first, `history` days behind each."""
    last = shop.days_ND.shape[1] - DAYS
    for cutoff in range(last, last - EVERY_DAYS * cutoffs, -EVERY_DAYS):
        first = max(cutoff - history, 0)
        sold_ND = shop.days_ND[:, first:cutoff] > 0
        rows = np.flatnonzero(sold_ND.any(1))
        begin_B1 = sold_ND[rows].argmax(1)[:, None]
        days_BS = shop.days_ND[rows, first : cutoff + DAYS].astype(np.float32)
        days_BS[np.arange(days_BS.shape[1]) < begin_B1] = np.nan
        hours_BS = shop.hours_NL[rows, first * 24 : cutoff * 24 + HOURS].astype(np.float32)
        hours_BS[np.arange(hours_BS.shape[1]) < begin_B1 * 24] = np.nan
        cutoff_ms = shop.first_ms + cutoff * DAY_MS
        hours = made(forecaster, hours_BS, HOURS, cutoff_ms, HOUR_MS)
        yield hours, made(forecaster, days_BS, DAYS, cutoff_ms, DAY_MS), cutoff_ms


def agreed(
    forecaster: BatchForecaster, hours: Made, days: Made, cutoff_ms: int
) -> tuple[Numbers, Numbers]:
    """Both as they are published."""
    item_ids = [str(row) for row in range(len(hours.batch))]
    contexts: Any = SimpleNamespace(
        reader=SimpleNamespace(row=int),
        batch=lambda rows, _: hours.batch.rows(torch.tensor(rows)),
    )
    leads = LeadsHours(cutoff_ms, Hours(contexts, hours.sums, ENDS))
    of_days = leads.agreed(item_ids, days.batch, days.numbers, forecaster)
    day_sums = DaySums()
    for row, item_id in enumerate(item_ids):
        sums = Cumulative(steps=of_days.sum_steps, quantiles=of_days.sums_BKW[row].tolist())
        said: Any = SimpleNamespace(
            forecast_id=item_id,
            item_id=item_id,
            cutoff_ms=cutoff_ms,
            quantile_levels=WIRE_LEVELS,
        )
        day_sums.take(said, of_days.steps_BHW[row, 0].tolist(), sums)
    follows = FollowsDays(day_sums, cutoff_ms, ENDS)
    return follows.agreed(item_ids, hours.batch, hours.numbers, forecaster), of_days


class Judged(NamedTuple):
    """What the cutoffs of one shop say together, before both were brought together or after."""

    hours_BHW: Floats
    sums_BKW: Floats
    days_BDW: Floats
    day_sums_BKW: Floats

    def figures(self, hours_BH: Floats, days_BD: Floats) -> dict[str, float]:
        """Gaps of medians, and accuracy."""
        sum_steps = StepSums(HOUR_MS, HOURS).steps
        day_steps = StepSums(DAY_MS, DAYS).steps
        at_D = [sum_steps.index(end) for end in ENDS]
        ends_BDW = self.sums_BKW[:, at_D]
        # The first day as itself, both days as a sum.
        both_BDW = np.stack([self.days_BDW[:, 0], self.day_sums_BKW[:, 1]], 1)
        plain_BD = self.hours_BHW[..., MEDIAN].cumsum(1)[:, np.array(ENDS) - 1]
        sums_BK = hours_BH.cumsum(1)[:, np.array(sum_steps) - 1]
        day_sums_BK = days_BD.cumsum(1)[:, np.array(day_steps) - 1]
        levels = np.array(WIRE_LEVELS)
        return {
            "gap": wape(both_BDW[..., MEDIAN], ends_BDW[..., MEDIAN]),
            "gap_of_plain_sum": wape(both_BDW[..., MEDIAN], plain_BD),
            "wql_hours": wql(hours_BH, self.hours_BHW, levels),
            "wql_sums_of_hours": wql(sums_BK, self.sums_BKW, levels),
            "wql_24_and_48_hours": wql(sums_BK[:, at_D], ends_BDW, levels),
            "wql_first_day": wql(days_BD[:, :1], self.days_BDW[:, :1], levels),
            "wql_days": wql(days_BD, self.days_BDW, levels),
            "wql_sums_of_days": wql(day_sums_BK, self.day_sums_BKW, levels),
        }


def judged(forecaster: BatchForecaster, shop: Shop, history: int, cutoffs: int) -> dict[str, float]:
    """Figures before and after, over all cutoffs as one."""
    before: list[Judged] = []
    after: list[Judged] = []
    hours_BH, days_BD = [], []
    for hours, days, cutoff_ms in pairs(forecaster, shop, history, cutoffs):
        of_hours, of_days = agreed(forecaster, hours, days, cutoff_ms)
        for found, hour, day in (
            (before, hours.numbers, days.numbers),
            (after, of_hours, of_days),
        ):
            found.append(Judged(hour.steps_BHW, hour.sums_BKW, day.steps_BHW, day.sums_BKW))
        hours_BH.append(hours.actual_BH)
        days_BD.append(days.actual_BH)
    came = np.concatenate(hours_BH), np.concatenate(days_BD)
    return {
        f"{name}_{when}": round(value, 4)
        for when, parts in (("before", before), ("after", after))
        for name, value in Judged(*map(np.concatenate, zip(*parts, strict=True)))
        .figures(*came)
        .items()
    }


def main() -> None:
    """Measure, print and write bench/results/coherence.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="folder", default=os.environ.get("FRESHET_DATA"), type=Path)
    parser.add_argument("--cutoffs", type=int, default=6)
    parser.add_argument("--rows", type=int, default=300, help="of a shop, at most")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    forecaster = BatchForecaster.from_pretrained(device="cpu", dtype="float32")
    table: list[dict[str, Any]] = []
    for shop in shops(arguments.folder):
        some = shop.some(arguments.rows)
        for history in HISTORIES:
            figures = judged(forecaster, some, history, arguments.cutoffs)
            table.append({"shop": shop.name, "days_of_history": history, **figures})
            print(table[-1], flush=True)
    ratios = {
        name.removesuffix("_after"): round(_ratio(table, name.removesuffix("_after")), 4)
        for name in table[0]
        if name.startswith("wql") and name.endswith("_after")
    }
    worst = max(row["gap_after"] for row in table)
    print(ratios, "largest gap as published", worst)
    found = {
        "what": __doc__,
        "weights_sha256": forecaster.sha256,
        "rows": arguments.rows,
        "cutoffs": arguments.cutoffs,
        "largest_gap_as_published": worst,
        "geometric_mean_of_after_over_before": ratios,
        "runs": table,
    }
    print(write_result("coherence", found, ["numpy", "torch"]))


def _ratio(table: list[dict[str, Any]], name: str) -> float:
    ratios = [row[f"{name}_after"] / row[f"{name}_before"] for row in table]
    return float(np.exp(np.mean(np.log(ratios))))


if __name__ == "__main__":
    main()
