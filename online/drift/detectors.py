"""River's detectors behind one interface: one value after the other in, a verdict out.

They are the yardstick of `bench/drift.py`, on the streams that `segments.py` watches.
"""

from __future__ import annotations

from typing import Any, Protocol

from river.drift import ADWIN, KSWIN, PageHinkley


class Detector(Protocol):
    """Watches one stream."""

    def update(self, value: float) -> bool:
        """Take a value; whether the stream drifts with it."""
        ...


class RiverDetector:
    """One of River's.

    >>> detector = RiverDetector(page_hinkley())
    >>> any(detector.update(0.0) for _ in range(50)), any(detector.update(9.0) for _ in range(50))
    (False, True)
    """

    def __init__(self, detector: Any) -> None:
        self._detector = detector

    def update(self, value: float) -> bool:
        """Take a value; whether the stream drifts with it."""
        self._detector.update(value)
        return bool(self._detector.drift_detected)


def adwin(delta: float = 0.002, grace: int = 12) -> Any:
    """River's own default looks every 32 values only; buckets are too few for that."""
    make: Any = ADWIN
    return make(delta=delta, clock=1, grace_period=grace)


def kswin(alpha: float = 0.0001, seed: int = 1) -> Any:
    """Two windows compared by Kolmogorov and Smirnov's test."""
    make: Any = KSWIN
    return make(alpha=alpha, window_size=72, stat_size=18, seed=seed)


def page_hinkley(threshold: float = 20.0) -> Any:
    """A cumulative sum both ways."""
    make: Any = PageHinkley
    return make(min_instances=12, delta=0.25, threshold=threshold)
