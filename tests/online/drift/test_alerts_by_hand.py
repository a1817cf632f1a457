"""A shop of one item a segment: which alerts a monitor raises, and what they say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from freshet.online.drift.monitor import ACTIONS, ALL, DriftMonitor
from freshet.online.drift.segment import Alarm, SegmentDetector
from freshet.stream.config import DriftSettings
from freshet.stream.schemas import DriftAlert, Score, ScoredStep
from freshet.stream.units import DAY_MS, HOUR_MS

# The spread of twelve calm buckets is taken for 0.7. A normal score of 2, at the place .977 of its
# forecast, is 2.86 of it: less a slack of 1 the fifth makes more than 8.
CALM, HIGH, LOW = 0.5, 0.977249868, 1 - 0.977249868
CALM_HOURS, TO_ALARM = 12, 5


def score(segment: str, hour: int, pit: float, *, version: str = "v1") -> Score:
    step = ScoredStep(
        forecast_id="f",
        weights_version=version,
        step=1,
        pinball=1.0,
        seasonal_naive_pinball=None,
        pit=pit,
        residual=0.1,
        covered_80=True,
        median=4.0,
    )
    return Score(
        item_id=f"item of {segment}",
        segment=segment,
        resolution_ms=HOUR_MS,
        bucket_start_ms=hour * HOUR_MS,
        scored_at_ms=0,
        actual=5.0,
        steps=[step],
    )


def fed(monitor: DriftMonitor, hours: range, **pits: float) -> list[DriftAlert]:
    """The alerts of some hours in which each segment fell at one place of its forecasts."""
    found = []
    for hour in hours:
        scores = [score(segment, hour, pit) for segment, pit in pits.items()]
        found += monitor.update(hour * HOUR_MS, scores, now_ms=hour * HOUR_MS + 7)
    return found


def calm_monitor(**pits: float) -> DriftMonitor:
    monitor = DriftMonitor(DriftSettings(), HOUR_MS)
    assert fed(monitor, range(CALM_HOURS), **pits) == []
    return monitor


@pytest.mark.parametrize(("pit", "side"), [(HIGH, "above"), (LOW, "below")])
def test_an_alert_says_since_when_and_by_how_much_and_on_which_side(pit: float, side: str) -> None:
    monitor = calm_monitor(a=CALM)
    (alert,) = fed(monitor, range(CALM_HOURS, CALM_HOURS + TO_ALARM), a=pit)
    assert (alert.segment, alert.kind, alert.state, alert.detector) == (
        *("a", "level", "drift", "cusum"),
    )
    assert alert.onset_ms == CALM_HOURS * HOUR_MS
    assert alert.detected_at_ms == (CALM_HOURS + TO_ALARM - 1) * HOUR_MS + 7
    assert abs(alert.size) == pytest.approx(2 / 0.7, abs=1e-3) and (alert.size > 0) == (pit > 0.5)
    assert alert.weights_version == "v1"
    assert alert.description.startswith(f"a: sales run {side} the forecasts")
    assert "2.9 standard deviations" in alert.description and "fine-tune" in alert.action


def test_an_alarm_is_over_with_the_id_it_began_with() -> None:
    monitor = calm_monitor(a=CALM)
    alarmed = CALM_HOURS + TO_ALARM
    (begun,) = fed(monitor, range(CALM_HOURS, alarmed), a=HIGH)
    (ended,) = fed(monitor, range(alarmed, alarmed + 12), a=CALM)
    assert (ended.state, ended.alert_id, ended.kind) == ("stable", begun.alert_id, "level")
    assert ended.action == "nothing" and "right again" in ended.description
    # One that is taken over later has to be quiet for as long.
    monitor.adopt(begun)
    assert fed(monitor, range(alarmed + 12, alarmed + 23), a=CALM) == []
    assert len(fed(monitor, range(alarmed + 23, alarmed + 24), a=CALM)) == 1


def test_an_alert_names_the_resolution_whose_forecasts_drift() -> None:
    monitor = calm_monitor(a=CALM)
    (alert,) = fed(monitor, range(CALM_HOURS, CALM_HOURS + TO_ALARM), a=HIGH)
    assert alert.resolution_ms == HOUR_MS


def test_scores_of_another_resolution_are_as_if_they_were_not_there() -> None:
    monitor = calm_monitor(a=CALM)
    alarmed = CALM_HOURS + TO_ALARM
    for hour in range(CALM_HOURS, alarmed):
        other = msgspec.structs.replace(score("a", hour, HIGH), resolution_ms=DAY_MS)
        assert monitor.update(hour * HOUR_MS, [other], now_ms=0) == []
    # Nor do they take the place of the hours that they name.
    assert len(fed(monitor, range(CALM_HOURS, alarmed), a=HIGH)) == 1


@pytest.mark.parametrize(("resolution_ms", "taken"), [(None, 1), (HOUR_MS, 1), (DAY_MS, 0)])
def test_an_alarm_of_another_resolution_is_not_taken_over(
    resolution_ms: int | None, taken: int
) -> None:
    monitor = calm_monitor(a=CALM)
    alarmed = CALM_HOURS + TO_ALARM
    (begun,) = fed(monitor, range(CALM_HOURS, alarmed), a=HIGH)
    after = calm_monitor(a=CALM)
    after.adopt(msgspec.structs.replace(begun, resolution_ms=resolution_ms))
    assert len(after.segments["a"].active) == taken


def test_two_segments_make_a_shop_and_the_one_in_alarm_is_left_out_of_it() -> None:
    assert set(calm_monitor(a=CALM).segments) == {"a"}
    monitor = calm_monitor(a=CALM, b=CALM)
    assert monitor.tensions() == {"a": 0.0, "b": 0.0, ALL: 0.0}
    alarmed = CALM_HOURS + TO_ALARM
    (alert,) = fed(monitor, range(CALM_HOURS, alarmed), a=HIGH, b=CALM)
    assert alert.segment == "a"
    # From the alarm on the shop is b alone, which is as usual: nothing adds up any more.
    before = monitor.segments[ALL].level.up.total
    fed(monitor, range(alarmed, alarmed + 1), a=HIGH, b=CALM)
    assert monitor.segments[ALL].level.up.total == pytest.approx(max(0.0, before - 1.0))


def test_the_shop_as_a_whole_alarms_when_all_are_a_little_off() -> None:
    names = [f"s{number}" for number in range(9)]
    monitor = calm_monitor(**dict.fromkeys(names, CALM))
    # A normal score of 0.67 is below the slack of each; nine together are three times as far.
    found = fed(monitor, range(CALM_HOURS, CALM_HOURS + 5), **dict.fromkeys(names, 0.75))
    assert [alert.segment for alert in found] == [ALL]
    assert found[0].description.startswith("the whole shop: ")


def test_a_bucket_that_is_known_or_older_or_empty_changes_nothing() -> None:
    monitor = calm_monitor(a=CALM)
    fed(monitor, range(CALM_HOURS, CALM_HOURS + 2), a=HIGH)
    tension = monitor.tensions()["a"]
    assert 0.0 < tension < 1.0
    fed(monitor, range(CALM_HOURS + 2), a=HIGH)
    assert monitor.update(99 * HOUR_MS, [], now_ms=0) == []
    assert monitor.tensions() == {"a": tension}
    fed(monitor, range(CALM_HOURS + 2, CALM_HOURS + 3), a=HIGH)
    assert monitor.tensions()["a"] == pytest.approx(tension * 1.5)


def test_an_item_on_promotion_moves_nothing() -> None:
    monitor = calm_monitor(a=CALM)
    for hour in range(CALM_HOURS, CALM_HOURS + 20):
        scores = [score("a", hour, HIGH)]
        assert monitor.update(hour * HOUR_MS, scores, now_ms=0, left_out={"item of a"}) == []
    assert monitor.tensions() == {"a": 0.0}


def test_other_weights_begin_with_a_clean_sheet() -> None:
    monitor = calm_monitor(a=CALM)
    fed(monitor, range(CALM_HOURS, CALM_HOURS + 3), a=HIGH)
    hour = CALM_HOURS + 3
    monitor.update(hour * HOUR_MS, [score("a", hour, CALM, version="v2")], now_ms=0)
    assert monitor.version == "v2" and monitor.tensions() == {"a": 0.0}
    assert len(monitor.segments["a"].level.baseline) == 1


def test_buckets_follow_each_other_by_their_own_time_whenever_they_are_scored() -> None:
    monitor = calm_monitor(a=CALM)
    for hour in range(CALM_HOURS, CALM_HOURS + TO_ALARM):
        found = monitor.update(hour * HOUR_MS, [score("a", hour, HIGH)], now_ms=99 * HOUR_MS)
    assert [alert.detected_at_ms for alert in found] == [99 * HOUR_MS]


def test_the_newest_forecasts_say_which_weights_serve_whatever_comes_first() -> None:
    monitor = calm_monitor(a=CALM)
    both = score("a", CALM_HOURS, CALM)
    (old,) = both.steps
    new = msgspec.structs.replace(old, weights_version="v2", step=1)
    both = msgspec.structs.replace(both, steps=[msgspec.structs.replace(old, step=24), new])
    monitor.update(CALM_HOURS * HOUR_MS, [both], now_ms=0)
    assert monitor.version == "v2"


def test_of_a_shop_all_of_which_is_in_alarm_nothing_is_left_to_look_at() -> None:
    monitor = calm_monitor(a=CALM, b=CALM)
    hours = range(CALM_HOURS, CALM_HOURS + TO_ALARM)
    found = fed(monitor, hours, b=HIGH, a=HIGH)
    assert [alert.segment for alert in found] == [ALL, "a", "b"], "the shop an hour before"
    seen = monitor.segments[ALL].level.seen
    assert fed(monitor, range(hours.stop, hours.stop + 1), a=HIGH, b=HIGH) == []
    assert monitor.segments[ALL].level.seen == seen


def test_each_kind_of_alarm_says_in_words_what_it_is_and_what_to_do() -> None:
    monitor = DriftMonitor(DriftSettings(), HOUR_MS)
    detector = SegmentDetector("b", DriftSettings(), HOUR_MS)
    detector.percent = lambda since_ms: {5: 41.6, 6: -41.6}.get(since_ms)  # type: ignore[method-assign]

    def words(kind: Any, onset_ms: int, size: float) -> tuple[str, str]:
        alarm = Alarm("id", kind, onset_ms, size, "cusum")
        alert = monitor._alert(detector, alarm, True, 9)
        assert (alert.size, alert.onset_ms, alert.detected_at_ms) == (size, onset_ms, 9)
        over = monitor._alert(detector, alarm, False, 9)
        assert (over.description, over.action) == ("b: forecasts are right again", "nothing")
        return alert.description, alert.action.split(";")[0]

    train = "fine-tune on the newest data"
    by = "by 2.6 standard deviations"
    assert words("level", 5, 2.625) == (f"b: sales run above the forecasts (+42 %), {by}", train)
    assert words("level", 5, 0.5)[0] == (
        "b: sales run above the forecasts (+42 %), by 0.5 standard deviations"
    )
    assert words("level", 6, -2.625) == (f"b: sales run below the forecasts (-42 %), {by}", train)
    # Units and normal scores disagree on the side, or nothing was forecast.
    assert words("level", 6, 2.625) == (f"b: sales run above the forecasts, {by}", train)
    assert words("level", 7, 2.625) == (f"b: sales run above the forecasts, {by}", train)
    assert words("spread", 5, 2.625) == (f"b: errors are larger than forecast, {by}", train)
    assert "trust the wide quantiles" in ACTIONS["spread"] and "do not train" in ACTIONS["data"]
    assert words("timing", 5, -2.625) == (
        "b: sales fall at other times of the day than forecast",
        f"{train}: the shape of the day has changed",
    )
    assert words("data", 5, -2.625) == (
        "b: nothing was sold in the last 3 buckets, though sales were forecast",
        "check the order feed of this segment before anything else",
    )


def test_an_alarm_from_before_a_restart_does_not_replace_one_of_now() -> None:
    monitor = calm_monitor(a=CALM)
    (begun,) = fed(monitor, range(CALM_HOURS, CALM_HOURS + TO_ALARM), a=HIGH)
    fields = {name: getattr(begun, name) for name in begun.__struct_fields__}
    monitor.adopt(DriftAlert(**(fields | {"alert_id": "older"})))
    assert monitor.segments["a"].active["level"].alert_id == begun.alert_id
    monitor.adopt(DriftAlert(**(fields | {"segment": "b", "state": "stable"})))
    assert monitor.tensions()["b"] == 0.0
    monitor.adopt(DriftAlert(**(fields | {"segment": "b"})))
    adopted = monitor.segments["b"].active["level"]
    assert (adopted.alert_id, adopted.onset_ms) == (begun.alert_id, begun.onset_ms)
    assert (adopted.size, adopted.detector) == (begun.size, "cusum")
    monitor.adopt(DriftAlert(**(fields | {"segment": "b", "kind": "spread"})))
    assert set(monitor.segments["b"].active) == {"level", "spread"}


def test_segments_are_watched_by_the_settings_and_the_buckets_of_the_shop() -> None:
    hasty = DriftMonitor(DriftSettings(clear_buckets=3), HOUR_MS)
    fed(hasty, range(CALM_HOURS), a=CALM)
    alarmed = CALM_HOURS + TO_ALARM
    assert len(fed(hasty, range(CALM_HOURS, alarmed), a=HIGH)) == 1
    (over,) = fed(hasty, range(alarmed, alarmed + 9), a=CALM)
    assert over.detected_at_ms == (alarmed + 2) * HOUR_MS + 7

    daily = DriftMonitor(DriftSettings(), DAY_MS)
    for day in range(14):
        hourly = score("a", 24 * day, HIGH if day % 7 == 0 else CALM)
        scores = [msgspec.structs.replace(hourly, resolution_ms=DAY_MS)]
        assert daily.update(day * DAY_MS, scores, now_ms=0) == []
    usual = daily.segments["a"].level.baseline
    assert usual.standardise(14 * DAY_MS, 1.0) < usual.standardise(15 * DAY_MS, 1.0)


def test_a_bucket_without_any_forecast_says_nothing_of_the_weights() -> None:
    monitor = calm_monitor(a=CALM)
    bare = msgspec.structs.replace(score("a", CALM_HOURS, CALM), steps=[])
    assert monitor.update(CALM_HOURS * HOUR_MS, [bare], now_ms=0) == []
    assert monitor.version == "v1"
    assert len(monitor.segments["a"].level.baseline) == CALM_HOURS
