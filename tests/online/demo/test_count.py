"""The demo's own counting: forecasts, scores and model events, each counted once."""

from __future__ import annotations

import msgspec
import pytest

from freshet.online.demo import resolution
from freshet.online.demo.count import Tally
from freshet.online.demo.display import Status
from freshet.stream.schemas import DriftAlert, ForecastRound, ModelEvent, Score, ScoredStep
from freshet.stream.units import DAY_MS, HOUR_MS


def forecast(item: str, cutoff_ms: int, version: str = "base", *, resolution_ms: int = 10) -> bytes:
    return msgspec.json.encode(
        {
            "forecast_id": f"{item}@{cutoff_ms}@{version}",
            "item_id": item,
            "resolution_ms": resolution_ms,
            "cutoff_ms": cutoff_ms,
            "issued_at_ms": cutoff_ms + 60,
            "weights_version": version,
            "status": "ok",
            "quantiles": [[1.0]],
        }
    )


def score(
    actual: float,
    pinball: float,
    naive: float | None,
    *,
    in_stock: bool = True,
    step: int = 1,
    resolution_ms: int = 10,
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
            resolution_ms=resolution_ms,
            bucket_start_ms=100,
            scored_at_ms=200,
            actual=actual,
            steps=[line],
            in_stock=in_stock,
        )
    )


def told(
    shard: int, cutoff_ms: int, *, complete: bool = True, skipped: int = 0, resolution_ms: int = 10
) -> bytes:
    return msgspec.json.encode(
        ForecastRound(
            shard=shard,
            num_shards=2,
            resolution_ms=resolution_ms,
            cutoff_ms=cutoff_ms,
            issued_at_ms=cutoff_ms + 60,
            complete=complete,
            expected=1,
            published=1,
            weights_version="base",
            skipped=skipped,
        )
    )


def test_coalesced_cutoffs_are_those_nobody_forecast() -> None:
    tally = Tally(main_ms=10, speed=2.0)
    for cutoff_ms in (100, 110, 140):
        tally.count("forecasts", forecast("a", cutoff_ms))
    section = tally.forecast_section()
    assert section["coalesced"] == 2
    assert section["latency_ms"] == {"p50": 30.0, "p99": 30.0}


def test_forecasts_are_counted_by_resolution_and_a_second_one_of_a_cutoff_is_a_repeat() -> None:
    tally = Tally(main_ms=10)
    for item, cutoff_ms, version in (
        ("a", 100, "base"),
        ("b", 100, "base"),
        ("a", 110, "base"),
        # Whatever the weights.
        ("a", 100, "v1"),
    ):
        tally.count("forecasts", forecast(item, cutoff_ms, version))
    tally.count("forecasts", forecast("a", 100, resolution_ms=50))
    section = tally.forecast_section()
    assert (section["published"], section["repeated"], section["items"]) == (5, 1, 2)
    assert (section["resolution_ms"], section["statuses"]) == (10, {"ok": 5})
    found = section["by_resolution"]
    assert list(found) == ["10", "50"]
    assert [(one["published"], one["repeated"], one["cutoffs"]) for one in found.values()] == [
        *((4, 1, 2), (1, 0, 1)),
    ]


def test_rounds_are_complete_once_a_record_says_so_and_skipped_cutoffs_are_added_up() -> None:
    tally = Tally(main_ms=10)
    for record in (
        told(0, 100, complete=False, skipped=2),
        told(0, 100, skipped=2),
        told(0, 100, complete=False, skipped=2),
        told(0, 110, complete=False),
        told(1, 100, skipped=3),
        told(1, 140, skipped=4),
        told(0, 100, resolution_ms=50),
    ):
        tally.count("rounds", record)
    hours, days = tally.forecast_section()["by_resolution"].values()
    assert (hours["rounds"], hours["skipped"]) == ({"complete": 3, "incomplete": 1}, 7)
    assert (days["rounds"], days["skipped"]) == ({"complete": 1, "incomplete": 0}, 0)


def test_a_demo_that_never_ends_remembers_the_newest_cutoffs_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolution, "MAX_KNOWN", 3)
    tally = Tally(main_ms=10)
    for cutoff_ms in range(100, 200, 10):
        tally.count("forecasts", forecast("a", cutoff_ms))
        tally.count("rounds", told(0, cutoff_ms, skipped=1))
    known = tally.of(10)
    assert len(known._items) == len(known._rounds) == 3
    section = known.forecast_section()
    assert (section["cutoffs"], section["skipped"]) == (10, 10)
    assert section["rounds"] == {"complete": 10, "incomplete": 0}
    assert known.missing_cutoffs() == 0


def test_a_redelivered_score_is_counted_once_and_a_stock_out_not_at_all() -> None:
    tally = Tally(main_ms=10)
    for record in (score(10, 2, 4), score(10, 2, 4), score(10, 9, 9, in_stock=False, step=3)):
        tally.count("scores", record)
    scores = tally.sections()["scores"]
    assert (scores["wql"], scores["seasonal_naive_wql"]) == pytest.approx((0.2, 0.4))
    assert (scores["matured"], scores["coverage_80"]) == (1, 1.0)


