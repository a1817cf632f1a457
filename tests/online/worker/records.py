"""Forecast records of made-up numbers, for tests of what is published and what is read back."""

from __future__ import annotations

import numpy as np

from freshet.online.forecast.context import Age
from freshet.online.forecast.publish import Numbers, Origin, forecast_records, significant
from freshet.stream.schemas import Compute, Forecast
from freshet.stream.units import HOUR_MS


def origin(**over: object) -> Origin:
    common: dict[str, object] = {
        "resolution_ms": HOUR_MS,
        "cutoff_ms": 10 * HOUR_MS,
        "issued_at_ms": 5,
        "weights_version": "v1",
        "weights_sha256": "ab",
        "offsets": {"orders:0": 7, "clicks:1": 9},
        "series_by": ("sku", "region"),
        "degraded": False,
    }
    return Origin(**(common | over))  # type: ignore[arg-type]


def records(items: list[str], **over: object) -> list[Forecast]:
    rng = np.random.default_rng(len(items))
    quantiles = significant(np.sort(rng.gamma(1, 40, (len(items), 4, 9)), axis=-1))
    return forecast_records(
        items,
        Numbers(quantiles, quantiles[:, :2].cumsum(1), [1, 2]),
        origin(**over),
        age=Age(
            np.array([item.startswith("cold") for item in items]),
            np.zeros(len(items), bool),
            np.zeros(len(items), bool),
        ),
        context_sha256=["c"] * len(items),
        compute=Compute(device="cpu", dtype="float32", batch_shape=[len(items), 8]),
    )
