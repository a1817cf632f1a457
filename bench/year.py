"""A year of a gift shop under the eyes of the drift monitor: what it says, and who would agree.

Online Retail II, 9 December 2010 to the same day of 2011: 120 articles in eight groups by the words
of their descriptions, the best-selling fifteen of each *before* the year began, so that some are
given up in it. Every hour is a cutoff of the base weights, which know nothing but sales; what is
scored are forecasts made 1, 3, 6, 12 and 24 hours before a bucket's end. Nothing was planted.

Beside each alert stands what an operator could count that evening and three days later: the
group's sales from the onset on against the same hours of the four weeks before. "Agrees" where a
level that is said to have risen (fallen) is at least a quarter up (down) over the three days from
the onset; of other kinds nobody can say so by a sum, and they are left open. That rule was written
down before the alerts were looked at.

Run: FRESHET_DATA=... python -m bench.year   (some 25 minutes on one core; goes on where it ended)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.base_scores import STEPS, World, quantiles
from bench.drift_worlds import score
from bench.report import write_result
from freshet.model.forecaster import BatchForecaster
from freshet.online.drift.monitor import DriftMonitor
from freshet.stream.arrays import Floats, Ints, Singles
from freshet.stream.codec import rfc3339
from freshet.stream.config import DriftSettings
from freshet.stream.schemas import DriftAlert
from freshet.stream.units import DAY_MS, HOUR_MS, WEEK_MS

CACHE = Path("build/year")
GROUPS = {
    "christmas": "CHRISTMAS|XMAS|ADVENT|REINDEER|SNOWMAN",
    "bags": "BAG",
    "lunch": "LUNCH|BOTTLE|SNACK|PICNIC",
    "candles": "CANDLE|T-LIGHT|LANTERN|LIGHTS",
    "cards": "CARD|WRAP|PAPER|TISSUE",
    "kitchen": "MUG|CUP|BOWL|PLATE|JAR|CAKE|TEA|APRON",
    "garden": "GARDEN|PLANT|BIRD|FLOWER",
    "signs": "SIGN|FRAME|CLOCK|HEART",
}
ARTICLES = 15
DAYS = 365
PORTION = 28
AGREES = 1.25
DEAL_MS = 3 * DAY_MS


def shop() -> tuple[World, list[str]]:
    """Sales by the hour of the chosen articles, and the names of their groups."""
    path = Path(os.environ["FRESHET_DATA"]) / "online_retail" / "online_retail_II.parquet"
    lines = pd.read_parquet(path)
    lines = lines[~lines.in_overlap & (lines.quantity > 0) & (lines.unit_price > 0)]
    end = lines.ts.max().floor("D")
    start = end - pd.Timedelta(days=DAYS)
    before = lines[lines.ts < start]
    sold = before.groupby("sku").quantity.sum()
    said = before.groupby("sku").description.agg(lambda texts: str(texts.mode().iloc[0]))
    free = sold.sort_values(ascending=False)
    rows: list[str] = []
    for words in GROUPS.values():
        mine = [sku for sku in free.index if pd.Series([said[sku]]).str.contains(words).iloc[0]]
        rows += mine[:ARTICLES]
        free = free.drop(mine[:ARTICLES])
    first = lines.ts.min().floor("D")
    hours = int((end - first) / pd.Timedelta(hours=1))
    units_NL = np.zeros((len(rows), hours), np.float32)
    kept = lines[lines.sku.isin(rows) & (lines.ts < end)]
    row_N = kept.sku.map({sku: row for row, sku in enumerate(rows)}).to_numpy()
    hour_N = ((kept.ts - first) // pd.Timedelta(hours=1)).to_numpy()
    np.add.at(units_NL, (row_N, hour_N), kept.quantity.to_numpy())
    nobody = np.zeros(units_NL.shape, bool)
    segment_N = np.repeat(np.arange(len(GROUPS)), ARTICLES)
    first_ms = int(first.value // 1_000_000)
    return World(units_NL, nobody, ~nobody, segment_N, first_ms, DAYS), list(GROUPS)


def forecast(one: World) -> Singles:
    """Forecasts of every bucket of the year, in portions that are kept: [N, h, K, Q]."""
    CACHE.mkdir(parents=True, exist_ok=True)
    forecaster = None
    length = one.units_NL.shape[1]
    parts = []
    for begin in range(length - one.days * 24, length, PORTION * 24):
        end = min(begin + PORTION * 24, length)
        path = CACHE / f"{begin}.npy"
        if not path.exists():
            forecaster = forecaster or BatchForecaster.from_pretrained(device="cpu")
            here = np.full(len(one.units_NL), begin)
            np.save(path, quantiles(one, forecaster, here, np.full_like(here, end)))
            print(f"{end - length + one.days * 24} of {one.days * 24} hours", flush=True)
        parts.append(np.load(path))
    return np.concatenate(parts, axis=1)


def alerts(one: World, made_NhKQ: Singles, names: list[str]) -> Iterator[DriftAlert]:
    """What the monitor says in the year, hour after hour; a segment's number is its name's."""
    first = one.units_NL.shape[1] - one.days * 24
    rng = np.random.default_rng(0)
    units_Nh = one.units_NL[:, first:]
    nobody = np.zeros(units_Nh.shape, bool)
    scored = score(made_NhKQ, units_Nh, nobody, one.segment_N, rng)
    monitor = DriftMonitor(DriftSettings(), HOUR_MS)
    for hour, batch in enumerate(scored.batches()):
        at_ms = one.first_ms + (first + hour) * HOUR_MS
        yield from monitor.take(at_ms, batch, now_ms=at_ms)


@dataclass(frozen=True, slots=True)
class Counted:
    """A group's sales over those of the same hours of the four weeks before."""

    that_evening: float | None
    in_three_days: float | None


