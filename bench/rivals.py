"""The shipped weights against models that learn online, on calm shops and after a drift.

Calm: two real shops and the demo's, by the hour, over 60 midnights. Each midnight all forecast the
day that begins, and each day they are taught what became of the one before, but for its last hour.
Drift: the shops of `bench/recovery.py`; the forecasts of the first and the second midnight after
the onset, of the category in which it was planted, beside what the adjuster would have served.

Reported is WQL (mean of nine levels), and its ratio to that of the shipped weights at the same
midnights, with an interval of 95 % by a bootstrap over days (calm) or shops (drift). The adapters'
constants are those of their first draft, or their authors': none was fitted to these shops.

Run: FRESHET_DATA=... python -m bench.rivals [--only NAME ...] [--days 60] [--seeds 8]
It goes on where it was stopped, and writes the results file once all is done.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.base_scores import World
from bench.recovery import DRIFT_HOURS, FIRST_HOUR, HORIZON, ITEMS, REPORTED_FROM, Shop
from bench.recovery_shop import START_MS, play
from bench.report import write_result
from bench.rivals_online import LEVELS_Q, Midnight, Rival, all_rivals, window_of
from bench.schedule import FIRST_DAY, world
from bench.schedule_shop import Past
from freshet.model.baselines import Model
from freshet.model.training import tuned
from freshet.online.drift.score import mean_pinball
from freshet.stream.arrays import Floats
from freshet.stream.schemas import WIRE_LEVELS
from freshet.stream.units import HOUR_MS

FOLDER = Path("build/rivals")
SHOPS = ("online_retail", "dunnhumby", "demo_1")
TAUGHT_DAYS = 14  # midnights before the first one that counts
DAYS_BEFORE_DRIFT = 14
DRAWS = 2_000
# Of hours before a midnight that rivals may look at: what is retained.
RETAINED = 1_344

Lost = dict[str, list[tuple[float, float, float]]]
"""By name, for each midnight: what it lost, what the shipped weights lost, units sold."""


@dataclass
class Race:
    """Midnights that pass, for all who take part."""

    rivals: list[Rival] = field(default_factory=all_rivals)
    lost: Lost = field(default_factory=dict)
    waits: Midnight | None = None

    def midnight(self, now: Midnight, before_NH: Floats | None) -> None:
        """Teach all what became of the last one; `before_NH` is the day that ended."""
        if self.waits is not None and before_NH is not None:
            final_NH = before_NH.copy()
            final_NH[:, -1] = np.nan
            for rival in self.rivals:
                rival.learn(self.waits, final_NH)
        self.waits = now

    def hold(self, now: Midnight, actual_NH: Floats, rows: Floats) -> None:
        """Ask those whose turn it is, and note what some rows lost."""
        actual_NH = actual_NH[rows]
        base = pinball(actual_NH, now.base_NHQ[rows])
        for rival in self.rivals:
            if now.day % rival.every == 0:
                made_NHQ = rival.forecast(now)[rows]
                row = (pinball(actual_NH, made_NHQ), base, float(np.nansum(actual_NH)))
                self.lost.setdefault(rival.name, []).append(row)


def pinball(actual_NH: Floats, quantiles_NHQ: Floats) -> float:
    """Summed over what is known."""
    known_NH = np.isfinite(actual_NH)
    losses_X = mean_pinball(actual_NH[known_NH], quantiles_NHQ[known_NH], LEVELS_Q)
    return float(losses_X.sum())


# Calm ---------------------------------------------------------------------------------------------


def calm(name: str, days: int) -> Lost:
    """One shop without a drift, from the first midnight that rivals are taught at."""
    shop = world(name)
    past = Past(shop, FIRST_DAY)
    shipped = tuned.make(None, "none")
    race = Race()
    first, end = FIRST_DAY - TAUGHT_DAYS, min(FIRST_DAY + days, past.num_days - 1)
    units_NL = past.units_NL.astype(np.float64)
    everybody = np.arange(len(units_NL))
    for day in range(first, end):
        past.known = 24 * day
        now = _calm_midnight(shipped, past, shop, day)
        ended = slice(24 * (day - 1), 24 * day)
        race.midnight(now, units_NL[:, ended])
        if day >= FIRST_DAY:
            race.hold(now, units_NL[:, 24 * day : 24 * day + HORIZON], everybody)
    return race.lost


def _calm_midnight(shipped: Model, past: Past, shop: World, day: int) -> Midnight:
    known = min(24 * day, RETAINED)
    seen = slice(24 * day - known, 24 * day)
    promoted = slice(24 * day - known, 24 * day + HORIZON)
    now = Midnight(
        day=day,
        first_ms=past.at(day) - known * HOUR_MS,
        past_NT=past.units_NL[:, seen].astype(np.float64),
        base_NHQ=np.zeros((len(past.units_NL), HORIZON, len(WIRE_LEVELS))),
        promoted_NS=past.promoted_NL[:, promoted].astype(np.float64),
        segment_N=shop.segment_N,
    )
    # Dressed with what all items do alike, as it is served.
    return replace(now, base_NHQ=shipped.predict(window_of(now), WIRE_LEVELS))


# Drift --------------------------------------------------------------------------------------------


class Raced(Shop):
    """A shop with a drift, at whose midnights rivals forecast beside the adjuster."""

    def __init__(self, seed: int, kind: str) -> None:
        self.kind, onset = kind, FIRST_HOUR + seed * 5 % 24
        hours = onset + DRIFT_HOURS + HORIZON
        super().__init__(play(seed, ITEMS, hours=hours, onset=onset), onset)
        self.race = Race()
        names = self.segments(self.world.item_ids)
        self.segment_N = np.unique(names, return_inverse=True)[1]
        self.units_NL = self.world.cells_ICL[:, 0].astype(np.float64) / 1_000

    def teach(self) -> None:
        """Midnights before detectors look at anything."""
        watched_from = FIRST_HOUR // 24 - 4
        for day in range(watched_from - DAYS_BEFORE_DRIFT, watched_from):
            self.reader.pass_to(24 * day)
            self.contexts.refresh()
            self._midnight(day, self._forecast(self._all, self.reader.cutoff_ms))

    def pass_hour(self, hour: int) -> None:
        """As in the shop; before the onset midnights are met, too."""
        super().pass_hour(hour)
        if hour % 24 == 0 and hour < self.onset:
            self._midnight(hour // 24, self._forecast(self._all, self.reader.cutoff_ms))

    @property
    def _all(self) -> Any:
        return np.arange(len(self.world.item_ids))

    def _midnight(self, day: int, base_NHQ: Floats) -> Midnight:
        stop = 24 * day
        begin = max(stop - RETAINED, 0)
        now = Midnight(
            day=day,
            first_ms=START_MS + begin * HOUR_MS,
            past_NT=self.units_NL[:, begin:stop],
            base_NHQ=base_NHQ,
            # What promotions there are the shop's own forecasts know; rivals are not told.
            promoted_NS=np.zeros((len(base_NHQ), stop - begin + HORIZON)),
            segment_N=self.segment_N,
        )
        self.race.midnight(now, self.units_NL[:, stop - 24 : stop])
        return now

    def _hold(self, hour: int, cutoff_ms: int, plain_IHW: Floats) -> None:
        super()._hold(hour, cutoff_ms, plain_IHW)
        if hour % 24 or hour == self.onset:
            return
        now = self._midnight(hour // 24, plain_IHW)
        rows = self.rows[self.kind]
        actual_NH = self.units_NL[:, hour : hour + HORIZON]
        self.race.hold(now, actual_NH, rows)
        losses, since = self.result.losses[self.kind], hour - self.onset
        ours = (losses.served[since], losses.plain[since], losses.units[since])
        self.race.lost.setdefault("our adjuster", []).append(ours)


def drifted(seed: int, kind: str) -> Lost:
    """One shop with drifts; what was lost in the category of one of them."""
    torch.set_num_threads(1)
    shop = Raced(seed, kind)
    for rival in shop.race.rivals:
        rival.every = 1
    shop.teach()
    for hour in range(FIRST_HOUR - 96, shop.onset + DRIFT_HOURS):
        shop.pass_hour(hour)
    return shop.race.lost


# Report -------------------------------------------------------------------------------------------


def row(lost: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Ratio to the shipped weights' loss, its interval, and both WQLs."""
    sums_D3 = np.array(lost)
    draws = np.random.default_rng(0).integers(0, len(sums_D3), (DRAWS, len(sums_D3)))
    drawn = sums_D3[draws].sum(1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    own, base, units = sums_D3.sum(0)
    return {
        "n": len(sums_D3),
        "ratio": round(float(own / base), 4),
        "interval": [round(float(low), 4), round(float(high), 4)],
        "wql": round(float(own / units), 4),
        "wql_shipped": round(float(base / units), 4),
    }


def job(name: str, days: int) -> tuple[str, Lost]:
    """Do one, or read what was done of it."""
    path = FOLDER / f"{name}.json"
    if path.exists():
        found: Lost = json.loads(path.read_text())
        return name, found
    began_s = time.monotonic()
    kind, _, seed = name.partition(":")
    found = drifted(int(seed), kind) if seed else calm(name, days)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    print(name, round(time.monotonic() - began_s), "s", flush=True)
    return name, found


def main() -> None:
    """Race, print and write bench/results/rivals.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    seeds = range(REPORTED_FROM, REPORTED_FROM + asked.seeds)
    names = list(SHOPS) + [f"{kind}:{seed}" for seed in seeds for kind in ("level", "profile")]
    wanted = [name for name in names if not asked.only or name in asked.only]
    with ProcessPoolExecutor(asked.processes) as pool:
        jobs = [pool.submit(job, name, asked.days) for name in wanted]
        done = dict(one.result() for one in jobs)
    numbers: dict[str, Any] = {"days": asked.days, "seeds": list(seeds)}
    numbers["calm"] = {
        name: {who: row(lost) for who, lost in done[name].items()} for name in SHOPS if name in done
    }
    numbers["drift"] = {}
    for kind in ("level", "profile"):
        found = [done[f"{kind}:{seed}"] for seed in seeds if f"{kind}:{seed}" in done]
        for place, which in enumerate(("first_midnight", "second_midnight")):
            numbers["drift"][f"{kind}_{which}"] = {
                who: row([one[who][place] for one in found]) for who in (found[0] if found else {})
            }
    for part in ("calm", "drift"):
        for name, rows in numbers[part].items():
            for who, told in rows.items():
                print(f"{name:24} {who:20} {told}", flush=True)
    if not asked.only:
        print(write_result("rivals", numbers, ["numpy", "torch", "river", "lightgbm"]))


if __name__ == "__main__":
    main()
