"""Series that break shortly before the cutoff: forecasts with and without a beginning.

From Rossmann (with what is known of its days) and Online Retail, by day. In a quarter of the series
something happens within the last 5 % of the 512 days before the cutoff and goes on after it: they
open late, end, sell twice as much, or their weekdays move by three. SQL of those series alone,
divided by their seasonal error *before* they were broken, for forecasts that take the context as it
is and as `model/effects/beginnings.py` sees it; and of forecasts of the series as they were, which
no forecast of broken ones can be expected to beat (twice that where sales are doubled).

Constants were chosen with --part 0. FRESHET_DATA names the raw files.
Run: python -m bench.breaks [--part 1] [--parts 4]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bench.report import write_result
from freshet.model.effects import slots
from freshet.model.forecaster import BatchForecaster
from freshet.model.predict.windows import forecast
from freshet.model.quantiles.metrics import seasonal_error, sql
from freshet.model.tables.panel import Rolling, Window
from freshet.model.tables.prepare import online_retail_daily, rossmann_daily
from freshet.model.tables.table import Columns, TableSettings, read_panel
from freshet.stream.arrays import Bools, Floats

LEVELS = np.round(np.arange(1, 10) / 10, 1)
CONTEXT, HORIZON, WEEK = 512, 28, 7
NEWEST = CONTEXT // 20  # 5 %
KINDS = ("none", "late opening", "dead end", "doubled level", "moved profile")
CUTOFFS = (3, 5)  # horizons before the end
KNOWN = {"rossmann": ("Open", "Promo", "StateHoliday", "SchoolHoliday"), "online_retail": ()}


class Case(NamedTuple):
    """A window, what came after it, and which of its series are broken."""

    window: Window
    actual_NH: Floats
    broken_N: Bools


def cases(data: str, part: int, parts: int) -> list[Case]:
    """Both cutoffs of every so-manieth series that has a whole context and sold lately."""
    read = {"rossmann": rossmann_daily, "online_retail": online_retail_daily}[data]
    table = read(Path(os.environ["FRESHET_DATA"]))
    ids = sorted(table.id.unique())[part::parts]
    columns = Columns("id", "timestamp", "target", KNOWN[data])
    settings = TableSettings(columns, "D", season_length=WEEK)
    panel = read_panel(table[table.id.isin(ids)], settings)
    found = []
    for cutoff in CUTOFFS:
        rolling = Rolling(HORIZON, cutoff)
        window = rolling.window(panel, 0).newest(CONTEXT)
        whole_N = np.isfinite(window.target_NT).mean(1) > 0.9
        sells_N = window.target_NT[:, -120:].sum(1) > 0
        rows = np.flatnonzero(whole_N & sells_N)
        actual_NH = rolling.actual(panel, 0)[rows]
        broken_N = np.arange(len(rows)) % 4 == 0
        found.append(Case(window.rows(rows), actual_NH, broken_N))
    return found


def broken(case: Case, kind: str) -> Case:
    """The case with one kind of break in some of its series."""
    target_NT, rows = case.window.target_NT, case.broken_N
    whole_NS = np.concatenate([target_NT, case.actual_NH], 1)
    T = target_NT.shape[1]
    begin = T - NEWEST
    if kind == "late opening":
        whole_NS[rows, :begin] = 0.0
    if kind == "dead end":
        whole_NS[rows, begin:] = 0.0
    if kind == "doubled level":
        whole_NS[rows, begin:] *= 2.0
    if kind == "moved profile":
        factor_NS = _other_weekdays(target_NT, whole_NS.shape[1])
        whole_NS[rows, begin:] *= factor_NS[rows, begin:]
    window = replace(case.window, target_NT=whole_NS[:, :T])
    return Case(window, whole_NS[:, T:], case.broken_N)


def _other_weekdays(target_NT: Floats, steps: int) -> Floats:
    """What the mean weekday sells three days before, over what this one sells: [N, S].

    1 where either sells nothing, so that Sundays stay closed.
    """
    weekday_S = np.arange(steps) % WEEK
    sold_NT = np.where(target_NT > 0, target_NT, np.nan)
    weekday_T = weekday_S[: target_NT.shape[1]]
    mean_N7 = np.stack(
        [_mean(sold_NT[:, weekday_T == weekday]) for weekday in range(WEEK)], axis=-1
    )
    other_N7 = np.roll(mean_N7, 3, axis=1)
    ratio_N7 = np.where((mean_N7 > 0) & (other_N7 > 0), other_N7 / np.maximum(mean_N7, 1e-9), 1.0)
    return ratio_N7[:, weekday_S]


def _mean(values_NX: Floats) -> Floats:
    seen_NX = np.isfinite(values_NX)
    total_N: Floats = np.where(seen_NX, values_NX, 0.0).sum(1)
    return total_N / np.maximum(seen_NX.sum(1), 1)


@dataclass(frozen=True, slots=True)
class Scores:
    """SQL of the series that are broken and of the others."""

    broken: float
    others: float


def score(forecaster: BatchForecaster, case: Case, error_N: Floats, *, begins: bool) -> Scores:
    """Forecasts of a case, with contexts as they are or with a beginning."""
    always_N = np.zeros(len(case.window), np.int64)
    dressed = slots.dress(case.window, begin_N=None if begins else always_N)
    levels = tuple(float(level) for level in LEVELS)
    quantiles_NHQ = forecast(forecaster, dressed, HORIZON, levels)

    def of(rows: Bools) -> float:
        return sql(case.actual_NH[rows], quantiles_NHQ[rows], LEVELS, error_N[rows])

    return Scores(of(case.broken_N), of(~case.broken_N))


def compare(forecaster: BatchForecaster, data: str, part: int, parts: int) -> dict[str, object]:
    """Mean SQL over the cutoffs of each kind of break."""
    whole = cases(data, part, parts)
    result: dict[str, object] = {"series": [len(case.window) for case in whole]}
    for kind in KINDS:
        before: list[Scores] = []
        after: list[Scores] = []
        for case in whole:
            error_N = seasonal_error(case.window.target_NT, WEEK)
            other = broken(case, kind)
            before.append(score(forecaster, other, error_N, begins=False))
            after.append(score(forecaster, other, error_N, begins=True))
        row = {
            "sql_as_it_is": _over([one.broken for one in before]),
            "sql_with_a_beginning": _over([one.broken for one in after]),
            "others_as_they_are": _over([one.others for one in before]),
            "others_with_a_beginning": _over([one.others for one in after]),
        }
        row["ratio"] = row["sql_with_a_beginning"] / row["sql_as_it_is"]
        result[kind] = {name: round(value, 4) for name, value in row.items()}
        print(data, kind, result[kind], flush=True)
    return result


def _over(scores: list[float]) -> float:
    return float(np.mean(scores))


def main(argv: Sequence[str] | None = None) -> None:
    """Compare on both data sets and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", type=int, default=1)
    parser.add_argument("--parts", type=int, default=4)
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    forecaster = BatchForecaster.from_pretrained(device="cpu", dtype="float32")
    numbers = {data: compare(forecaster, data, asked.part, asked.parts) for data in KNOWN}
    write_result("breaks", {"part": asked.part, "parts": asked.parts, **numbers}, ["torch"])


if __name__ == "__main__":
    main()
