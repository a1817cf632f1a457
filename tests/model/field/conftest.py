"""The weights that ship, and tables as people bring them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from freshet.model.predict.frame import Forecaster


@pytest.fixture(scope="session")
def forecaster() -> Forecaster:
    return Forecaster.from_pretrained(device="cpu", dtype="float32")


def weekly_peak(first: str, days: int, zone: str | None = None, item: object = "a") -> pd.DataFrame:
    """A series of 10 a day, and 50 on Saturdays."""
    day = pd.date_range(first, periods=days, freq="D", tz=zone)
    sold = np.where(day.dayofweek == 5, 50.0, 10.0)
    return pd.DataFrame({"item_id": item, "timestamp": day, "target": sold})


def promoted(days: int = 120, item: object = "a", first: str = "2024-01-01") -> pd.DataFrame:
    """A series of 10 a day, and 99 on every ninth, which is promoted."""
    day = pd.date_range(first, periods=days, freq="D")
    promo = (np.arange(days) % 9 == 4).astype(float)
    sold = np.where(promo > 0, 99.0, 10.0)
    return pd.DataFrame({"item_id": item, "timestamp": day, "target": sold, "promo": promo})


def ahead_of(frame: pd.DataFrame, steps: int = 7, promo: float = 1.0) -> pd.DataFrame:
    """The days after each item's last one, all of them promoted."""
    parts = []
    for item, rows in frame.groupby("item_id"):
        day = pd.date_range(rows.timestamp.max(), periods=steps + 1, freq="D")[1:]
        parts.append(pd.DataFrame({"item_id": item, "timestamp": day, "promo": promo}))
    return pd.concat(parts, ignore_index=True)
