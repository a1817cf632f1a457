"""Is drift found, named rightly, and calm left in peace? The monitor against all kinds of shops.

Calm shops: made up, of six natures, watched from their first hour; and drawn in whole days from
what base weights earn on real and simulated shops (`bench.base_scores`), their articles dealt out
to eight segments anew. Counted are shops with any false alert in ten days. Drifts are planted in
sales, and base weights forecast anew from these. Beside the monitor River's detectors watch the
same pooled streams, one detector a segment, as they come.

Constants were chosen on shops with seeds below 10,000 (`--choose`), figures are of seeds above.

Run: python -m bench.base_scores && python -m bench.drift   (about 8 minutes on two cores)
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.base_scores import CACHE, PLANTED
from bench.drift_friedman import friedman
from bench.drift_worlds import (
    CATEGORIES,
    NATURES,
    Change,
    Scored,
    drifted,
    made_up,
    of_base_weights,
)
from bench.report import write_result
from freshet.online.drift.detectors import RIVER, RiverDetector
from freshet.online.drift.monitor import DriftMonitor
from freshet.online.drift.pooled import Pooled, pool
from freshet.online.drift.segments import Segments
from freshet.stream.config import DriftSettings
from freshet.stream.schemas import DriftAlert
from freshet.stream.units import HOUR_MS

CALM_HOURS, DRIFT_HOURS = 240, 72
CHOSEN, REPORTED = 1_000, 10_000
CALM_A_NATURE, CALM_DRAWN, RIVER_CALM = 17, 98, 12
HISTORY_HOURS = 336


@dataclass(frozen=True, slots=True)
class Run:
    """One planted drift, and what came of it.

    Attributes:
        delay: Hours until the first alert of that segment or of the shop, from 1; None: none.
        first: Its kind.
        by_18: The newest kind 18 hours after the onset.
        false: Alerts before the onset, or of other segments.
        river: Delay by each of River's.
    """

    delay: int | None
    first: str
    by_18: str
    false: int
    river: dict[str, int | None]


def watch(scored: Scored) -> list[DriftAlert]:
    """What the monitor says, hour after hour; `detected_at_ms` is the hour's start."""
    monitor = DriftMonitor(DriftSettings(), HOUR_MS)
    found = []
    for hour, batch in enumerate(scored.batches()):
        found += monitor.take(hour * HOUR_MS, batch, now_ms=hour * HOUR_MS)
    return found


