"""What training by the schedule gains over the shipped weights, and what it forgets.

A shop is replayed week by week, as learn would live through it: fine-tune the champion on what is
retained, put the challenger on trial day by day, and serve from the next midnight on what passed.
Each midnight the served and the shipped weights forecast the day that begins; both are scored when
it is over. `gated` promotes what passes the gate, `tethered` all that learn would put before it,
and `forced` the same without a cap on what may be forgotten, which shows what a row of promotions
loses elsewhere: on Rossmann by day and on the other shops by the hour.

Dimensions: I items.

Run: FRESHET_DATA=... python -m bench.schedule [--minutes 15] [--only SHOP:POLICY ...]
It goes on where it was stopped, and writes the results file once all is done, or with --write.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.base_scores import World, simulated
from bench.hours import batch_of, shops
from bench.report import write_result
from bench.schedule_shop import CONTEXT, STEPS, Past
from freshet.model.batch import Batch
from freshet.model.checkpoint import BASE_WEIGHTS
from freshet.model.network import FreshetNetwork
from freshet.model.tables.prepare import rossmann_daily
from freshet.model.training.train import held_out_loss
from freshet.model.weights import load_weights, save_weights
from freshet.online.learn.finetune import make_challenger
from freshet.online.trials.contest import Contest, Terms, chosen_items, measured, whole_days
from freshet.online.trials.evaluation import compare
from freshet.online.trials.pools import Pools, build_pools, split_history
from freshet.online.trials.shadow import Shadow
from freshet.online.trials.windows import Split
from freshet.stream.arrays import Singles
from freshet.stream.config import LearnSettings
from freshet.stream.units import DAY_MS

FOLDER = Path("build/schedule")
FIRST_DAY, MOST_ITEMS, NUM_SEGMENTS = 63, 120, 8
# Weeks that are replayed: 70 days gated, 30 promotions in a row; of these so many are scored.
SCORED = 10
WEEKS = {"gated": 10, "tethered": 30, "forced": 30}
SIMULATED_DAYS = FIRST_DAY + 7 * 10
WEEK_SHARE = 7 / 365
PATCH = 16  # contexts of the bare network are whole patches
OTHER_ROWS, OTHER_CUTOFFS, ROSSMANN_STEPS = 192, 3, 48
JOBS = (
    *("online_retail:gated", "dunnhumby:gated", "demo_1:gated"),
    *("dunnhumby:tethered", "dunnhumby:forced"),
)
SETTINGS = LearnSettings(device="cpu")

Others = dict[str, list[tuple[Batch, torch.Tensor]]]


def world(name: str) -> World:
    """One of the shops, its brisk items, with all of its days."""
    if name.startswith("demo_"):
        return simulated(int(name[5:]), SIMULATED_DAYS)
    wanted = {"online_retail": "online_retail", "dunnhumby": "dunnhumby_product_category"}[name]
    shop = next(one for one in shops(_data()) if one.name == wanted)
    # By what was sold before the replay begins: nobody knows more then.
    order = np.argsort(-shop.hours_NL[:, : FIRST_DAY * 24].sum(1), kind="stable")
    rows = order[:MOST_ITEMS]
    none = np.zeros((len(rows), shop.hours_NL.shape[1]), bool)
    segment_N = np.arange(len(rows)) % NUM_SEGMENTS
    return World(shop.hours_NL[rows], none, ~none, segment_N, shop.first_ms, 0)


def others() -> Others:
    """Windows of shops that no training here sees."""
    rows = np.random.default_rng(1)
    found = {"rossmann": _windows(_rossmann(), DAY_MS, ROSSMANN_STEPS, rows)}
    # Those of real lines come first; the others take minutes to make.
    for shop in islice(shops(_data()), 3):
        if shop.name in ("online_retail", "dunnhumby_department"):
            found[shop.name] = _windows((shop.hours_NL, shop.first_ms), 3_600_000, STEPS, rows)
    return found


def _windows(
    series: tuple[Singles, int], resolution_ms: int, steps: int, rng: np.random.Generator
) -> list[tuple[Batch, torch.Tensor]]:
    target_NL, first_ms = series
    brisk = np.argsort(-np.nansum(target_NL, axis=1), kind="stable")[: 4 * OTHER_ROWS]
    rows = np.sort(rng.permutation(brisk)[:OTHER_ROWS])
    last = target_NL.shape[1] - steps
    windows = []
    context = min(CONTEXT, last // 2 // PATCH * PATCH)
    for stop in np.linspace(context, last, OTHER_CUTOFFS).astype(int):
        context_BT = target_NL[rows, stop - context : stop]
        batch = batch_of(context_BT, 64, first_ms + int(stop) * resolution_ms, resolution_ms)
        actual_BH = np.full((len(rows), 64), np.nan, np.float32)
        actual_BH[:, :steps] = target_NL[rows, stop : stop + steps]
        windows.append((batch, torch.from_numpy(actual_BH)))
    return windows


def _rossmann() -> tuple[Singles, int]:
    days = rossmann_daily(_data() / "rossmann")
    table = days.pivot(index="id", columns="timestamp", values="target")
    return table.to_numpy(np.float32), int(table.columns[0].timestamp()) * 1_000


def _data() -> Path:
    return Path(os.environ["FRESHET_DATA"])


@dataclass(slots=True)
class Replay:
    """One shop under one policy, and how far it is."""

    name: str
    policy: str
    base: FreshetNetwork
    elsewhere: Others
    past: Past = field(init=False)
    champion: FreshetNetwork = field(init=False)
    trainee: FreshetNetwork = field(init=False)
    weeks: list[dict[str, Any]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.past = Past(world(self.name), FIRST_DAY)
        if self._path.exists():
            self.weeks = json.loads(self._path.read_text())
        self.champion = self._kept("champion") or self.base
        self.trainee = self._kept("trainee") or self.champion

    @property
    def done(self) -> bool:
        """All weeks are replayed."""
        most = (self.past.num_days - FIRST_DAY) // 7
        return len(self.weeks) >= min(WEEKS[self.policy], most)

    def week(self) -> None:
        """Replay the next one. Durable effects: the champion's weights, then the week."""
        day = FIRST_DAY + 7 * len(self.weeks)
        started = time.process_time()
        self.past.known = day * 24
        report: dict[str, Any] = {"day": day, "decision": "forced"}
        split = split_history(self.past, SETTINGS, None)
        pools = build_pools(self.past, split, (), SETTINGS.seed)
        base = None if self.policy == "forced" else self.base
        made = make_challenger(self.trainee, pools, settings=SETTINGS, base=base)
        challenger, since = made.network, 0
        report |= {"kept": made.kept, "factor": made.factor}
        if self.policy == "gated":
            since = self._trial(self._contest(challenger, split, pools), day, report)
        served = [self.champion if ahead < since else challenger for ahead in range(7)]
        self.past.known = (day + 7) * 24
        if len(self.weeks) < SCORED:
            report["days"] = [self._day(day + ahead, one) for ahead, one in enumerate(served)]
        if since <= len(served):
            self.champion = challenger
        # Training goes on from what was better, if not surely so.
        self.trainee = challenger if report.get("gate", 1.0) > 0.0 else self.champion
        save_weights(self.champion, self._folder / "champion", card="# replayed\n")
        save_weights(self.trainee, self._folder / "trainee", card="# replayed\n")
        report["others"] = self._lost_elsewhere()
        report["cpu_s"] = round(time.process_time() - started, 1)
        self.weeks.append(report)
        FOLDER.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self.weeks))
        print(self.name, self.policy, summary(self.weeks), flush=True)

    def _contest(self, challenger: FreshetNetwork, split: Split, pools: Pools) -> Contest:
        """What learn declares before the first look."""
        standing = measured(
            self.champion, challenger, base=self.base, anchors=pools.anchors, pool=pools.validation
        )
        terms = Terms(
            request_id="scheduled",
            parent="champion",
            segments=(),
            onset_ms=None,
            start_ms=split.holdout_start_ms,
            first_days=whole_days(split.grid, split.holdout_buckets),
            num_looks=SETTINGS.trial_days,
            error=WEEK_SHARE,
            item_ids=chosen_items(self.past, (), SETTINGS.seed),
            standing=standing,
        )
        shadow = Shadow(self.past, terms.item_ids, self.champion, challenger)
        return Contest(terms, shadow, SETTINGS.gate_margin)

    def _trial(self, contest: Contest, day: int, report: dict[str, Any]) -> int:
        """After how many days the challenger serves; 7 where it does not within the week."""
        for passed in range(8):
            self.past.known = (day + passed) * 24
            verdict = contest.proceed()
            if verdict is not None and verdict.decision != "not yet":
                report |= {"decision": verdict.decision, "looked": passed, "why": verdict.reason}
                report |= {"gate": verdict.gain.gain}
                # What passes on the last day of the week serves the next one.
                return passed if verdict.promote else 8
        report["decision"] = "expired"
        return 8

    def _day(self, day: int, served: FreshetNetwork) -> tuple[float, float]:
        """Losses of the shipped and of the served weights on a day, forecast at its midnight."""
        both = compare(
            self.past,
            self.base,
            served,
            start_ms=self.past.at(day),
            end_ms=self.past.at(day + 1),
            maximum=len(self.past.units_NL),
        )
        return float(np.nansum(both.first_IT)), float(np.nansum(both.second_IT))

    def _lost_elsewhere(self) -> dict[str, float]:
        return {
            name: lost(self.champion, windows) / lost(self.base, windows) - 1.0
            for name, windows in self.elsewhere.items()
            if not name.startswith(self.name)
        }

    def _kept(self, role: str) -> FreshetNetwork | None:
        folder = self._folder / role
        return load_weights(folder).network if (folder / "config.json").exists() else None

    @property
    def _path(self) -> Path:
        return FOLDER / f"{self.name}_{self.policy}.json"

    @property
    def _folder(self) -> Path:
        return FOLDER / f"{self.name}_{self.policy}"


