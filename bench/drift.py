"""Is drift found, named rightly, and calm left in peace? The monitor against all kinds of shops.

Calm shops: made up, of six natures, watched from their first hour; and drawn in whole days from
what base weights earn on real and simulated shops (`bench.base_scores`), their articles dealt out
to eight segments anew. Counted are shops with any false alert in ten days. Drifts are planted in
sales, and base weights forecast anew from these. Beside the monitor River's detectors watch the
same pooled streams, each as strict as calm needs (`bench.drift_rivers`).

Constants were chosen on shops with seeds below 10,000 and the simulator's first two (`--choose`),
figures are of seeds above and of its others. What was watched is kept in `build/drift_runs`, by the
code of the detectors: a run that was stopped goes on.

Run: python -m bench.base_scores && python -m bench.drift   (about 12 minutes on one idle core)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import resource
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.base_scores import CACHE, PLANTED
from bench.drift_friedman import KINDS, SEEDS, friedman
from bench.drift_friedman import one as one_stream
from bench.drift_rivers import STEPS, alarms, delay, streams_of, strict_enough
from bench.drift_tables import Run, calm_table, share, table
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
from freshet.online import drift as detectors
from freshet.online.drift.monitor import DriftMonitor
from freshet.online.drift.pooled import Pooled
from freshet.online.drift.segments import Segments
from freshet.stream.config import DriftSettings
from freshet.stream.schemas import DriftAlert
from freshet.stream.units import HOUR_MS

CALM_HOURS, DRIFT_HOURS = 240, 72
CHOSEN, REPORTED = 1_000, 10_000
CALM_A_NATURE, CALM_DRAWN, RIVER_CALM = 17, 98, 12
HISTORY_HOURS = 336
DEMOS = {True: ("demo_1", "demo_2"), False: ("demo_3", "demo_4")}
RETAIL = ("online_retail", "dunnhumby")
RUNS = Path("build/drift_runs")
CALM = ("calm", "made_up")


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


def calm_made_up(seed: int) -> Scored:
    """A made-up shop from its first hour on."""
    return made_up(seed, NATURES[nature(seed)], CALM_HOURS)


def nature(seed: int) -> str:
    """Of a made-up shop."""
    return list(NATURES)[seed % len(NATURES)]


def calm_drawn(name: str, seed: int) -> Scored:
    """Ten days drawn from what base weights earned, by pairs of days of the same weekdays."""
    rng = np.random.default_rng(seed)
    scored = of_base_weights(CACHE / f"{name}.npz", seed)
    days = scored.hours // 24
    hours = []
    for day in range(0, CALM_HOURS // 24, 2):
        alike = [other for other in range(days - 1) if other % 7 == day % 7]
        first = 24 * int(rng.choice(alike))
        hours.append(np.arange(first, first + 48))
    drawn = scored.hours_drawn(np.concatenate(hours))
    if name in RETAIL:
        drawn = replace(drawn, segment_N=rng.permutation(drawn.segment_N))
    return drawn


def judged(
    scored: Scored, onset: int, segment: int, *, since: int, steps: dict[str, float | None]
) -> Run:
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
    early = [kind for hours, kind in after if hours <= 18]
    values_LM = streams_of(scored)
    others = sum(alert.segment != name for alert in alerts)
    before = sum(
        alert.segment == name and alert.detected_at_ms // HOUR_MS < onset for alert in alerts
    )
    return Run(
        after[0][0] if after else None,
        after[0][1] if after else "",
        early[-1] if early else "",
        others + before,
        {
            name: None if step is None else delay(name, step, values_LM, onset, segment)
            for name, step in steps.items()
        },
    )


def planted_made_up(label: str, seed: int, steps: dict[str, float | None]) -> Run:
    """A drift in a made-up shop of the plain nature, after two weeks."""
    kind, size = PLANTED[label]
    onset, segment = HISTORY_HOURS + seed * 5 % 24, seed % CATEGORIES
    change = Change(onset, segment, kind, size)
    scored = made_up(seed, NATURES["plain"], onset + DRIFT_HOURS, change)
    return judged(scored, onset, segment, since=0, steps=steps)


def planted_in_base(label: str, name: str, segment: int, steps: dict[str, float | None]) -> Run:
    """A drift in a shop that base weights forecast."""
    path = CACHE / f"{name}.npz"
    scored, onset = drifted(path, label, segment, of_base_weights(path, 0), 1)
    since = max(0, (onset - HISTORY_HOURS) // 24 * 24)
    return judged(scored, onset, segment, since=since, steps=steps)


# Jobs ---------------------------------------------------------------------------------------------

Job = tuple[str, str, int]


def done(job_and_steps: tuple[Job, dict[str, float | None]]) -> tuple[Job, Any]:
    """One job: a calm shop's alerts, what River's do there, what came of a drift, and the rest."""
    job, steps = job_and_steps
    what, name, number = job
    if what == "strict":
        shops = (streams_of(calm_made_up(CHOSEN + place)) for place in range(RIVER_CALM))
        return job, strict_enough(name, shops)
    if what == "friedman":
        return job, one_stream((name, number))
    if what == "cost":
        return job, cost()
    if what == "calm":
        return job, calm_alerts(calm_drawn(name, number))
    if what == "made_up":
        return job, calm_alerts(calm_made_up(number))
    if what == "river":
        values_LM = streams_of(calm_made_up(number))
        told = {each: step is None or alarms(each, step, values_LM) for each, step in steps.items()}
        return job, told
    if name == "plain":
        return job, asdict(planted_made_up(what, number, steps))
    return job, asdict(planted_in_base(what, name, number, steps))


def jobs(*, choose: bool, runs: int, segments: int) -> list[Job]:
    """All that is watched, mixed: whatever comes of a part tells something of all."""
    first = CHOSEN if choose else REPORTED
    demos = DEMOS[choose]
    wanted: list[Job] = [
        ("made_up", nature(seed), seed) for seed in range(first, first + CALM_A_NATURE * 6)
    ]
    for number in range(CALM_DRAWN):
        wanted.append(("calm", (*demos, *RETAIL)[number % 4], first + number))
    wanted += [("river", nature(seed), seed) for seed in range(first, first + RIVER_CALM)]
    for label in PLANTED:
        wanted += [(label, "plain", first + number) for number in range(runs)]
        for name in (*demos, *RETAIL):
            own = segments if name in demos else segments // 4
            wanted += [(label, name, segment) for segment in range(own)]
    wanted += [("friedman", kind, first + seed) for kind in KINDS for seed in range(SEEDS)]
    wanted.append(("cost", "items", 0))
    order = np.random.default_rng(0).permutation(len(wanted))
    return [wanted[place] for place in order]


def watched(wanted: list[Job], *, processes: int, minutes: float) -> dict[Job, Any]:
    """What is known of each job, as many as get done in time; those of earlier runs are kept."""
    source = b"".join(
        path.read_bytes() for path in sorted(Path(detectors.__path__[0]).glob("*.py"))
    )
    path = RUNS / f"{hashlib.sha256(source).hexdigest()[:12]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().splitlines() if path.exists() else []
    known = {tuple(job): found for job, found in map(json.loads, lines)}
    strict: list[Job] = [("strict", name, 0) for name in STEPS]
    for part in (strict, wanted):
        if time.process_time() > 60 * minutes:
            break
        steps = {name: known.get(("strict", name, 0)) for name in STEPS}
        left = [(job, steps) for job in part if job not in known]
        with multiprocessing.Pool(processes) as pool_of, path.open("a") as file:
            found_of = pool_of.imap_unordered(done, left) if processes > 1 else map(done, left)
            for job, found in found_of:
                known[job] = json.loads(json.dumps(found))
                file.write(json.dumps([job, found]) + "\n")
                file.flush()
                if time.process_time() > 60 * minutes and processes == 1:
                    break
    return {job: known[job] for job in (*strict, *wanted) if job in known}


# All together -----------------------------------------------------------------------------------


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
        segments.update((hour * HOUR_MS, hour * HOUR_MS), names, pooled, 9.0)
        took.append(time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "items": num_streams,
        "median_cpu_ms": round(1e3 * float(np.median(took[5:])), 1),
        "best_cpu_ms": round(1e3 * min(took[5:]), 1),
        "peak_gib": round(peak, 2),
    }


def main() -> None:
    """Measure, print and, unless constants are chosen, write bench/results/drift.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--choose", action="store_true", help="The seeds to choose constants on.")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--runs", type=int, default=24, help="Made-up shops for each drift.")
    parser.add_argument("--segments", type=int, default=8, help="Of each forecast shop.")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="Of CPU, then what is known is told."
    )
    given = parser.parse_args()
    wanted = jobs(choose=given.choose, runs=given.runs, segments=given.segments)
    known = watched(wanted, processes=given.processes, minutes=given.minutes)
    numbers: dict[str, Any] = {"jobs": {"wanted": len(STEPS) + len(wanted), "done": len(known)}}
    numbers |= tables(known)
    print(json.dumps(numbers, indent=1))
    if not given.choose:
        write_result("drift", numbers, ["numpy", "scipy", "river"])


def tables(known: dict[Job, Any]) -> dict[str, Any]:
    """Calm and each drift."""
    calm = [(name, alerts) for (what, name, _), alerts in known.items() if what in CALM]
    strict = [told for (what, _, _), told in known.items() if what == "river"]
    found: dict[str, Any] = {
        "calm": calm_table(calm),
        "river_steps": {name: known.get(("strict", name, 0)) for name in STEPS},
        "cost": known.get(("cost", "items", 0)),
        "friedman": friedman([run for (what, _, _), run in known.items() if what == "friedman"]),
        "calm_river": {
            name: share(sum(told[name] for told in strict), len(strict)) for name in STEPS
        },
    }
    for label, (kind, _) in PLANTED.items():
        found[label] = {
            world: table([Run(**run) for job, run in known.items() if job[:2] in of], kind)
            for world, of in (
                ("made_up", {(label, "plain")}),
                ("base_weights_demo", {(label, name) for name in sum(DEMOS.values(), ())}),
                ("base_weights_retail", {(label, name) for name in RETAIL}),
            )
        }
    return found


if __name__ == "__main__":
    main()
