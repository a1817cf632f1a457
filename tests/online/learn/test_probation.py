"""A probation's looks, and the verdict that the new version's own losses give in every segment."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from freshet.online.judge.rows import Before
from freshet.online.learn.probation import (
    MAX_LOOKS,
    Probation,
    ProbationVerdict,
    Watch,
    judge_probation,
    probation_of,
)
from freshet.online.trials import evaluation
from freshet.online.trials.shadow import Shadow, SoFar
from freshet.stream.schemas import ModelEvent
from freshet.stream.store.grid import Grid
from freshet.stream.units import HOUR_MS
from tests.online.learn.learning import START_MS, PastInMemory
from tests.online.learn.oracles import SteadyForecaster, oracle

SEGMENTS, ITEMS = 4, 6


@pytest.mark.parametrize(("at_ms", "start"), [(10, 1), (HOUR_MS, 1), (HOUR_MS + 1, 2)])
def test_a_probation_begins_with_the_first_whole_bucket_after_the_promotion(
    at_ms: int, start: int
) -> None:
    promotion = ModelEvent(kind="promoted", version="v1", at_ms=at_ms)
    found = probation_of(promotion, num_buckets=24, grid=Grid(HOUR_MS))
    ends = tuple((start + 24 * look) * HOUR_MS for look in (1, 2, 3, 4))
    assert found == Probation(start * HOUR_MS, ends)
    assert found.stretch(0) == (start * HOUR_MS, ends[0])
    assert found.stretch(2) == (ends[1], ends[2])


def losses(loss: float = 0.0, days: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """One an hour of every item, and of the version in s1 so much more."""
    parent = np.ones((SEGMENTS * ITEMS, int(24 * days)))
    version = parent.copy()
    version[ITEMS : 2 * ITEMS] *= 1.0 + loss
    return parent, version


def verdict_on(
    parent: np.ndarray, version: np.ndarray, *, daily: float = 0.0, look: int = 0, **over: Any
) -> ProbationVerdict:
    """The verdict after a week on which days differed by so much in each segment."""
    covered = np.where(np.arange(parent.shape[1]) % 5, 1.0, 0.0) * np.ones_like(parent)
    given: dict[str, Any] = {
        "segments": [f"s{row // ITEMS}" for row in range(len(parent))],
        "first_IT": parent,
        "second_IT": version,
        "first_covered_IT": covered,
        "second_covered_IT": covered,
        "finite": True,
        "unseen": 0.0,
    } | over
    sign = np.array([1.0, -1.0, 1.0, 0.0, -1.0, 1.0, -1.0])
    days = np.ones((len(parent), 7))
    before = Before(days, days * (1.0 + sign * daily), np.zeros(7, np.int64))
    return judge_probation(
        SoFar(**given),
        before,
        resolution_ms=HOUR_MS,
        margin=0.10,
        plan=Probation(0, (0,) * MAX_LOOKS).plan,
        look=look,
    )


@pytest.mark.parametrize(
    ("share", "decision"),
    [(0.5, "stays"), (1.0, "stays"), (1.099, "stays"), (1.101, "goes"), (2.0, "goes")],
)
def test_a_version_is_taken_back_that_loses_more_than_the_margin(
    share: float, decision: str
) -> None:
    parent, _ = losses()
    found = verdict_on(parent, parent * share)
    assert found.decision == decision
    assert found.report["gain"] == pytest.approx(1.0 - share)


def test_a_version_that_is_not_finite_is_taken_back() -> None:
    assert verdict_on(*losses(), finite=False).decision == "goes"
    assert verdict_on(*losses(), finite=False).reason == "finite 0 against 1"


def test_one_segment_that_is_worse_is_enough() -> None:
    """A quarter more in one of four is 6 % of the shop, which alone would stay."""
    found = verdict_on(*losses(0.25), daily=0.02)
    assert (found.decision, found.reason) == ("goes", "loss:s1 0.25 against 0.1")
    assert found.report["loss:all"] == pytest.approx(0.0625)
    assert (found.report["loss:s1.ok"], found.report["loss:all.ok"]) == (False, True)


def test_segments_that_fail_are_named_where_the_others_may_stay() -> None:
    assert verdict_on(*losses(0.25), daily=0.02).segments == ("s1",)
    parent, version = losses(0.25)
    unknown = [name.replace("s1", "-") for name in (f"s{r // ITEMS}" for r in range(len(parent)))]
    assert verdict_on(parent, version, daily=0.02, segments=unknown).segments == ()
    assert verdict_on(parent, parent * 1.5).segments == (), "each of them, and all together"
    assert verdict_on(*losses(0.25), daily=0.02, finite=False).segments == ()
    assert verdict_on(*losses(0.8), daily=0.02).segments == (), "all together lose a fifth"


def test_what_may_be_chance_is_looked_at_again_and_stays_in_doubt() -> None:
    """Days differ by a quarter: a quarter more on one day is nothing, on four days perhaps."""
    doubtful = losses(0.25)
    decisions = [verdict_on(*doubtful, daily=0.25, look=look).decision for look in range(4)]
    assert decisions == ["not yet"] * 3 + ["stays"]
    assert verdict_on(*losses(0.05), daily=0.25).decision == "stays", "it is within the margin"
    surely = [verdict_on(*losses(0.5, days), daily=0.15).decision for days in (1.0, 4.0)]
    assert surely == ["not yet", "goes"]


def test_where_nothing_is_known_of_days_the_loss_of_the_shop_decides() -> None:
    parent, version = losses(0.8)
    given = {"segments": ["s0"] * len(parent), "unseen": 0.0}
    arrays = dict.fromkeys(("first_covered_IT", "second_covered_IT"), np.ones_like(parent))
    both = SoFar(
        **given,
        **arrays,
        first_IT=parent,
        second_IT=version,
        finite=True,
    )
    plan = Probation(0, (0,) * MAX_LOOKS).plan
    found = judge_probation(both, None, resolution_ms=HOUR_MS, margin=0.1, plan=plan, look=0)
    assert (found.decision, found.reason) == ("goes", "loss:all 0.2 against 0.1")


def test_intervals_that_hold_too_little_in_one_segment_are_enough() -> None:
    """Of 24 hours the parent's hold 19; those of the version every second, in s2 alone."""
    parent, version = losses()
    covered = np.where(np.arange(24) % 5, 1.0, 0.0) * np.ones_like(parent)
    narrow = covered.copy()
    narrow[2 * ITEMS : 3 * ITEMS] = np.arange(24) % 2
    found = verdict_on(parent, version, second_covered_IT=narrow)
    assert found.decision == "goes"
    # From .7917 to .5 are .0083 and .3 off .8.
    assert found.report["coverage_distance:s2"] == pytest.approx(0.291667, rel=1e-5)
    # Of the shop it is .0646, which one segment of four makes.
    assert found.reason == "coverage_distance:s2 0.2917 against 0.05"
    # As far off on the other side is as good.
    mirrored = verdict_on(parent, version, first_covered_IT=narrow, second_covered_IT=covered)
    assert mirrored.decision == "stays"


