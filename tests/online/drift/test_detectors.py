"""One stream against its baseline, bucket by bucket with numbers that can be added by hand."""

from __future__ import annotations

from typing import Any

import pytest

from freshet.online.drift import detectors
from freshet.online.drift.detectors import Finding, StreamDetector
from freshet.stream.config import DriftSettings
from freshet.stream.units import HOUR_MS


def detector_of(*, two_sided: bool = True, **over: float) -> StreamDetector:
    settings = DriftSettings(**({"min_buckets": 1} | over))  # type: ignore[arg-type]
    return StreamDetector(settings, HOUR_MS, two_sided=two_sided, seed=1)


def findings(
    detector: StreamDetector, values: list[float], *, leverage: float = 0.0
) -> dict[int, Finding]:
    """By hour; nothing of it is learnt, so what is usual stays 0 with a spread of 1."""
    found = {}
    for hour, value in enumerate(values):
        finding = detector.update(hour * HOUR_MS, value, leverage=leverage, learn=False)
        if finding is not None:
            found[hour] = finding
    return found


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_level_is_an_alarm_once_more_than_8_deviations_beyond_the_slack_have_added_up(
    sign: float,
) -> None:
    # Each bucket adds 3 less a slack of 1: 2, 4, 6, 8 and then 10, which is more than 8.
    found = findings(detector_of(), [0.0, *([3.0 * sign] * 5)])
    assert found == {5: Finding(HOUR_MS, 3.0 * sign, "cusum")}


def test_a_spread_is_an_alarm_upwards_only_and_later() -> None:
    # Each bucket adds 3 less a slack of 1.5: the ninth makes it 13.5, which is more than 12.
    assert list(findings(detector_of(two_sided=False), [3.0] * 9)) == [8]
    assert findings(detector_of(two_sided=False), [-9.0] * 50) == {}


def test_no_single_bucket_is_an_alarm_however_odd() -> None:
    assert list(findings(detector_of(), [900.0, 900.0, 900.0])) == [2]


def test_nothing_is_an_alarm_before_enough_buckets_were_seen() -> None:
    assert list(findings(detector_of(min_buckets=12), [3.0] * 13)) == [11, 12]


def test_a_shift_below_the_least_effect_is_no_alarm() -> None:
    assert findings(detector_of(min_effect=3.5), [3.0] * 20) == {}
    assert list(findings(detector_of(min_effect=3.0), [3.0] * 5)) == [4]


def test_what_shops_wander_by_themselves_does_not_add_up() -> None:
    # A doubling would add 10, and 0.3 of one is the slack: nothing of 3 is left.
    assert findings(detector_of(), [3.0] * 50, leverage=10.0) == {}
    assert next(iter(findings(detector_of(), [3.0] * 50, leverage=5.0))) == 5, "1.5 a bucket"


def test_tension_is_the_share_of_the_height_that_was_climbed() -> None:
    detector = detector_of()
    assert detector.tension == 0.0
    findings(detector, [-3.0, -3.0])
    assert detector.tension == 4.0 / 8.0
    findings(detector, [-3.0] * 9)
    assert detector.tension == 1.0


def test_buckets_are_learnt_at_once_in_the_beginning_and_later_once_others_followed() -> None:
    detector = detector_of(min_buckets=12)
    learnt = []
    for hour in range(40):
        detector.update(hour * HOUR_MS, 0.0, learn=True)
        learnt.append(len(detector.baseline))
    assert learnt == [*range(1, 13), *([12] * 12), *range(13, 29)]
    detector.restart()
    detector.update(40 * HOUR_MS, 0.0, learn=True)
    assert len(detector.baseline) == 28, "what waited is not learnt after a restart"


def test_nothing_of_an_alarm_is_learnt() -> None:
    detector = detector_of(min_buckets=12)
    for hour in range(60):
        detector.update(hour * HOUR_MS, 0.0, learn=hour < 24)
    assert len(detector.baseline) == 12


