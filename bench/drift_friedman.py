"""Friedman's functions that change (River): the monitor's streams and River's ADWIN side by side.

A model is trained on the first samples and frozen; buckets of 20 errors make a stream of levels and
one of spreads. gra changes over 1,000 samples, gsg twice, lea in a growing part of space.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
from lightgbm import LGBMRegressor
from river.datasets import synth
from scipy.special import ndtr

from freshet.online.drift.detectors import RiverDetector, adwin
from freshet.online.drift.monitor import STREAMS_PER_SEGMENT
from freshet.online.drift.pooled import Pooled, rise_score
from freshet.online.drift.scan import height
from freshet.online.drift.segments import Segments
from freshet.stream.arrays import Floats
from freshet.stream.config import DriftSettings
from freshet.stream.units import HOUR_MS

KINDS = ("gra", "gsg", "lea")
BUCKET, TRAINED, CALM, DRIFTING = 20, 2_000, 8_000, 6_000
SEEDS = 10


def errors(kind: str, seed: int, *, drifts: bool) -> Floats:
    """Standardised errors of a frozen model after its training; the drift comes at CALM."""
    at = TRAINED + CALM if drifts else 10**9
    position = (at, at + 2_000, at + 4_000) if kind == "lea" else (at, at + 2_000)
    stream: Any = synth.FriedmanDrift(
        drift_type=kind, position=position, transition_window=1_000, seed=seed
    )
    pairs = list(islice(stream, TRAINED + CALM + DRIFTING))
    x = np.array([list(features.values()) for features, _ in pairs])
    y = np.array([target for _, target in pairs])
    half = TRAINED // 2
    model = LGBMRegressor(n_estimators=150, num_leaves=15, verbose=-1, n_jobs=1)
    model.fit(x[:half], y[:half])
    miss = y - np.asarray(model.predict(x))
    return np.asarray(miss[TRAINED:] / miss[half:TRAINED].std())


def ours(miss: Floats) -> list[int]:
    """Samples at which the monitor's streams raise an alarm."""
    segments = Segments(DriftSettings(), ["model"])
    least = height(DriftSettings().false_alerts, STREAMS_PER_SEGMENT)
    found = []
    for number, part in enumerate(miss.reshape(-1, BUCKET)):
        ratio = float((part**2).mean())
        noise = 2.0 / (9.0 * BUCKET)
        spread = (ratio ** (1 / 3) - (1.0 - noise)) / noise**0.5
        pooled = Pooled(
            np.array([part.mean() * BUCKET**0.5]),
            np.array([rise_score(ndtr(part)).mean() * BUCKET**0.5]),
            np.ones(1),
            np.array([spread]),
            np.ones(1),
            np.ones(1),
            np.ones(1, bool),
        )
        at_ms = number * HOUR_MS
        changes = segments.update((at_ms, at_ms), ["model"], pooled, least)
        found += [(number + 1) * BUCKET for _, _, begins in changes if begins]
    return found


def rivers(miss: Floats) -> list[int]:
    """The same by ADWIN on absolute errors, as they come, with River's defaults."""
    detector = RiverDetector(adwin())
    return [
        number + 1 for number, value in enumerate(np.abs(miss)) if detector.update(float(value))
    ]


def one(job: tuple[str, int]) -> dict[str, Any]:
    """One stream with drift and one without."""
    kind, seed = job
    found: dict[str, Any] = {"kind": kind}
    drifting = errors(kind, seed, drifts=True)
    calm = errors(kind, seed + 500, drifts=False)
    for name, detect in (("freshet", ours), ("adwin", rivers)):
        after = [at - CALM for at in detect(drifting) if at > CALM]
        found[name] = {"delay": after[0] if after else None, "false": len(detect(calm))}
    return found


def friedman(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Recall, false alarms a calm stream and median delay in samples, of each."""
    return {kind: _table([run for run in runs if run["kind"] == kind]) for kind in KINDS}


def _table(runs: list[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for name in ("freshet", "adwin"):
        delays = [run[name]["delay"] for run in runs]
        heard = [delay for delay in delays if delay is not None]
        found[name] = {
            "runs": len(runs),
            "recall": round(len(heard) / max(len(runs), 1), 2),
            "median_delay_samples": float(np.median(heard)) if heard else None,
            "false_a_stream": round(sum(run[name]["false"] for run in runs) / max(len(runs), 1), 2),
        }
    return found