def calm_alerts(scored: Scored) -> list[tuple[int, str, str]]:
    """False alerts: hour, segment, kind."""
    return [
        (alert.detected_at_ms // HOUR_MS, alert.segment, alert.kind)
        for alert in watch(scored)
        if alert.state == "drift"
    ]


def calm_made_up(seed: int) -> tuple[str, list[tuple[int, str, str]]]:
    """A made-up shop from its first hour on."""
    name = list(NATURES)[seed % len(NATURES)]
    return name, calm_alerts(made_up(seed, NATURES[name], CALM_HOURS))


def calm_drawn(seed: int) -> tuple[str, list[tuple[int, str, str]]]:
    """Ten days drawn from what base weights earned, by pairs of days of the same weekdays."""
    paths = sorted(CACHE.glob("*.npz"))
    path = paths[seed % len(paths)]
    rng = np.random.default_rng(seed)
    scored = of_base_weights(path, seed)
    days = scored.hours // 24
    hours = []
    for day in range(0, CALM_HOURS // 24, 2):
        alike = [other for other in range(days - 1) if other % 7 == day % 7]
        first = 24 * int(rng.choice(alike))
        hours.append(np.arange(first, first + 48))
    drawn = scored.hours_drawn(np.concatenate(hours))
    if not path.stem.startswith("demo"):
        drawn = replace(drawn, segment_N=rng.permutation(drawn.segment_N))
    return path.stem.split("_")[0], calm_alerts(drawn)


def judged(scored: Scored, onset: int, segment: int, *, since: int) -> Run:
    """Watch a shop in which one segment drifts from its onset on."""
    scored = scored.rows(since, min(onset + DRIFT_HOURS, scored.hours))
    onset -= since
    name = f"c{segment}"
    alerts = [alert for alert in watch(scored) if alert.state == "drift"]
    # An alert in the first hour of the drift has a delay of one hour: that hour had to end.
    after = [
        (alert.detected_at_ms // HOUR_MS - onset + 1, alert.kind)
        for alert in alerts
        if alert.segment == name and alert.detected_at_ms // HOUR_MS >= onset
    ]
    early = [kind for delay, kind in after if delay <= 18]
    others = sum(alert.segment != name for alert in alerts)
    before = sum(
        alert.segment == name and alert.detected_at_ms // HOUR_MS < onset for alert in alerts
    )
    return Run(
        after[0][0] if after else None,
        after[0][1] if after else "",
        early[-1] if early else "",
        others + before,
        rivers(scored, onset, segment),
    )


def rivers(scored: Scored, onset: int, segment: int) -> dict[str, int | None]:
    """Delay by each of River's, on level and spread of the segment as they come."""
    pooled = [pool(batch) for batch in scored.batches()]
    found: dict[str, int | None] = {}
    for name, make in RIVER.items():
        level, spread = RiverDetector(make()), RiverDetector(make())
        found[name] = None
        for hour, one in enumerate(pooled):
            both = [level.update(one.level_S[segment]), spread.update(one.spread_S[segment])]
            if any(both) and hour >= onset:
                found[name] = hour - onset + 1
                break
    return found


def rivers_calm(seed: int) -> dict[str, bool]:
    """Whether any of the shop's streams alarms by each of River's within ten calm days."""
    name = list(NATURES)[seed % len(NATURES)]
    pooled = [pool(batch) for batch in made_up(seed, NATURES[name], CALM_HOURS).batches()]
    found = {}
    for detector, make in RIVER.items():
        streams = [RiverDetector(make()) for _ in range(2 * CATEGORIES)]
        found[detector] = any(
            stream.update(float(value))
            for one in pooled
            for stream, value in zip(
                streams, np.concatenate([one.level_S, one.spread_S]), strict=True
            )
        )
    return found


def planted_made_up(job: tuple[str, int]) -> Run:
    """A drift in a made-up shop of the plain nature, after two weeks."""
    label, seed = job
    kind, size = PLANTED[label]
    onset, segment = HISTORY_HOURS + seed * 5 % 24, seed % CATEGORIES
    change = Change(onset, segment, kind, size)
    scored = made_up(seed, NATURES["plain"], onset + DRIFT_HOURS, change)
    return judged(scored, onset, segment, since=0)


def planted_in_base(job: tuple[str, str, int]) -> Run:
    """A drift in a shop that base weights forecast."""
    label, name, segment = job
    path = CACHE / f"{name}.npz"
    scored, onset = drifted(path, label, segment, of_base_weights(path, 0), 1)
    return judged(scored, onset, segment, since=max(0, (onset - HISTORY_HOURS) // 24 * 24))


# Tables -------------------------------------------------------------------------------------------


def interval(hits: int, num: int) -> list[float]:
    """Wilson's 95 % interval of a share."""
    if not num:
        return [0.0, 1.0]
    share, z = hits / num, 1.96
    middle = (share + z**2 / (2 * num)) / (1 + z**2 / num)
    half = z * (share * (1 - share) / num + z**2 / (4 * num**2)) ** 0.5 / (1 + z**2 / num)
    return [round(middle - half, 3), round(middle + half, 3)]


def share(hits: int, num: int) -> dict[str, Any]:
    """A share with its interval."""
    return {"of": num, "share": round(hits / max(num, 1), 3), "interval": interval(hits, num)}


def table(runs: list[Run], kind: str) -> dict[str, Any]:
    """Delay, recall and kinds of one planted drift."""
    delays = [run.delay if run.delay is not None else np.inf for run in runs]
    found = [run for run in runs if run.delay is not None]
    early = [run for run in runs if run.by_18]
    median = float(np.median(delays))
    return {
        "runs": len(runs),
        "median_delay_h": median if np.isfinite(median) else None,
        "recall_3_days": share(len(found), len(runs)),
        "kind_at_first_alert": share(sum(run.first == kind for run in found), len(found)),
        "kind_by_18_h": share(sum(run.by_18 == kind for run in early), len(early)),
        "false_alerts": sum(run.false for run in runs),
        "river": {name: _rivers(runs, name) for name in RIVER},
    }


def _rivers(runs: list[Run], name: str) -> dict[str, Any]:
    delays = [run.river[name] if run.river[name] is not None else np.inf for run in runs]
    median = float(np.median(np.array(delays, float)))
    found = int(np.isfinite(np.array(delays, float)).sum())
    return {
        "median_delay_h": median if np.isfinite(median) else None,
        "recall_3_days": share(found, len(runs)),
    }


def calm_table(found: list[tuple[str, list[tuple[int, str, str]]]]) -> dict[str, Any]:
    """Shops with any false alert, all together and by nature."""
    natures = sorted({name for name, _ in found})
    return share(sum(bool(alerts) for _, alerts in found), len(found)) | {
        "by_nature": {
            nature: share(
                sum(bool(alerts) for name, alerts in found if name == nature),
                sum(name == nature for name, _ in found),
            )
            for nature in natures
        },
        "alerts": [[name, *alerts[0]] for name, alerts in found if alerts],
    }


def cost(num_streams: int = 100_000, ticks: int = 40) -> dict[str, Any]:
    """One tick of so many items' detectors, each with a level and a spread."""
    names = [f"item {number}" for number in range(num_streams)]
    segments = Segments(DriftSettings(), names)
    rng = np.random.default_rng(0)
    took = []
    for hour in range(ticks):
        level, spread = rng.normal(size=num_streams), rng.normal(size=num_streams)
        ones = np.ones(num_streams)
        pooled = Pooled(level, level, ones, spread, ones, ones, ones > 0)
        began = time.process_time()
        segments.update(hour * HOUR_MS, names, pooled, 9.0)
        took.append(time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "items": num_streams,
        "median_cpu_ms": round(1e3 * float(np.median(took[5:])), 1),
        "best_cpu_ms": round(1e3 * min(took[5:]), 1),
        "peak_gib": round(peak, 2),
    }


def every(work: Callable[[Any], Any], jobs: Iterable[Any], processes: int) -> list[Any]:
    """All jobs, on some processes."""
    with ProcessPoolExecutor(processes) as pool_of:
        return list(pool_of.map(work, jobs, chunksize=2))


def main() -> None:
    """Measure, print and, unless constants are chosen, write bench/results/drift.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--choose", action="store_true", help="The seeds to choose constants on.")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=int, default=40, help="Made-up shops for each drift.")
    parser.add_argument("--segments", type=int, default=8, help="Of each forecast shop.")
    given = parser.parse_args()
    first = CHOSEN if given.choose else REPORTED
    numbers: dict[str, Any] = {}
    seeds = range(first, first + CALM_A_NATURE * len(NATURES))
    made = every(calm_made_up, seeds, given.processes)
    drawn = every(calm_drawn, range(first, first + CALM_DRAWN), given.processes)
    numbers["calm"] = calm_table(made + drawn)
    print(numbers["calm"], flush=True)
    keep(numbers, given)
    names = [path.stem for path in sorted(CACHE.glob("*.npz"))]
    for label, (kind, _) in PLANTED.items():
        made_jobs = [(label, first + number) for number in range(given.runs)]
        base_jobs = [(label, name, segment) for name in names for segment in range(given.segments)]
        in_base = every(planted_in_base, base_jobs, given.processes)
        demo = [run for job, run in zip(base_jobs, in_base, strict=True) if "demo" in job[1]]
        others = [run for job, run in zip(base_jobs, in_base, strict=True) if "demo" not in job[1]]
        numbers[label] = {
            "made_up": table(every(planted_made_up, made_jobs, given.processes), kind),
            "base_weights_demo": table(demo, kind),
            "base_weights_retail": table(others, kind),
        }
        print(label, numbers[label], flush=True)
        keep(numbers, given)
    numbers["cost"] = cost()
    keep(numbers, given)
    numbers["friedman"] = friedman(first, given.processes)
    print(numbers["friedman"], flush=True)
    keep(numbers, given)
    noisy = every(rivers_calm, seeds[:RIVER_CALM], given.processes)
    numbers["calm_river"] = {
        name: share(sum(one[name] for one in noisy), len(noisy)) for name in RIVER
    }
    print(numbers["calm_river"], flush=True)
    keep(numbers, given)


def keep(numbers: dict[str, Any], given: argparse.Namespace) -> None:
    """Write what is known so far, unless constants are chosen."""
    if not given.choose:
        write_result("drift", numbers, ["numpy", "scipy", "river"])


if __name__ == "__main__":
    main()
