"""Which way of forecasting a drifting segment earns its place, by the newest final buckets.

A function of the segment's losses by candidate and of what serves now, so that whoever holds the
losses may decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from freshet.stream.schemas import AdjustmentName

Candidate = AdjustmentName
"""`hidden`: contexts begin at the onset. What was sold before it is brought to the level or the
time of day that the segment has since (`shifted`), or each hour to what it sells (`profile`)."""
CANDIDATES: tuple[Candidate, ...] = ("as_it_is", "hidden", "profile", "shifted")

# (All chosen on the seeds that `bench/recovery.py` does not report.)
NEWEST_BUCKETS = 12
HALF_LIFE_BUCKETS = 6.0
FEWEST_BUCKETS = 2
# To leave "as it is" asks for more than to change between two adjustments, and to stay for less.
ENTER = 0.10
SWITCH = 0.05
WINS = 0.6  # share of the newest buckets in which an adjustment must have been better
WINS_BUCKETS = 6


@dataclass(frozen=True, slots=True)
class Trial:
    """What each candidate would have lost on one final bucket, from the same cutoffs."""

    bucket_ms: int
    losses: Mapping[Candidate, float]


def choose(trials: Sequence[Trial], serving: Candidate) -> Candidate:
    """Who serves next.

    Args:
        trials: Of final buckets since the onset, oldest first.
        serving: Who serves now.

    >>> choose([Trial(0, {"as_it_is": 9.0, "hidden": 5.0})], "as_it_is")
    'as_it_is'
    >>> twice = [Trial(hour, {"as_it_is": 9.0, "hidden": 5.0}) for hour in (0, 1)]
    >>> choose(twice, "as_it_is")
    'hidden'
    """
    newest = trials[-NEWEST_BUCKETS:]
    if len(newest) < FEWEST_BUCKETS:
        return "as_it_is"
    loss = _losses(newest)
    if serving not in loss or loss[serving] >= loss["as_it_is"]:
        serving = "as_it_is"
    best = min(loss, key=lambda name: (loss[name], name))
    if best == serving or best == "as_it_is":
        return serving
    if serving != "as_it_is":
        return best if loss[best] < (1.0 - SWITCH) * loss[serving] else serving
    enough = loss[best] < (1.0 - ENTER) * loss["as_it_is"]
    return best if enough and _wins(newest, best) >= WINS else "as_it_is"


def _losses(trials: Sequence[Trial]) -> dict[Candidate, float]:
    """Sums in which a bucket counts half as much as one of so many buckets later."""
    total: dict[Candidate, float] = dict.fromkeys(trials[-1].losses, 0.0)
    for age, trial in enumerate(reversed(trials)):
        weight = 2.0 ** (-age / HALF_LIFE_BUCKETS)
        for name, loss in trial.losses.items():
            total[name] += weight * loss
    return total


def _wins(trials: Sequence[Trial], name: Candidate) -> float:
    newest = trials[-WINS_BUCKETS:]
    better = [trial.losses[name] < trial.losses["as_it_is"] for trial in newest]
    return sum(better) / len(better)
