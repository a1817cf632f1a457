"""What one segment's two streams say: silence, spread, small shifts, and nothing about noise."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from freshet.online.drift.detectors import Finding
from freshet.online.drift.pooled import PooledStatistics
from freshet.online.drift.segment import SegmentDetector
from freshet.stream.config import DriftSettings
from freshet.stream.units import DAY_MS, HOUR_MS


def test_a_feed_that_falls_silent_is_a_data_alarm() -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
    rng = np.random.default_rng(0)
    found = []
    for hour in range(60):
        silent = hour >= 40
        level = -12.0 if silent else float(rng.normal())
        pooled = PooledStatistics(hour * HOUR_MS, level, 0.0, 6.0, 0.0 if silent else 50.0, 50.0)
        found += detector.update(pooled)
    assert [(alarm.kind, alarm.onset_ms // HOUR_MS) for alarm, begins in found if begins] == [
        ("data", 40)
    ]


def test_errors_that_grow_without_a_shift_are_a_spread_alarm() -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
    rng = np.random.default_rng(0)
    found = []
    for hour in range(60):
        pooled = PooledStatistics(
            hour * HOUR_MS,
            float(rng.normal()),
            float(rng.normal()) + 5.0 * (hour >= 40),
            6.0,
            50,
            50,
        )
        found += detector.update(pooled)
    assert [alarm.kind for alarm, begins in found if begins] == ["spread"]


def test_a_small_lasting_shift_is_found_by_adwin_and_one_below_the_least_effect_is_not() -> None:
    def detect(shift: float) -> list[str]:
        detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
        rng = np.random.default_rng(3)
        found = []
        for hour in range(600):
            pooled = PooledStatistics(
                hour * HOUR_MS, float(rng.normal()) + shift * (hour >= 300), 0.0, 1.0, 50, 50
            )
            found += [alarm.detector for alarm, begins in detector.update(pooled) if begins]
        return found

    assert "adwin" in detect(0.9)
    assert detect(0.2) == []


# Twelve calm buckets are learnt at once and make 0.7 the spread, which is the least. From then on a
# level of 2 adds 1.86 a bucket, less a slack of 1, to what is an alarm above 8: the fifth is one.
CALM = [0.0] * 12


def pooled_at(
    hour: int, level: float, *, spread: float = 0.0, sold: float = 50.0, expected: float = 50.0
) -> PooledStatistics:
    return PooledStatistics(hour * HOUR_MS, level, spread, 0.0, sold, expected)


def alarms_of(
    detector: SegmentDetector, levels: list[float], *, since: int = 0
) -> list[tuple[int, str, bool]]:
    """Hour, kind, and whether it begins."""
    found = []
    for hour, level in enumerate(levels, since):
        changes = detector.update(pooled_at(hour, level))
        found += [(hour, alarm.kind, begins) for alarm, begins in changes]
    return found


def test_what_holds_on_for_a_week_of_hours_is_the_new_usual() -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
    found = alarms_of(detector, CALM + [2.0] * 400)
    # With its 168th bucket the alarm is over for good, though nothing has changed.
    assert found == [(16, "level", True), (16 + 167, "level", False)]


def test_an_alarm_ends_after_12_quiet_buckets_in_a_row() -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
    found = alarms_of(detector, CALM + [2.0] * 5 + [0.0] * 10 + [9.0, 9.0] + [0.0] * 30)
    # After ten quiet buckets and one more the sum stands at 6, 5 and 4, half of an alarm, and then
    # at 3: the first of twelve others is hour 31.
    assert found == [(16, "level", True), (31 + 11, "level", False)]


def test_after_up_and_down_in_one_alarm_it_is_the_timing_that_changed() -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
    found = alarms_of(detector, CALM + [2.0] * 5 + [-2.0] * 5)
    assert found == [(16, "level", True), (21, "timing", True)]
    assert set(detector.active) == {"level", "timing"} and detector.tension == 1.0
    ended = alarms_of(detector, [0.0] * 20, since=22)
    assert ended == [(21 + 12, "level", False), (21 + 12, "timing", False)]
    assert detector.active == {}


def test_how_long_it_must_be_quiet_is_a_setting() -> None:
    detector = SegmentDetector("c", DriftSettings(clear_buckets=3), HOUR_MS)
    found = alarms_of(detector, CALM + [2.0] * 5 + [0.0] * 9)
    assert found == [(16, "level", True), (16 + 3, "level", False)]


def test_an_alarm_is_named_by_segment_onset_and_kind() -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
    alarms_of(detector, CALM + [2.0] * 5)
    identity = f"c\n{12 * HOUR_MS}\nlevel".encode()
    assert detector.active["level"].alert_id == hashlib.sha256(identity).hexdigest()[:24]


@pytest.mark.parametrize(
    ("sold", "expected", "kind"),
    [
        ([0.0, 0.0, 0.0], 3.0, "data"),
        ([1.0, 0.0, 0.0], 50.0, "level"),
        ([0.0, 0.0, 0.0], 2.9, "level"),
    ],
)
def test_a_feed_is_silent_when_nothing_of_nine_units_was_sold_in_three_buckets(
    sold: list[float], expected: float, kind: str
) -> None:
    detector = SegmentDetector("c", DriftSettings(min_buckets=3), HOUR_MS)
    alarms_of(detector, [0.0] * 3)
    found = []
    for hour, units in enumerate(sold, 3):
        found += detector.update(pooled_at(hour, -9.0, sold=units, expected=expected))
    assert [alarm.kind for alarm, _ in found] == [kind]


@pytest.mark.parametrize(
    ("levels", "kinds"),
    [([0.0] * 8, ["spread"]), ([2.0] * 3 + [0.7] * 5, []), ([2.0] * 2 + [0.7] * 6, ["spread"])],
)
def test_wider_errors_are_no_news_while_the_level_is_half_way_to_an_alarm(
    levels: list[float], kinds: list[str]
) -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
    alarms_of(detector, CALM)
    found = []
    for hour, level in enumerate(levels, len(CALM)):
        found += detector.update(pooled_at(hour, level, spread=9.0))
    assert [alarm.kind for alarm, _ in found] == kinds


def test_errors_smaller_than_forecast_are_no_alarm() -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
    for hour in range(60):
        assert detector.update(pooled_at(hour, 0.0, spread=0.0 if hour < 12 else -9.0)) == []


def test_the_percentage_is_of_sales_to_forecasts_since_then_against_before() -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
    for hour, sold in enumerate([100.0, 100.0, 150.0, 250.0]):
        detector.update(pooled_at(hour, 0.0, sold=sold))
    # Usual was twice what was forecast, now it is four times.
    assert detector.percent(2 * HOUR_MS) == pytest.approx(100.0)
    assert detector.percent(0) == pytest.approx(200.0), "without a before, against the forecast"
    assert detector.percent(4 * HOUR_MS) is None


def test_new_weights_are_watched_anew_and_the_alarm_holds_until_they_were_quiet() -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
    # Eight quiet buckets of the old weights do not count.
    alarms_of(detector, CALM + [2.0] * 5 + [0.0] * 8)
    detector.forget()
    assert detector.tension == 1.0
    assert detector.percent(0) is None
    assert alarms_of(detector, [0.0] * 20, since=25) == [(25 + 11, "level", False)]
    assert detector.tension == 0.0


def test_new_weights_have_a_week_of_their_own_before_what_holds_on_is_usual() -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
    alarms_of(detector, CALM + [2.0] * 165)
    detector.forget()
    assert alarms_of(detector, [2.0] * 200, since=177) == [(177 + 167, "level", False)]


def test_a_segment_draws_the_same_months_in_every_process_and_no_other_does() -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
    # `printf c | sha256sum` begins with 2e7d2c03.
    assert (detector.level.seed, detector.spread.seed) == (0x2E7D2C03, 0x2E7D2C04)


def test_a_calm_segment_learns_both_its_streams_and_one_in_alarm_neither() -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)

    def learnt() -> tuple[int, int]:
        return len(detector.level.baseline), len(detector.spread.baseline)

    alarms_of(detector, CALM)
    assert learnt() == (12, 12)
    # An alarm until hour 28; what comes after it counts once 12 more buckets have followed.
    alarms_of(detector, [2.0] * 5 + [0.0] * 12 + [0.0] * 12, since=12)
    assert not detector.active and learnt() == (12, 12)
    alarms_of(detector, [0.0], since=41)
    assert learnt() == (13, 13)


class Scripted:
    """A stream that objects in these hours, as ADWIN does: while no sum has climbed."""

    tension = 0.0

    def __init__(self, *hours: int) -> None:
        self.hours = hours
        self.fed: list[tuple[int, float, float, bool]] = []
        self.restarts = 0

    def update(
        self, bucket_ms: int, value: float, *, leverage: float = 0.0, learn: bool
    ) -> Finding | None:
        hour = bucket_ms // HOUR_MS
        self.fed.append((hour, value, leverage, learn))
        return Finding(bucket_ms - HOUR_MS, 0.6, "adwin") if hour in self.hours else None

    def restart(self) -> None:
        self.restarts += 1


def scripted(level: Scripted, spread: Scripted, hours: int) -> list[tuple[int, str, bool]]:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
    detector.level, detector.spread = level, spread  # type: ignore[assignment]
    found = []
    for hour in range(hours):
        pooled = PooledStatistics(hour * HOUR_MS, 0.1 * hour, 0.2 * hour, 5.0, 50.0, 50.0)
        found += [(hour, alarm.kind, begins) for alarm, begins in detector.update(pooled)]
    return found


def test_an_alarm_is_quiet_since_its_last_objection() -> None:
    level = Scripted(3, 9)
    assert scripted(level, Scripted(), 30) == [(3, "level", True), (9 + 12, "level", False)]
    assert level.restarts == 2


def test_a_second_alarm_has_a_quiet_spell_and_a_week_of_its_own() -> None:
    level = Scripted(*range(3, 140), *range(160, 200))
    assert scripted(level, Scripted(), 220) == [
        (3, "level", True),
        (139 + 12, "level", False),
        (160, "level", True),
        (199 + 12, "level", False),
    ]


class Turning(Scripted):
    """One that finds more and less by turns, and little of either."""

    def update(
        self, bucket_ms: int, value: float, *, leverage: float = 0.0, learn: bool
    ) -> Finding | None:
        found = super().update(bucket_ms, value, leverage=leverage, learn=learn)
        return found and replace(found, size=0.6 * (-1) ** self.restarts)


def test_a_little_up_and_down_in_one_alarm_is_timing_too() -> None:
    found = scripted(Turning(3, 5), Scripted(), 8)
    assert found == [(3, "level", True), (5, "timing", True)]


def test_the_percentage_looks_back_two_weeks_of_hours() -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
    detector.level = detector.spread = Scripted()  # type: ignore[assignment]
    # Ten that are too old, twice and once what was forecast for a week each, and three times now.
    sold = [5_000.0] * 10 + [100.0] * 166 + [50.0] * 166 + [150.0] * 4
    for hour, units in enumerate(sold):
        detector.update(pooled_at(hour, 0.0, sold=units))
    assert detector.percent(342 * HOUR_MS) == pytest.approx(100.0)


def test_where_both_streams_object_it_is_the_level_that_shifted() -> None:
    level, spread = Scripted(3, 4), Scripted(3, 4, 5)
    assert scripted(level, spread, 8) == [(3, "level", True)]
    # What a calm segment sees is learnt, but not what its level objects to.
    learnt = [True, True, True, True, False, False, False, False]
    assert level.fed == [(n, 0.1 * n, 5.0, learns) for n, learns in enumerate(learnt)]
    learnt[3] = False
    assert spread.fed == [(n, 0.2 * n, 0.0, learns) for n, learns in enumerate(learnt)]
    assert level.restarts == spread.restarts == 2


def test_what_shops_wander_by_themselves_is_allowed_to_levels_and_not_to_spreads() -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)

    def feed(hours: range, level: float, spread: float) -> list[tuple[int, str]]:
        found = []
        for hour in hours:
            # A doubling of sales would add 10 to the level; 0.3 of one is 4.3 deviations.
            pooled = PooledStatistics(hour * HOUR_MS, level, spread, 10.0, 50.0, 50.0)
            found += [(hour, alarm.kind) for alarm, _ in detector.update(pooled)]
        return found

    assert feed(range(12), 0.0, 0.0) == feed(range(12, 40), 2.0, 0.0) == []
    # A spread of 2 adds 2.86 less 1.5 a bucket to what is an alarm above 12.
    assert feed(range(40, 49), 0.0, 2.0) == [(48, "spread")]


def test_while_a_level_is_in_alarm_wider_errors_are_no_news() -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
    alarms_of(detector, CALM + [2.0] * 5)
    for hour in range(17, 17 + 8):
        assert detector.update(pooled_at(hour, 0.0, spread=9.0)) == []
    assert set(detector.active) == {"level"}


def test_buckets_of_a_day_have_a_usual_for_each_weekday() -> None:
    detector = SegmentDetector("c", DriftSettings(), DAY_MS)
    for day in range(12):
        level = 1.5 if day % 7 == 0 else 0.0
        detector.update(PooledStatistics(day * DAY_MS, level, 0.0, 0.0, 50.0, 50.0))
    usual = detector.level.baseline
    assert usual.standardise(14 * DAY_MS, 1.0) < usual.standardise(15 * DAY_MS, 1.0)


def test_buckets_shorter_than_a_day_have_a_usual_for_each_hour() -> None:
    detector = SegmentDetector("c", DriftSettings(), 6 * HOUR_MS)
    for number in range(48):
        at_ms = number * 6 * HOUR_MS
        level = 1.5 if at_ms % DAY_MS == 0 else 0.0
        detector.level.baseline.learn(at_ms, level)
    usual = detector.level.baseline
    first, same, other = (
        usual.standardise(14 * DAY_MS + at_ms, 1.0) for at_ms in (0, DAY_MS, 6 * HOUR_MS)
    )
    assert first == same < other
    assert usual.standardise(14 * DAY_MS + 12 * HOUR_MS, 1.0) == other
