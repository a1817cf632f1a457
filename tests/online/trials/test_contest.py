"""Which windows a trial sees at each look, and that it sees the same ones whenever it is asked."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from freshet.online.judge.gate import Trial
from freshet.online.judge.standing import Standing
from freshet.online.trials import contest as contest_module
from freshet.online.trials import evaluation
from freshet.online.trials.contest import Contest, Terms, chosen_items, measured
from freshet.online.trials.evaluation import served_by
from freshet.online.trials.shadow import Shadow, days_before
from freshet.online.weights.assignment import Assignment
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import HOUR_MS
from tests.online.learn.learning import ITEMS, START_MS, PastInMemory, pool_at
from tests.online.learn.oracles import SteadyForecaster, loss_of, oracle

CHAMPION, CHALLENGER = (2.0, 6.0, 11.0), (1.0, 7.0, 20.0)
# Half a day is held out; what is judged begins with it.
HOLDOUT = 240


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BatchForecaster", SteadyForecaster)


def hour(number: int) -> int:
    return START_MS + number * HOUR_MS


def terms_of(past: PastInMemory, **over: Any) -> Terms:
    given: dict[str, Any] = {
        "request_id": "r",
        "parent": "base",
        "segments": (),
        "onset_ms": None,
        "start_ms": hour(HOLDOUT),
        "first_days": 1,
        "num_looks": 7,
        "error": 0.05,
        "item_ids": tuple(past.item_ids),
    } | over
    return Terms(**given)


def contest_of(past: PastInMemory, **over: Any) -> Contest:
    terms = terms_of(past, **over)
    shadow = Shadow(past, terms.item_ids, oracle(*CHAMPION), oracle(*CHALLENGER))
    return Contest(terms, shadow, margin=0.01)


def taken(contest: Contest, looks: int) -> Trial:
    """What the gate has after so many looks, whatever it says."""
    for _ in range(looks):
        contest._take()
    return contest._trial()


def losses(past: PastInMemory, hours: range, quantiles: tuple[float, ...]) -> np.ndarray:
    return np.array([[loss_of(row[hour], quantiles) for hour in hours] for row in past.units_IN])


@pytest.mark.parametrize(("looks", "end"), [(1, 264), (2, 288), (4, 336)])
def test_a_look_has_whole_days_from_the_hold_out_on(looks: int, end: int) -> None:
    past = PastInMemory(400)
    found = taken(contest_of(past), looks)
    hours = range(HOLDOUT, end)
    assert found.champion_IT == pytest.approx(losses(past, hours, CHAMPION), rel=1e-5)
    assert found.challenger_IT == pytest.approx(losses(past, hours, CHALLENGER), rel=1e-5)
    assert (found.resolution_ms, found.finite, found.unseen) == (HOUR_MS, True, 0.0)


@pytest.mark.parametrize(("known", "looks"), [(263, 0), (264, 1), (287, 1), (288, 2), (439, 7)])
def test_a_look_is_due_when_all_of_its_buckets_are_final(known: int, looks: int) -> None:
    past = PastInMemory(440)
    past.known_buckets = known
    contest = contest_of(past)
    count = 0
    while contest._due():
        contest._take()
        contest.verdict = None
        count += 1
    assert count == looks


def test_no_bucket_after_a_look_and_none_of_the_future_changes_it() -> None:
    past, poisoned = PastInMemory(400), PastInMemory(400)
    poisoned.units_IN[:, 288:] += 1_000.0
    one, other = (taken(contest_of(each), 2) for each in (past, poisoned))
    assert np.array_equal(one.champion_IT, other.champion_IT)
    assert one.before is not None and other.before is not None
    assert np.array_equal(one.before.champion_IK, other.before.champion_IK)
    assert np.array_equal(one.champion_covered_IT, other.champion_covered_IT)


def test_all_looks_at_once_end_as_one_after_the_other() -> None:
    past = PastInMemory(440)
    at_once = contest_of(past)
    at_once.proceed()
    by_day = contest_of(past)
    for known in range(250, 440, 5):
        past.known_buckets = known
        by_day.proceed()
    assert by_day.look == at_once.look
    assert by_day.verdict == at_once.verdict


def test_coverage_is_that_of_all_stretches_together() -> None:
    past = PastInMemory(400)
    found = taken(contest_of(past), 3)
    low, _, high = CHALLENGER
    units_IT = past.units_IN[:, HOLDOUT : HOLDOUT + 72]
    assert np.array_equal(found.challenger_covered_IT, (low <= units_IT) & (units_IT <= high))


def test_of_whom_another_version_serves_nothing_is_unseen() -> None:
    past = PastInMemory(400)
    served = served_by(Assignment("v1", "v2", ("s1", "s2")), "v2")
    items = chosen_items(past, ("s2",), 0, served)
    assert items == tuple(name for row, name in enumerate(past.item_ids) if row % 4 in (1, 2))
    shadow = Shadow(past, items[:3], oracle(*CHAMPION), oracle(*CHALLENGER), served=served)
    shadow.extend(hour(240), hour(264), maximum=12)
    assert shadow.so_far().unseen == 0.5, "three of the six that it serves"


def test_days_before_are_whole_ones_that_have_a_context_without_that_of_the_onset() -> None:
    past = PastInMemory(400)
    spans = days_before(past, hour(HOLDOUT), None)
    assert spans == [(hour(start), hour(start + 24)) for start in range(72, 240, 24)]
    # The context needs a day.
    young = days_before(past, hour(100), None)
    assert young == [(hour(start), hour(start + 24)) for start in (28, 52, 76)]
    apart = days_before(past, hour(HOLDOUT), hour(200))
    assert (hour(192), hour(216)) not in apart and len(apart) == 6
    # One that begins with the onset is whole.
    assert len(days_before(past, hour(HOLDOUT), hour(192))) == 7
    past.first_ms = lambda: None  # type: ignore[method-assign]
    assert days_before(past, hour(HOLDOUT), None) == []


def test_what_both_lose_on_days_before_is_kept_by_item_and_stretch() -> None:
    past = PastInMemory(400)
    before = taken(contest_of(past, onset_ms=hour(168)), 1).before
    assert before is not None
    assert before.stretch_K.tolist() == [0, 0, 0, 0, 1, 1, 1]
    by_hand = losses(past, range(72, 240), CHALLENGER).reshape(ITEMS, 7, 24).sum(2)
    assert before.challenger_IK == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize(
    ("named", "tested"),
    [((), set()), (("s1",), {"s1"}), (("s2", "all"), {"s0", "s1", "s2", "s3"})],
)
def test_the_affected_segments_are_those_named_and_all_is_every_one(
    named: tuple[str, ...], tested: set[str]
) -> None:
    assert taken(contest_of(PastInMemory(400), segments=named), 1).affected == tested


def test_a_challenger_whose_forecasts_are_not_finite_is_seen() -> None:
    past = PastInMemory(400)
    terms = terms_of(past)
    shadow = Shadow(past, terms.item_ids, oracle(*CHAMPION), oracle(1.0, math.nan, 20.0))
    verdict = Contest(terms, shadow, margin=0.01).proceed()
    assert verdict is not None and verdict.decision == "reject"
    assert verdict.conditions[0].name == "finite" and not verdict.conditions[0].ok


class Crowd(PastInMemory):
    """More items than a trial takes; each sells its own number, of ten segments."""

    def __init__(self) -> None:
        super().__init__(270)
        self.units_IN = np.repeat(np.arange(700.0)[:, None], 270, axis=1)

    def segments(self) -> list[str]:
        return [f"s{row // 70}" for row in range(700)]

    @property
    def item_ids(self) -> list[str]:
        return [f"item{row}" for row in range(700)]


def test_of_many_items_those_of_the_named_segments_come_first() -> None:
    crowd = Crowd()
    chosen = chosen_items(crowd, ("s3", "s7"), seed=0)
    rows = [int(name.removeprefix("item")) for name in chosen]
    assert len(rows) == 512 and rows == sorted(rows)
    named = [row for row in rows if row // 70 in (3, 7)]
    assert len(named) == 140, "all of them"
    # Of more than fit three quarters, so that the others are seen, too.
    every = chosen_items(crowd, tuple(f"s{number}" for number in range(9)), seed=0)
    others = [name for name in every if int(name.removeprefix("item")) >= 630]
    assert len(every) == 512 - 128 + len(others) and len(others) == 70
    assert chosen_items(crowd, ("s3",), seed=0) != chosen_items(crowd, ("s3",), seed=1)


def test_a_sample_is_tried_under_its_own_segments_and_says_what_it_left_out() -> None:
    crowd = Crowd()
    chosen = chosen_items(crowd, ("s3",), seed=0)
    found = taken(contest_of(crowd, item_ids=chosen), 1)
    rows = np.array([int(name.removeprefix("item")) for name in chosen])
    assert found.segments == [f"s{row // 70}" for row in rows]
    by_hand = [loss_of(float(row), CHAMPION) for row in rows]
    assert found.champion_IT[:, 0] == pytest.approx(by_hand, rel=1e-5)
    assert found.unseen == pytest.approx(188 / 700)
    # Seven days of 146 items are windows enough to see how much days differ.
    assert found.before is not None
    assert np.isfinite(found.before.champion_IK).all(1).sum() == 128


def test_the_items_of_a_trial_are_found_wherever_their_rows_are() -> None:
    class Moved(PastInMemory):
        @property
        def item_ids(self) -> list[str]:
            return super().item_ids[::-1]

    past, moved = PastInMemory(400), Moved(400)
    moved.units_IN = past.units_IN[::-1]
    names = ("item2", "item9")
    one, other = (taken(contest_of(each, item_ids=names), 1) for each in (past, moved))
    assert np.array_equal(one.champion_IT, other.champion_IT[::-1])
    with pytest.raises(InvalidInputError, match="no held-out windows"):
        taken(contest_of(past, item_ids=("gone",)), 1)


def test_what_is_measured_once_is_what_both_lose_on_the_anchors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    past = PastInMemory(126)
    champion, challenger = oracle(*CHAMPION), oracle(*CHALLENGER)

    def times(networks: list[object], pool: object) -> list[float]:
        assert networks == [champion, challenger]
        return [3.0, 4.5]

    monkeypatch.setattr(contest_module, "forecast_ms", times)
    anchors = pool_at(past, range(30, 40, 3), end=60)
    pool = pool_at(past, range(100, 101), end=126)
    base = oracle(4.0, 8.0, 12.0)
    found = measured(champion, challenger, base=base, anchors=anchors, pool=pool)
    before, after, shipped = (
        sum(losses(past, range(hour, hour + 16), quantiles).sum() for hour in (30, 33, 36, 39))
        for quantiles in (CHAMPION, CHALLENGER, (4.0, 8.0, 12.0))
    )
    assert found.anchor_loss_to_base == pytest.approx(after / shipped - 1.0, rel=1e-5)
    assert found.anchor_loss == pytest.approx(after / before - 1.0, rel=1e-5)
    assert (found.latency_ratio, found.finite) == (1.5, True)
    nothing = measured(champion, challenger, base=base, anchors=None, pool=pool)
    assert nothing.anchor_loss == 0.0
    # A number that no forecast used is seen all the same.
    challenger.spare = torch.nn.Parameter(torch.tensor([1.0, math.inf]))
    assert not measured(champion, challenger, base=base, anchors=None, pool=pool).finite


def test_terms_are_read_back_as_they_were_written() -> None:
    terms = terms_of(PastInMemory(400), onset_ms=7, standing=Standing(anchor_loss=0.5))
    assert msgspec.json.decode(msgspec.json.encode(terms), type=Terms) == terms
    assert terms.plan.shares == pytest.approx([day / 7 for day in range(1, 8)])
    assert terms.expires_ms == hour(HOLDOUT + 14 * 24)


def test_a_hold_out_of_more_than_a_day_is_the_first_look_made_up_to_whole_days() -> None:
    past = PastInMemory(400)
    terms = terms_of(past, first_days=2, num_looks=3)
    assert terms.plan.shares == pytest.approx([0.5, 0.75, 1.0])
    contest = contest_of(past, first_days=2, num_looks=3)
    assert taken(contest, 1).champion_IT.shape == (ITEMS, 48)
    assert taken(contest, 1).champion_IT.shape == (ITEMS, 72)
