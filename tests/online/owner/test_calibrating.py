"""Levels are decided once a day by scores alone, whoever owns them and however often it dies."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from freshet.online.adjust import evidence
from freshet.online.adjust.decision import KEPT_MS, encoded
from freshet.online.drift.monitor import DriftMonitor
from freshet.online.owner import calibrating, watch
from freshet.online.owner.calibrating import Calibrator
from freshet.online.owner.memory import pack, packed, restored
from freshet.stream.codec import decode
from freshet.stream.errors import BrokerError
from freshet.stream.schemas import CalibrationDecision, NetworkStep, Score, ScoredStep
from freshet.stream.units import DAY_MS, HOUR_MS
from tests.online.owner import drifting
from tests.online.owner.drifting import SETTINGS, TOPICS, Log, settle, watch_of

STEPS = (1, 6)
SEGMENTS = ("a", "b")
FIRST = 48
"""The first hour of which an owner hears: a shop younger than two seasons says nothing."""


def step_of(step: int, pit: float, high: float = 3.0, **told: Any) -> ScoredStep:
    every = {"forecast_id": "f", "weights_version": "base", "pinball": 1.0, "residual": 0.5}
    every |= {"seasonal_naive_pinball": None, "covered_80": True, "median": 1.0}
    return ScoredStep(step=step, pit=pit, high=high, **(every | told))


def scores_of(hour: int, wide: float = 2.0) -> list[Score]:
    """Of forecasts that are too wide: PITs crowd about the middle."""
    rng = np.random.default_rng([hour, 5])
    return [
        Score(
            item_id=f"{segment}{item}|n",
            segment=segment,
            resolution_ms=HOUR_MS,
            bucket_start_ms=hour * HOUR_MS,
            scored_at_ms=(hour + 2) * HOUR_MS,
            actual=5.0,
            steps=[step_of(step, float(0.5 + (rng.random() - 0.5) / wide)) for step in STEPS],
        )
        for segment in SEGMENTS
        for item in range(8)
    ]


def decisions_of(
    hours: range, scores: Any = scores_of, calibrator: Calibrator | None = None
) -> list[CalibrationDecision]:
    calibrator = calibrator or Calibrator(STEPS, HOUR_MS)
    found = [
        calibrator.take(hour * HOUR_MS, scores(hour), left_out=(), now_ms=(hour + 2) * HOUR_MS)
        for hour in hours
    ]
    return [one for one in found if one is not None]


def test_forecasts_that_are_too_wide_are_served_narrower_from_the_second_week_on() -> None:
    made = decisions_of(range(14 * 24))
    assert len(made) >= 2
    # Made as of the round after the next one when the first bucket of a day has been scored.
    hours = [record.as_of_ms // HOUR_MS for record in made]
    assert all(hour % 24 == 3 for hour in hours) and hours[0] >= 7 * 24
    assert np.diff(hours).tolist() == [24] * (len(hours) - 1)
    newest = made[-1].maps
    shop = [one for one in newest if one.segment == "all"]
    assert [(one.first_step, one.last_step) for one in shop] == [(1, 1), (2, None)]
    # What the network says in nine of ten cases, it should say in more.
    for one in newest:
        assert (one.from_units, one.below_units) == (1.0, 4.0)
        low, high = one.levels[2], one.levels[6]
        assert 0.2 < low < 0.31 and 0.69 < high < 0.8
        assert one.certainty >= evidence.STAY


def test_even_pits_decide_nothing() -> None:
    assert decisions_of(range(15 * 24), lambda hour: scores_of(hour, 1.0)) == []


def test_the_order_of_scores_within_a_bucket_changes_nothing() -> None:
    rng = np.random.default_rng(1)

    def shuffled(hour: int) -> list[Score]:
        found = scores_of(hour)
        return [found[row] for row in rng.permutation(len(found))]

    assert decisions_of(range(13 * 24), shuffled) == decisions_of(range(13 * 24)) != []


def test_it_is_the_networks_own_place_that_is_learnt_from() -> None:
    """Else a map that mends all would be taken for the proof that nothing needs mending."""

    def served(hour: int) -> list[Score]:
        return [
            replace(
                score,
                steps=[
                    replace(step, pit=0.5, network=NetworkStep(pit=step.pit, residual=0, median=1))
                    for step in score.steps
                ],
            )
            for score in scores_of(hour)
        ]

    assert decisions_of(range(13 * 24), served) == decisions_of(range(13 * 24))


@pytest.mark.parametrize(
    "silent",
    [
        lambda score: replace(score, promoted=True),
        lambda score: replace(score, in_stock=False),
        lambda score: replace(score, steps=[replace(step, high=None) for step in score.steps]),
        lambda score: replace(
            score,
            steps=[
                replace(score.steps[0], step=2, weights_version="new"),
                *(replace(step, weights_version="old") for step in score.steps),
            ],
        ),
    ],
)
def test_what_says_nothing_of_the_network_that_serves_is_not_heard(silent: Any) -> None:
    calibrator = Calibrator(STEPS, HOUR_MS)
    scores = [silent(score) for score in scores_of(1)]
    calibrator.take(HOUR_MS, scores, left_out=(), now_ms=0)
    heard = calibrator.state()["today"][1:].sum()
    # Of two versions at one step the more frequent is the one that serves.
    old = [step for one in scores for step in one.steps if step.weights_version == "old"]
    assert heard == len(old)


def test_a_segment_in_alarm_says_nothing() -> None:
    calibrator = Calibrator(STEPS, HOUR_MS)
    calibrator.take(HOUR_MS, scores_of(1), left_out=["a"], now_ms=0)
    state = calibrator.state()
    assert state["names"] == ["all", "b"]
    assert state["today"][0].sum() == state["today"][1].sum() == 16


def test_steps_and_volumes_lie_in_their_cells() -> None:
    calibrator = Calibrator((1, 6, 24), HOUR_MS)
    steps = [step_of(1, 0.5, 0.9), step_of(2, 0.5, 1.0), step_of(6, 0.5, 15.9)]
    steps += [step_of(7, 0.5, 16.0), step_of(24, 0.5, 4.0), step_of(30, 0.5, 4.0)]
    score = replace(scores_of(1)[0], steps=steps)
    calibrator.take(HOUR_MS, [score], left_out=(), now_ms=0)
    found = np.argwhere(calibrator.state()["today"][1].sum(-1) > 0).tolist()
    assert found == [[0, 0], [1, 1], [1, 2], [2, 2], [2, 3]]


def test_beyond_the_most_segments_others_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "MAX_SEGMENTS", 1)
    calibrator = Calibrator(STEPS, HOUR_MS)
    calibrator.take(HOUR_MS, scores_of(1), left_out=(), now_ms=0)
    assert calibrator.state()["names"] == ["all", "a"]


def test_under_other_weights_a_segments_evidence_is_halved() -> None:
    calibrator = Calibrator(STEPS, HOUR_MS)
    decisions_of(range(9 * 24), calibrator=calibrator)
    before = calibrator.state()["counts"].copy()

    def other(hour: int) -> list[Score]:
        scores = scores_of(hour)
        return [
            replace(one, steps=[replace(step, weights_version="v2") for step in one.steps])
            if one.segment == "b"
            else one
            for one in scores
        ]

    decisions_of(range(9 * 24, 9 * 24 + 3), other, calibrator)
    after = calibrator.state()["counts"]
    kept = after.sum((1, 2, 3)) / (before.sum((1, 2, 3)) * evidence.DECAY)
    # A day was added meanwhile; the shop still is served by the old ones, `b` is not.
    names = calibrator.state()["names"]
    assert kept[names.index("b")] < 0.65 < 0.9 < kept[names.index("a")]


def test_whoever_goes_on_in_the_middle_of_a_day_of_other_weights_has_the_same_maps() -> None:
    one, other = Calibrator(STEPS, HOUR_MS), Calibrator(STEPS, HOUR_MS)
    decisions_of(range(9 * 24), calibrator=one)
    rest = range(9 * 24, 12 * 24)

    def newer(hour: int) -> list[Score]:
        return [
            replace(one, steps=[replace(step, weights_version="v2") for step in one.steps])
            for one in scores_of(hour)
        ]

    decisions_of(rest[:5], newer, one)
    other.restore(one.state())
    made = decisions_of(rest[5:], newer, one)
    assert decisions_of(rest[5:], newer, other) == made
    assert pickle.dumps(other.state()["gain"]) == pickle.dumps(one.state()["gain"])


def test_maps_end_with_a_decision_that_names_none() -> None:
    calibrator = Calibrator(STEPS, HOUR_MS)
    decisions_of(range(14 * 24), calibrator=calibrator)
    later = decisions_of(range(14 * 24, 45 * 24), lambda hour: scores_of(hour, 0.9), calibrator)
    assert [bool(record.maps) for record in later][-1] is False
    assert later[-1].as_of_ms < 44 * DAY_MS, "after it nothing is decided any more"


# With an owner ------------------------------------------------------------------------------------


def test_a_calibrator_goes_on_from_its_state_to_the_last_bit() -> None:
    one, monitor = Calibrator(STEPS, HOUR_MS), DriftMonitor(SETTINGS.drift, HOUR_MS)
    decisions_of(range(11 * 24 + 7), calibrator=one)
    data, other = packed(monitor, "category", one), Calibrator(STEPS, HOUR_MS)
    assert restored(DriftMonitor(SETTINGS.drift, HOUR_MS), "category", other, data)
    assert pickle.dumps(other.state()["gain_today"]) == pickle.dumps(one.state()["gain_today"])
    rest = range(11 * 24 + 7, 14 * 24)
    assert decisions_of(rest, calibrator=other) == decisions_of(rest, calibrator=one) != []
    assert packed(monitor, "category", other) == packed(monitor, "category", one)


def test_of_other_bands_or_an_owner_that_knew_none_levels_are_learnt_anew_and_drift_is_not() -> (
    None
):
    one, monitor = Calibrator(STEPS, HOUR_MS), DriftMonitor(SETTINGS.drift, HOUR_MS)
    decisions_of(range(3 * 24), calibrator=one)
    for calibrator, data in (
        (Calibrator((1, 3, 6), HOUR_MS), packed(monitor, "category", one)),
        (Calibrator(STEPS, HOUR_MS), packed(monitor, "category", None)),
        (Calibrator(STEPS, HOUR_MS), pack(monitor.state() | {"segment_by": "category"})),
    ):
        assert restored(DriftMonitor(SETTINGS.drift, HOUR_MS), "category", calibrator, data)
        assert calibrator.state()["names"] == ["all"]


def test_decisions_that_no_forecast_needs_are_named_once() -> None:
    calibrator = Calibrator(STEPS, HOUR_MS)
    assert calibrator.told("old", 0) == calibrator.told("new", KEPT_MS) == []
    assert calibrator.told("newest", KEPT_MS + 1) == ["old"]
    assert calibrator.told("last", KEPT_MS + 2) == []


def known(hours: range) -> list[CalibrationDecision]:
    """What one calibrator says that is told all scores of an hour at once."""
    return decisions_of(hours, calibrator=Calibrator((1,), HOUR_MS))


LAST = FIRST + 6 * 24


def decided(log: Log) -> list[CalibrationDecision]:
    values = log.values(TOPICS.decisions)
    found = {encoded(record)[0]: record for record in map(levels, values)}
    return sorted(found.values(), key=lambda record: record.as_of_ms)


def few(hour: int) -> list[Score]:
    return [replace(score, steps=score.steps[:1]) for score in scores_of(hour)]


def at_ease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps within two days, so that tests take few hours."""
    monkeypatch.setattr(evidence, "ENTER", 1.0)
    monkeypatch.setattr(evidence, "DOUBT", 50.0)
    monkeypatch.setattr(drifting, "scores_of", few)


