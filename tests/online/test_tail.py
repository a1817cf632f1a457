"""One forecast as one line."""

from __future__ import annotations

from typing import Any

import pytest

from freshet.online.tail import _line, as_text
from freshet.stream.codec import encode
from freshet.stream.schemas import WIRE_LEVELS, Compute, Forecast
from freshet.stream.units import DAY_MS, HOUR_MS

ROW = [float(column) for column in range(len(WIRE_LEVELS))]


def forecast(**more: Any) -> Forecast:
    values: dict[str, Any] = {
        "forecast_id": "f",
        "item_id": "A|north",
        "sku": "A",
        "region": "north",
        "resolution_ms": HOUR_MS,
        "cutoff_ms": 100 * HOUR_MS,
        "issued_at_ms": 0,
        "quantile_levels": list(WIRE_LEVELS),
        "quantiles": [ROW] * 4,
        "weights_version": "base",
        "weights_sha256": "",
        "offsets": {},
        "context_sha256": "",
        "compute": Compute(device="cpu", dtype="float32", batch_shape=[1, 1]),
        "status": "ok",
    }
    return Forecast(**values | more)


def test_a_forecast_tells_how_long_its_steps_are() -> None:
    line = as_text(forecast())
    assert "A|north" in line and " by hour " in line
    assert line.endswith("2 4 6 | 2 4 6 | 2 4 6 ...")
    assert " by day " in as_text(forecast(resolution_ms=DAY_MS))


def test_a_shop_that_warms_up_is_one_line_too() -> None:
    line = as_text(forecast(status="warming_up", quantiles=[], quantile_levels=[]))
    assert line.endswith("warming_up")


@pytest.mark.parametrize(
    ("item_id", "resolution_ms", "shown"),
    [
        (None, None, True),
        ("A|north", HOUR_MS, True),
        ("B|north", HOUR_MS, False),
        (None, DAY_MS, False),
    ],
)
def test_only_what_was_asked_for_is_printed(
    item_id: str | None, resolution_ms: int | None, shown: bool
) -> None:
    value = encode(forecast())
    for as_json in (False, True):
        assert bool(_line(value, item_id, resolution_ms, as_json)) == shown
    assert _line(value, None, None, True) == value.decode()
    assert _line(None, None, None, False) == _line(b"junk", None, None, False) == ""
