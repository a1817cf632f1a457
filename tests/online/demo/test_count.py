"""The demo's own counting: forecasts, scores and model events, each counted once."""

from __future__ import annotations

import msgspec
import pytest

from freshet.online.demo.count import Tally
from freshet.stream.schemas import ModelEvent, Score, ScoredStep


def forecast(item: str, cutoff_ms: int, version: str = "base") -> bytes:
    return msgspec.json.encode(
        {
            "forecast_id": f"{item}@{cutoff_ms}@{version}",
            "item_id": item,
            "resolution_ms": 10,
            "cutoff_ms": cutoff_ms,
            "issued_at_ms": cutoff_ms + 60,
            "weights_version": version,
            "status": "ok",
            "quantiles": [[1.0]],
        }
    )


def score(
    actual: float, pinball: float, naive: float | None, *, in_stock: bool = True, step: int = 1
) -> bytes:
    line = ScoredStep(
        forecast_id="f",
        weights_version="base",
        step=step,
        pinball=pinball,
        seasonal_naive_pinball=naive,
        pit=0.5,
        residual=0.0,
        covered_80=True,
    )
    return msgspec.json.encode(
        Score(
            item_id="a",
            segment="all",
            resolution_ms=10,
            bucket_start_ms=100,
            scored_at_ms=200,
            actual=actual,
            steps=[line],
            in_stock=in_stock,
        )
    )


def test_coalesced_cutoffs_are_those_nobody_forecast() -> None:
    tally = Tally(speed=2.0)
    for cutoff_ms in (100, 110, 140):
        tally.count("forecasts", forecast("a", cutoff_ms))
    section = tally.forecast_section(published=3)
    assert section == {
        "published": 3,
        "items": 1,
        "coalesced": 2,
        "latency_ms": {"p50": 30.0, "p99": 30.0},
    }


def test_a_redelivered_score_is_counted_once_and_a_stock_out_not_at_all() -> None:
    tally = Tally()
    for record in (score(10, 2, 4), score(10, 2, 4), score(10, 9, 9, in_stock=False, step=3)):
        tally.count("scores", record)
    assert tally.wql() == pytest.approx((0.2, 0.4))
    assert tally.sections()["scores"]["matured"] == 1


def test_the_comparison_leaves_out_steps_without_a_yardstick() -> None:
    tally = Tally()
    tally.count("scores", score(10, 2, 4))
    tally.count("scores", score(10, 9, None, step=3))
    assert tally.wql(newest_buckets=1) == pytest.approx((0.2, 0.4))


def test_nothing_counted_is_none_rather_than_zero() -> None:
    tally = Tally()
    assert tally.wql() is None
    assert tally.forecast_section(0)["latency_ms"] == {"p50": None, "p99": None}


def test_an_unreadable_record_is_counted_as_such() -> None:
    tally = Tally()
    assert tally.count("scores", b"{") is None
    assert tally.count("forecasts", None) is None
    assert tally.unreadable == 1


def test_model_events_are_counted_by_kind_and_version() -> None:
    tally = Tally()
    event = ModelEvent(kind="promoted", version="v1", at_ms=5)
    swap = ModelEvent(kind="swapped", version="v1", at_ms=6, worker="w", pause_ms=0.1)
    for record in (event, event, swap):
        tally.count("models", msgspec.json.encode(record))
    sections = tally.sections()
    assert sections["retrain"] == {"requested": 0, "promoted": 1, "rejected": 0}
    assert sections["swaps"] == [{"version": "v1", "pause_ms": 0.1}]