def test_new_weights_must_be_seen_for_a_while_before_they_may_alarm() -> None:
    detector = detector_of(min_buckets=6)
    findings(detector, [3.0] * 6)
    detector.forget()
    assert detector.tension == 0.0
    assert list(findings(detector, [3.0] * 6)) == [5]


def test_what_such_values_pass_by_chance_raises_the_height_after_three_days_and_each_day() -> None:
    detector = detector_of(min_buckets=4)
    heights = []
    for hour in range(120):
        # Three odd hours a day, never the same ones: months have days of them side by side.
        day, hour_of_day = divmod(hour, 24)
        odd = 0 <= hour_of_day - 7 * day % 24 < 3
        value = 2.5 if odd else -0.3
        assert detector.update(hour * HOUR_MS, value, learn=True) is None
        heights.append(detector.height)
    changed = [hour for hour in range(1, 120) if heights[hour] != heights[hour - 1]]
    assert heights[0] == 8.0 < heights[75]
    # 72 were learnt, once 4 more had followed, and 24 more a day later.
    assert changed == [72 + 4 - 1, 96 + 4 - 1]
    # How near an alarm is goes by the raised height.
    detector.restart()
    detector.update(120 * HOUR_MS, 2.5, learn=False)
    climbed = detector.up.total
    assert detector.tension == climbed / heights[-1] < climbed / 8.0


def test_the_height_is_what_chance_passes_now_and_never_less_than_the_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def chance_height(stable: Any, *, slack: float, two_sided: bool, seed: int) -> float:
        asked.append((len(stable), slack, two_sided, seed))
        return [20.0, 14.0, 3.0][len(asked) - 1]

    monkeypatch.setattr(detectors, "chance_height", chance_height)
    detector = detector_of(two_sided=False, min_buckets=4)
    heights = []
    for hour in range(124):
        detector.update(hour * HOUR_MS, 0.0, learn=True)
        heights.append(detector.height)
    assert [heights[hour] for hour in (74, 75, 99, 123)] == [12.0, 20.0, 14.0, 12.0]
    assert asked == [(learnt, 1.5, False, 1) for learnt in (72, 96, 120)]


class FakeAdwin:
    """Doubts what these updates of it brought, and takes so many of the newest for its window."""

    doubts: tuple[int, ...] = ()
    width = 3.0

    def __init__(self, delta: float, *, clock: int, grace_period: int) -> None:
        self.settings = (delta, clock, grace_period)
        self.fed: list[float] = []

    def update(self, value: float) -> None:
        self.fed.append(value)

    @property
    def drift_detected(self) -> bool:
        return len(self.fed) in self.doubts


SHIFTED_AT = 20
# Two buckets are learnt at once and the others when two more have followed: four at hour 6, when
# ADWIN gets its first. Hour 22, its 17th, is the third of a shift.
DOUBTED_AT, ITS_UPDATE = 22, 17


@pytest.fixture
def adwin(monkeypatch: pytest.MonkeyPatch) -> type[FakeAdwin]:
    monkeypatch.setattr(detectors, "ADWIN", FakeAdwin)
    monkeypatch.setattr(FakeAdwin, "doubts", (ITS_UPDATE,))
    monkeypatch.setattr(FakeAdwin, "width", 3.0)
    return FakeAdwin


def fed(
    detector: StreamDetector, hours: range, value: float, *, leverage: float = 0.0
) -> list[Finding]:
    found = []
    for hour in hours:
        finding = detector.update(hour * HOUR_MS, value, leverage=leverage, learn=True)
        found += [finding] if finding is not None else []
    return found


def shifted(shift: float, *, two_sided: bool = True, leverage: float = 0.0, **over: float) -> Any:
    """A detector that saw nothing for 20 hours and then a shift for three, and its findings."""
    detector = detector_of(two_sided=two_sided, **({"min_buckets": 2} | over))
    assert fed(detector, range(SHIFTED_AT), 0.0) == []
    return detector, fed(detector, range(SHIFTED_AT, DOUBTED_AT + 1), shift, leverage=leverage)