def lost(network: FreshetNetwork, windows: list[tuple[Batch, torch.Tensor]]) -> float:
    """Mean loss on the network's own scale."""
    return float(np.mean([held_out_loss(network, *window) for window in windows]))


def summary(weeks: list[dict[str, Any]]) -> dict[str, Any]:
    """Gain over the shipped weights by month of four weeks, verdicts, what others lose."""
    losses = np.array([np.sum(week["days"], axis=0) for week in weeks if "days" in week])
    months = [losses[start : start + 4].sum(0) for start in range(0, len(losses), 4)]
    decisions = [week["decision"] for week in weeks]
    return {
        "weeks": len(weeks),
        "days_scored": 7 * len(losses),
        "loss_over_base": round(float(losses[:, 1].sum() / losses[:, 0].sum()), 4),
        "by_month": [round(float(served / base), 4) for base, served in months],
        "decisions": {name: decisions.count(name) for name in sorted(set(decisions))},
        "others_lose": {name: round(value, 4) for name, value in weeks[-1]["others"].items()},
        "others_lose_at_most": {
            name: round(max(week["others"][name] for week in weeks), 4)
            for name in weeks[-1]["others"]
        },
        "cpu_s_a_week": round(float(np.mean([week["cpu_s"] for week in weeks])), 1),
    }


def run(jobs: list[str], minutes: float) -> Iterator[Replay]:
    """Replay week by week until the time is over; what is done, or how far it is."""
    base = load_weights(BASE_WEIGHTS).network
    elsewhere = others()
    over: Callable[[], bool] = _timer(minutes)
    for job in jobs:
        name, policy = job.split(":")
        replay = Replay(name, policy, base, elsewhere)
        while not replay.done and not over():
            replay.week()
        yield replay


def _timer(minutes: float) -> Callable[[], bool]:
    end = time.monotonic() + 60.0 * minutes
    return lambda: time.monotonic() > end


def main() -> None:
    """Go on, and write what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--only", nargs="*", default=list(JOBS))
    parser.add_argument("--write", action="store_true", help="Also where not all is done.")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    replays = list(run(args.only, args.minutes))
    if args.write or all(one.done for one in replays):
        found = {f"{one.name}:{one.policy}": summary(one.weeks) for one in replays if one.weeks}
        write_result("schedule", {"weeks": found}, ["torch", "numpy"])


if __name__ == "__main__":
    main()
