"""What `bench.drift` tells of its runs: shares with their intervals, delays, kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.drift_rivers import STEPS


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
        "river": {name: _rivers(runs, name) for name in STEPS},
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
            each: share(
                sum(bool(alerts) for name, alerts in found if name == each),
                sum(name == each for name, _ in found),
            )
            for each in natures
        },
        "alerts": [[name, *alerts[0]] for name, alerts in found if alerts],
    }