def levels(value: bytes) -> CalibrationDecision:
    return decode(CalibrationDecision, value)


@pytest.mark.parametrize("lost", ["", "before", "after"])
def test_an_owner_that_dies_on_either_side_of_its_write_leaves_each_decision_once(
    monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    at_ease(monkeypatch)
    log = Log(6)
    for hour in range(FIRST, LAST):
        log.pass_hour(hour, [[0, 2], [1, 3]])
        if hour % 24 not in (0, 1):
            continue
        if lost:
            # Another owner begins, goes on from the topics, and dies in its first write.
            log.fails = [lost]
            died(watch_of(monkeypatch, log), log)
            log.fails = []
        settle(watch_of(monkeypatch, log))
    expected = decisions_of(range(FIRST, LAST), few, Calibrator((1,), HOUR_MS))
    assert decided(log) == expected and len(expected) >= 2
    if lost != "after":
        assert len(log.values(TOPICS.decisions)) == len(expected), "none was written twice"


@pytest.mark.parametrize("bytes_a_bucket", [10**9, 0])
def test_of_days_that_are_read_at_once_the_newest_decision_goes_out_however_large_the_state(
    monkeypatch: pytest.MonkeyPatch, bytes_a_bucket: int
) -> None:
    at_ease(monkeypatch)
    monkeypatch.setattr(watch, "BYTES_A_BUCKET", bytes_a_bucket)
    monkeypatch.setattr(DriftMonitor, "update", lambda *_, **__: [])
    log = Log(7)
    for hour in range(FIRST, LAST):
        log.pass_hour(hour)
    settle(watch_of(monkeypatch, log))
    expected = decisions_of(range(FIRST, LAST), few, Calibrator((1,), HOUR_MS))
    assert [levels(value) for value in log.values(TOPICS.decisions)] == expected[-1:]


def test_while_the_whole_shop_is_in_alarm_nothing_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    at_ease(monkeypatch)
    monkeypatch.setattr(DriftMonitor, "active", lambda _: {"all": ["level"]})
    log = Log(8)
    for hour in range(FIRST, FIRST + 30):
        log.pass_hour(hour)
    owner = watch_of(monkeypatch, log)
    settle(owner)
    assert owner._parts.calibrator is not None
    assert owner._parts.calibrator.state()["names"] == ["all"]


def died(owner: Any, log: Log) -> None:
    while log.fails:
        try:
            if not owner.turn():
                return
        except BrokerError:
            return


def test_detectors_see_the_same_whether_quantiles_are_served_at_other_levels_or_not() -> None:
    """Served ones lie elsewhere, and the record says where the network's lay."""
    plain, served = DriftMonitor(SETTINGS.drift, HOUR_MS), DriftMonitor(SETTINGS.drift, HOUR_MS)
    alerts: tuple[list[Any], list[Any]] = ([], [])
    for hour in range(drifting.FIRST, drifting.LAST):
        scores = drifting.scores_of(hour)
        moved = [replace(score, steps=moved_steps(score.steps)) for score in scores]
        alerts[0].extend(plain.update(hour * HOUR_MS, scores, now_ms=hour))
        alerts[1].extend(served.update(hour * HOUR_MS, moved, now_ms=hour))
    assert alerts[0] == alerts[1] and len(alerts[0]) >= 2


def moved_steps(steps: Sequence[ScoredStep]) -> list[ScoredStep]:
    return [
        replace(
            step,
            pit=step.pit**2,
            residual=0.1,
            median=9.0,
            network=NetworkStep(pit=step.pit, residual=step.residual, median=step.median or 0.0),
        )
        for step in steps
    ]


def test_of_two_versions_each_segment_follows_its_own_and_the_shop_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In some hours most items that speak are served by one, in others by the other."""
    loosened: list[int] = []
    monkeypatch.setattr(evidence.Evidence, "loosen", lambda self, row, share: loosened.append(row))

    def by_two(hour: int) -> list[Score]:
        a = [score for score in scores_of(hour) if score.segment == "a"]
        b, c = ([replace(score, segment=name) for score in a] for name in "bc")
        a = [replace(score, steps=[made_by("v2", step) for step in score.steps]) for score in a]
        return [*a, *b[:1], *c[:1]] if hour % 2 else [*a[:1], *b, *c]

    def made_by(version: str, step: ScoredStep) -> ScoredStep:
        return replace(step, weights_version=version)

    calibrator = Calibrator(STEPS, HOUR_MS)
    decisions_of(range(3 * 24), by_two, calibrator)
    assert loosened == []
    assert dict(zip(calibrator.state()["names"], calibrator.state()["versions"], strict=True)) == {
        "all": "base",
        "a": "v2",
        "b": "base",
        "c": "base",
    }