def test_coverage_that_a_single_item_loses_may_be_chance() -> None:
    parent, version = losses()
    covered = np.where(np.arange(24) % 5, 1.0, 0.0) * np.ones_like(parent)
    one = covered.copy()
    one[2 * ITEMS] = 0.0
    found = verdict_on(parent, version, second_covered_IT=one)
    assert float(found.report["coverage_distance:s2"]) > 0.05
    assert found.decision == "stays"


# Watched in the shadow ----------------------------------------------------------------------------


def watch(past: PastInMemory, *version: float) -> Watch:
    promotion = ModelEvent(kind="promoted", version="v1", at_ms=START_MS + 200 * HOUR_MS)
    probation = probation_of(promotion, num_buckets=24, grid=past.grid)
    shadow = Shadow(past, past.item_ids, oracle(5.0, 10.0, 15.0), oracle(*version))
    return Watch(probation, shadow, margin=0.1)


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BatchForecaster", SteadyForecaster)


def selling(known: int, units: float = 10.0) -> PastInMemory:
    past = PastInMemory(400)
    past.units_IN[:] = units
    past.known_buckets = known
    return past


def at(hour: int) -> int:
    return START_MS + hour * HOUR_MS


def test_nothing_is_said_before_the_first_stretch_is_final(steady: None) -> None:
    past = selling(223)
    found = watch(past, 5.0, 30.0, 35.0)
    assert found.proceed(at(223)) is None
    past.known_buckets = 224
    verdict = found.proceed(at(224))
    assert verdict is not None and verdict.decision == "goes"
    assert verdict.report["days"] == 1.0


def test_one_that_is_as_good_stays_after_the_first_stretch(steady: None) -> None:
    verdict = watch(selling(224), 5.0, 10.0, 15.0).proceed(at(224))
    assert verdict is not None and verdict.decision == "stays"


def test_expiry_is_judged_on_what_is_final_by_then(steady: None) -> None:
    for version, decision in (((5.0, 30.0, 35.0), "goes"), ((5.0, 10.0, 15.0), "stays")):
        past = selling(205)
        past.final_ms = lambda: at(205) + 7  # type: ignore[method-assign]
        found = watch(past, *version)
        assert found.proceed(at(200) + 48 * HOUR_MS - 1) is None
        verdict = found.proceed(at(200) + 48 * HOUR_MS)
        assert verdict is not None and verdict.decision == decision
        assert verdict.report["days"] == pytest.approx(5 / 24)


def test_where_nothing_became_final_the_version_stays_and_that_is_said(steady: None) -> None:
    found = watch(selling(200), 5.0, 30.0, 35.0)
    verdict = found.proceed(at(248))
    assert verdict == ProbationVerdict(
        "stays", "not all of its buckets became final in twice their time", {}
    )


def test_what_is_looked_at_late_is_judged_look_by_look(steady: None) -> None:
    """A version that fails at its first look has failed, whatever came later."""
    past = selling(400)
    past.units_IN[:, 224:] = 30.0
    verdict = watch(past, 5.0, 30.0, 35.0).proceed(at(400))
    assert verdict is not None and verdict.decision == "goes"
    assert verdict.report["days"] == 1.0
    assert not math.isnan(float(verdict.report["gain"]))