def test_coverage_without_the_luck_of_counts_is_told_as_served_and_as_the_network_forecast() -> (
    None
):
    tally = Tally(main_ms=10)
    for number, (served, network) in enumerate(
        ((0.95, 0.5), (0.5, None), (0.2, 0.05), (0.89, 0.91))
    ):
        one = msgspec.json.decode(score(10, 2, 4, step=number + 1))
        one["steps"][0]["pit"] = served
        if network is not None:
            one["steps"][0]["network"] = {"pit": network, "residual": 0.0, "median": 1.0}
        tally.count("scores", msgspec.json.encode(one))
    scores = tally.sections()["scores"]
    assert (scores["randomised_80"], scores["randomised_80_of_network"]) == (0.75, 0.5)


def test_scores_are_of_their_resolution_and_those_of_the_main_one_stand_for_all() -> None:
    tally = Tally(main_ms=10)
    tally.count("scores", score(10, 2, 4))
    tally.count("scores", score(10, 5, 6, step=2, resolution_ms=50))
    scores = tally.sections()["scores"]
    assert (scores["resolution_ms"], scores["wql"]) == (10, pytest.approx(0.2))
    found = scores["by_resolution"]
    assert {name: (one["matured"], one["wql"]) for name, one in found.items()} == {
        "10": (1, pytest.approx(0.2)),
        "50": (1, pytest.approx(0.5)),
    }
    assert list(tally.wql(1)) == [10, 50]


def test_the_comparison_leaves_out_steps_without_a_yardstick() -> None:
    tally = Tally(main_ms=10)
    tally.count("scores", score(10, 2, 4))
    tally.count("scores", score(10, 9, None, step=3))
    assert tally.wql(newest_buckets=1) == {10: pytest.approx((0.2, 0.4))}


def test_adjusted_steps_are_held_against_what_would_have_been_served() -> None:
    tally = Tally(main_ms=10)
    record = msgspec.json.decode(score(10, 3, 4), type=Score)
    (line,) = record.steps
    served = [
        msgspec.structs.replace(line, adjusted=True),
        msgspec.structs.replace(line, step=6, pinball=1.0, adjusted=True),
        # Without a shadow, and without an adjustment.
        msgspec.structs.replace(line, step=12, pinball=9.0, adjusted=True),
        msgspec.structs.replace(line, step=24, pinball=9.0),
    ]
    besides = [
        msgspec.structs.replace(line, forecast_id="s", step=step, pinball=4.0) for step in (1, 6)
    ]
    told = msgspec.structs.replace(record, steps=served, unadjusted=besides)
    for _ in range(2):
        tally.count("scores", msgspec.json.encode(told))
    # 3 + 1 of 4 + 4, once.
    assert tally.sections()["adjustments"] == {"steps": 2, "gain_over_shadow": 0.5}


def test_nothing_counted_is_none_rather_than_zero() -> None:
    tally = Tally()
    assert tally.sections()["adjustments"] == {"steps": 0, "gain_over_shadow": None}
    assert tally.wql(12) == {}
    assert tally.forecast_section()["latency_ms"] == {"p50": None, "p99": None}
    assert tally.sections()["scores"]["wql"] is None


def test_the_error_is_shown_by_the_name_of_its_buckets() -> None:
    rows = Status("live", wql={HOUR_MS: (0.1, 0.2), DAY_MS: (0.3, 0.45)}).as_rows()
    assert rows[-2:] == [
        ("error, newest hours", "0.100 WQL, seasonal naive 0.200"),
        ("error, newest days", "0.300 WQL, seasonal naive 0.450"),
    ]


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


def test_buckets_that_seasonal_naive_would_have_served_better_are_counted_since_the_onset() -> None:
    tally = Tally(main_ms=10)
    alert = DriftAlert(
        alert_id="a",
        segment="pets",
        state="drift",
        kind="level",
        detector="scan",
        detected_at_ms=150,
        onset_ms=110,
        size=1.0,
        weights_version="base",
        description="",
        action="",
    )
    tally.count("drift", msgspec.json.encode(alert))
    record = msgspec.json.decode(score(10, 3, 2), type=Score)
    # By bucket and segment: what was lost, and what seasonal naive would have lost.
    losses = [
        (100, "pets", 3.0, 2.0),  # before the onset
        (110, "pets", 0.0, 9.0),
        # Each of six loses a little more; all of them together only once the first is forgotten.
        *[(bucket_ms, "pets", 2.1, 2.0) for bucket_ms in (120, 140, 150, 160, 170)],
        (130, "pets", 1.1, 1.0),
        (130, "pets", 1.0, 1.0),  # with the line before: 2.1 of 2
        (150, "pets", 9.0, None),
        (110, "toys", 9.0, 2.0),
    ]
    for number, (bucket_ms, segment, served, naive) in enumerate(losses):
        line = msgspec.structs.replace(
            record.steps[0],
            forecast_id=f"f{number}",
            pinball=served,
            seasonal_naive_pinball=naive,
        )
        told = msgspec.structs.replace(
            record, segment=segment, bucket_start_ms=bucket_ms, steps=[line]
        )
        tally.count("scores", msgspec.json.encode(told))
    assert tally.sections()["drift"]["buckets_behind_naive"] == {"pets": 1}
