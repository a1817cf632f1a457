"""River's detectors on the monitor's pooled streams, each as strict as a calm shop needs.

Each is made stricter step by step until none of the shops that constants are chosen on raises an
alarm in ten calm days, which is what the monitor's budget comes to on them; then it is held against
other shops. One detector a stream, level and spread of every segment, values as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from bench.drift_worlds import Scored
from freshet.online.drift.detectors import RiverDetector, adwin, kswin, page_hinkley
from freshet.online.drift.pooled import pool
from freshet.stream.arrays import Floats

# From lax to strict; the first of each is what is usual.
STEPS: dict[str, list[float]] = {
    "page_hinkley": [20.0, 30.0, 40.0, 50.0, 65.0, 85.0, 110.0, 150.0],
    "adwin": [2e-3, 1e-4, 1e-6, 1e-8, 1e-10, 1e-13, 1e-16],
    "kswin": [1e-4, 1e-6, 1e-8, 1e-10],
}
MAKE: dict[str, Callable[[float], Any]] = {
    "adwin": lambda step: adwin(delta=step),
    "kswin": lambda step: kswin(alpha=step),
    "page_hinkley": lambda step: page_hinkley(threshold=step),
}


def streams_of(scored: Scored) -> Floats:
    """Level and spread of every segment by the hour: [L, 2 S]."""
    pooled = [pool(batch) for batch in scored.batches()]
    return np.array([np.concatenate([one.level_S, one.spread_S]) for one in pooled])


def first_alarm(name: str, step: float, values_L: Floats) -> int | None:
    """The bucket in which a detector alarms first."""
    detector = RiverDetector(MAKE[name](step))
    return next((at for at, value in enumerate(values_L) if detector.update(float(value))), None)


def alarms(name: str, step: float, values_LM: Floats) -> bool:
    """Whether any stream of a shop alarms."""
    return any(first_alarm(name, step, values_L) is not None for values_L in values_LM.T)


def strict_enough(name: str, shops: Iterable[Floats]) -> float | None:
    """The laxest step with which no shop alarms; None where none of them will do."""
    kept = list(shops)
    for step in STEPS[name]:
        if not any(alarms(name, step, values_LM) for values_LM in kept):
            return step
    return None


def delay(name: str, step: float, values_LM: Floats, onset: int, segment: int) -> int | None:
    """Hours until the level or spread of a segment alarms after an onset, from 1.

    An alarm before it is forgotten: River's begin anew after each.
    """
    found = []
    for column in (segment, segment + values_LM.shape[1] // 2):
        detector = RiverDetector(MAKE[name](step))
        told = [detector.update(float(value)) for value in values_LM[:, column]]
        after = [at - onset + 1 for at, alarm in enumerate(told) if alarm and at >= onset]
        found += after[:1]
    return min(found, default=None)