def test_adwin_looks_at_every_bucket_once_there_is_something_usual(adwin: type[FakeAdwin]) -> None:
    detector, _ = shifted(1.05, adwin_delta=0.004, min_buckets=2)
    assert detector._adwin.settings == (0.004, 1, 2)
    # The least spread is 0.7.
    assert detector._adwin.fed == pytest.approx([0.0] * 14 + [1.5] * 3)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_what_adwin_doubts_is_the_mean_of_its_window_since_its_first_bucket(
    adwin: type[FakeAdwin], side: float
) -> None:
    detector, found = shifted(1.05 * side)
    assert found == [Finding(SHIFTED_AT * HOUR_MS, pytest.approx(1.5 * side), "adwin")]
    # It holds while it may still grow clear, as its window moves on.
    found = fed(detector, range(23, 24), 1.05 * side)
    assert found == [Finding(21 * HOUR_MS, pytest.approx(1.5 * side), "adwin")]


def test_without_a_doubt_of_adwin_a_small_shift_is_nothing(
    adwin: type[FakeAdwin], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeAdwin, "doubts", ())
    assert shifted(1.05)[1] == []


@pytest.mark.parametrize(
    ("width", "over"),
    [
        (2.0, {}),  # 2.5 times the noise of a mean of two is 1.77
        (3.0, {"min_effect": 1.51}),
        (3.0, {"leverage": 3.6}),  # 0.3 of 3.6 are 1.54 deviations
    ],
)
def test_a_doubt_that_noise_wandering_or_the_least_effect_explain_is_no_alarm(
    adwin: type[FakeAdwin], monkeypatch: pytest.MonkeyPatch, width: float, over: Any
) -> None:
    assert len(shifted(1.05, min_effect=1.49)[1]) == len(shifted(1.05, leverage=3.4)[1]) == 1
    monkeypatch.setattr(FakeAdwin, "width", width)
    assert shifted(1.05, **over)[1] == []


def test_a_spread_is_doubted_upwards_only_and_there_however_little(
    adwin: type[FakeAdwin], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(shifted(1.05, two_sided=False)[1]) == 1
    assert shifted(-1.05, two_sided=False)[1] == []
    # Three of nine buckets: .95, which is more than 2.5 times the noise of a mean of nine.
    monkeypatch.setattr(FakeAdwin, "width", 9.0)
    (found,) = shifted(2.0, two_sided=False)[1]
    assert found.size == pytest.approx(2.0 / 0.7 / 3.0)


def test_for_two_days_nothing_is_learnt_of_what_adwin_doubts(adwin: type[FakeAdwin]) -> None:
    detector, found = shifted(1.05, min_effect=9.0)
    assert found == []
    assert len(detector.baseline) == SHIFTED_AT
    fed(detector, range(23, DOUBTED_AT + 48), 0.0)
    assert len(detector.baseline) == SHIFTED_AT
    fed(detector, range(DOUBTED_AT + 48, DOUBTED_AT + 49), 0.0)
    assert len(detector.baseline) == SHIFTED_AT + 1


def test_a_restart_forgets_the_doubt_and_the_window(
    adwin: type[FakeAdwin], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, _ = shifted(1.05)
    detector.restart()
    fed(detector, range(23, 26), 0.0)
    assert detector._adwin.fed == [0.0] * 3
    assert len(detector.baseline) == SHIFTED_AT + 1, "one that two others have followed"
    detector.restart()
    monkeypatch.setattr(FakeAdwin, "doubts", (1,))
    # Of one bucket the noise is 1: only more than 2.5 is an alarm.
    (found,) = fed(detector, range(26, 27), 2.1)
    assert found == Finding(26 * HOUR_MS, pytest.approx(3.0), "adwin")