def counted(one: World, rows_N: Ints, onset_ms: int, found_ms: int) -> Counted:
    """What an operator would count: from the onset to the alert, and three days from the onset."""
    units_L: Floats = one.units_NL[rows_N].sum(0, dtype=np.float64)

    def ratio(end_ms: int) -> float | None:
        hours = np.arange((onset_ms - one.first_ms) // HOUR_MS, (end_ms - one.first_ms) // HOUR_MS)
        hours = hours[hours < len(units_L)]
        weeks = [units_L[hours - week * WEEK_MS // HOUR_MS].sum() for week in range(1, 5)]
        usual = float(np.mean(weeks))
        return round(float(units_L[hours].sum()) / usual, 2) if usual else None

    return Counted(ratio(found_ms + HOUR_MS), ratio(onset_ms + DEAL_MS))


def agrees(alert: DriftAlert, seen: Counted) -> bool | None:
    """Whether the three days bear a level's alert out; None of other kinds."""
    if alert.kind != "level" or seen.in_three_days is None:
        return None
    return seen.in_three_days >= AGREES if alert.size > 0 else seen.in_three_days <= 1 / AGREES


def row(one: World, names: list[str], alert: DriftAlert) -> dict[str, Any]:
    """An alert as a line of the table."""
    group = names[int(alert.segment[1:])] if alert.segment.startswith("c") else ""
    rows_N = np.flatnonzero(one.segment_N == names.index(group)) if group else np.arange(120)
    seen = counted(one, rows_N, alert.onset_ms, alert.detected_at_ms)
    return {
        "found": rfc3339(alert.detected_at_ms),
        "onset": rfc3339(alert.onset_ms),
        "group": group or "all",
        "kind": alert.kind,
        "said": alert.description.replace(alert.segment, group) if group else alert.description,
        "sold_that_evening": seen.that_evening,
        "sold_in_three_days": seen.in_three_days,
        "agrees": agrees(alert, seen),
    }


def main() -> None:
    """Forecast what is missing, watch the year, write bench/results/year.json."""
    one, names = shop()
    found = [alert for alert in alerts(one, forecast(one), names) if alert.state == "drift"]
    table = [row(one, names, alert) for alert in found]
    for line in table:
        print(line)
    judged = [line["agrees"] for line in table if line["agrees"] is not None]
    numbers = {
        "days": DAYS,
        "articles": len(one.units_NL),
        "alerts": len(table),
        "levels": len(judged),
        "agreed": sum(judged),
        "steps": list(STEPS),
        "table": table,
    }
    write_result("year", numbers, ["numpy", "scipy"])


if __name__ == "__main__":
    main()
