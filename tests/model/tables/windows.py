"""Windows and tables for tests, small enough to write down."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats, Ints
from freshet.stream.units import DAY_MS


def window_of(
    target: Floats, *, horizon: int, season_length: int = 7, length: Ints | None = None
) -> Window:
    """A daily window without covariates."""
    N, T = target.shape
    return Window(
        item_ids=tuple(f"item{row}" for row in range(N)),
        frequency="D",
        resolution_ms=DAY_MS,
        season_length=season_length,
        time_ms_NS=np.tile(np.arange(T + horizon) * DAY_MS, (N, 1)),
        target_NT=target,
        known_NSK=np.zeros((N, T + horizon, 0)),
        past_NTP=np.zeros((N, T, 0)),
        known_names=(),
        past_names=(),
        static={},
        length_N=length,
    )


def earlier(window: Window, steps: int, horizon: int | None = None) -> tuple[Window, Floats]:
    """The same series `steps` steps ago, and what came in the `horizon` steps then: [N, H]."""
    cutoff = window.context_length - steps
    end = cutoff + (window.horizon if horizon is None else horizon)
    assert 1 <= cutoff < end <= window.context_length
    length_N = None if window.length_N is None else np.maximum(window.length_N - steps, 0)
    before = replace(
        window,
        time_ms_NS=window.time_ms_NS[:, :end],
        target_NT=window.target_NT[:, :cutoff],
        known_NSK=window.known_NSK[:, :end],
        past_NTP=window.past_NTP[:, :cutoff],
        length_N=length_N,
    )
    return before, window.target_NT[:, cutoff:end]


def long_table(items: int = 4, days: int = 60, seed: int = 0) -> pd.DataFrame:
    """`items` daily series with a weekly season, flags, colours, visits and a price class."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "sku": np.repeat([f"sku{row}" for row in range(items)], days),
            "day": np.tile(pd.date_range("2024-01-01", periods=days, freq="D"), items),
        }
    )
    frame["promo"] = rng.integers(0, 2, len(frame))
    frame["colour"] = rng.choice(["red", "green"], len(frame))
    frame["sold"] = rng.poisson(5 + 3 * (frame.day.dt.dayofweek == 5) + 4 * frame.promo).astype(
        float
    )
    frame["visits"] = frame.sold * 10 + 1
    frame["price"] = frame.sku.str[-1].astype(float)
    frame["name"] = "thing " + frame.sku
    return frame
