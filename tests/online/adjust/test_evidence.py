"""Evidence: even PITs leave all as it is, uneven ones move it once days unseen say that it pays."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from freshet.online.adjust import evidence as module
from freshet.online.adjust.evidence import (
    DECAY,
    EVEN_B,
    OF_SHOP,
    OWN,
    SHOP,
    Evidence,
    saving,
    shares,
)
from freshet.online.adjust.levels import BINS, WIRE_W
from freshet.stream.arrays import Floats

ITEMS, HOURS = 40, 24


def day_of(rng: np.random.Generator, wide: float = 1.0, shared: float = 0.1) -> Floats:
    """PITs of a day: items, and all of them by the hour, go their ways together.

    Of forecasts that are `wide` times as wide as they should be.
    """
    of_hour = rng.normal(size=(1, HOURS)) * np.sqrt(shared)
    own = rng.normal(size=(ITEMS, HOURS)) * np.sqrt(1.0 - shared)
    return np.asarray(ndtr((of_hour + own) / wide))


def pass_days(evidence: Evidence, pits: list[Floats], segment: int = 1) -> Evidence:
    for pit in pits:
        pit_R = pit.ravel()
        cell = (np.full(len(pit_R), segment), np.zeros_like(pit_R, int), np.zeros_like(pit_R, int))
        evidence.take(cell, pit_R, evidence.maps())
        evidence.end_day()
    return evidence


def test_calm_pits_leave_the_identity_in_hardly_any_shop() -> None:
    left = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        evidence, ever = Evidence.none(2, 1, 1), False
        for _ in range(42):
            pass_days(evidence, [day_of(rng)])
            ever |= bool(evidence.serving.any())
        left += ever
    assert left <= 2


@pytest.mark.parametrize("wide", [0.7, 1.5])
def test_forecasts_of_a_wrong_width_are_served_by_a_map_that_mends_it(wide: float) -> None:
    rng = np.random.default_rng(3)
    evidence = pass_days(Evidence.none(2, 1, 1), [day_of(rng, wide) for _ in range(42)])
    assert evidence.serving.all()
    low, high = evidence.maps()[1, 0, 0][[2, 6]]
    fresh = np.concatenate([day_of(rng, wide).ravel() for _ in range(42)])
    raw = ((fresh > 0.1) & (fresh < 0.9)).mean()
    assert abs(raw - 0.8) > 0.08
    assert ((fresh > low) & (fresh < high)).mean() == pytest.approx(0.8, abs=0.03)


def test_what_was_mended_goes_back_by_itself_once_forecasts_are_right() -> None:
    rng = np.random.default_rng(4)
    evidence = pass_days(Evidence.none(2, 1, 1), [day_of(rng, 1.5) for _ in range(21)])
    assert evidence.serving.all()
    pass_days(evidence, [day_of(rng) for _ in range(28)])
    assert not evidence.serving.any()


def test_nine_days_are_the_least_that_moves_anything() -> None:
    rng = np.random.default_rng(5)
    evidence = pass_days(Evidence.none(2, 1, 1), [day_of(rng, 2.5) for _ in range(9)])
    # The first day's map was the identity: it gained nothing.
    assert evidence.certainty()[OWN].min() > 2.0 and not evidence.serving.any()
    pass_days(evidence, [day_of(rng, 2.5) for _ in range(6)])
    assert evidence.serving.all()


def test_to_stay_takes_less_than_to_enter() -> None:
    evidence = Evidence.none(4, 1, 1)
    evidence.serving[2:] = True
    # Gains of one deviation each, so that these are the certainties, less what a day takes.
    evidence.square[:] = 1.0
    evidence.gain[OWN, :, 0, 0] = [2.9, 3.1, 1.1, 0.9]
    evidence.end_day()
    assert evidence.certainty()[OWN, :, 0, 0].tolist() == pytest.approx([2.9, 3.1, 1.1, 0.9])
    assert evidence.serving[:, 0, 0].tolist() == [False, True, True, False]


def test_a_segment_that_is_right_is_not_served_as_a_shop_that_is_wrong() -> None:
    rng = np.random.default_rng(6)
    evidence = Evidence.none(5, 1, 1)
    for _ in range(35):
        maps = evidence.maps()
        for segment in (1, 2, 3, 4):
            pit_R = day_of(rng, 1.0 if segment == 4 else 1.8).ravel()
            zeros = np.zeros(len(pit_R), int)
            evidence.take((zeros + segment, zeros, zeros), pit_R, maps)
        evidence.end_day()
    assert evidence.serving[:4].all() and not evidence.serving[4].any()
    assert not evidence.as_shop()[4].any(), "its own days object"


def test_of_a_segment_of_which_little_is_known_the_shops_map_serves() -> None:
    rng = np.random.default_rng(7)
    evidence = pass_days(Evidence.none(3, 1, 1), [day_of(rng, 1.6) for _ in range(21)])
    assert evidence.serving[:, 0, 0].tolist() == [True, True, False]
    assert evidence.as_shop()[:, 0, 0].tolist() == [False, False, True]
    assert (evidence.maps()[2] == evidence.maps()[SHOP]).all()


def test_sums_of_a_day_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DAY_COUNTS", 2.0)
    evidence = Evidence.none(2, 1, 1)
    zeros = np.zeros(4, int)
    maps = np.tile(np.full(9, 0.5), (2, 1, 1, 1))
    evidence.take((zeros + 1, zeros, zeros), np.array([0.0, 0.3, 0.3, 1.0]), maps)
    # Four PITs are worth two: half each.
    before = saving(np.array([0.0, 0.3, 0.3, 1.0]), np.full((4, 9), 0.5)).sum()
    evidence.end_day()
    assert evidence.counts[1, 0, 0].tolist() == [0.5, 0, 0, 0, 1.0, 0, 0, 0, 0, 0.5]
    assert evidence.counts[SHOP].tolist() == evidence.counts[1].tolist()
    assert evidence.gain[:, 1, 0, 0].tolist() == pytest.approx([before] * 2)
    assert evidence.square[OF_SHOP, 1, 0, 0] == pytest.approx(before**2)
    assert evidence.certainty()[OWN, 1, 0, 0] == pytest.approx(np.sign(before))
    evidence.end_day()
    assert evidence.counts[1, 0, 0, 0] == pytest.approx(0.5 * DECAY)
    assert pytest.approx(0.5) == DECAY**28
    assert evidence.certainty()[OWN, 1, 0, 0] == pytest.approx(np.sign(before))


def test_shares_are_drawn_to_the_shops_and_those_to_even_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "DOUBT", 10.0)
    counts = np.zeros((3, 1, 1, BINS))
    counts[SHOP, ..., 0], counts[1, ..., 9] = 30.0, 10.0
    shop_B = (np.eye(BINS)[0] * 30 + EVEN_B * 10) / 40
    found = shares(counts)[:, 0, 0]
    assert found[0].tolist() == pytest.approx(shop_B.tolist())
    assert found[1].tolist() == pytest.approx(((np.eye(BINS)[9] + shop_B) / 2).tolist())
    assert found[2].tolist() == pytest.approx(shop_B.tolist())


def test_the_best_map_of_many_pits_is_that_of_their_own_quantiles() -> None:
    pit = np.random.default_rng(8).beta(2.0, 1.0, 40_000)
    best = np.quantile(pit, WIRE_W)
    assert saving(pit, np.tile(best, (len(pit), 1))).mean() > 0.0
    for other in (best * 0.97, best**0.9, WIRE_W):
        gain = saving(pit, np.tile(other, (len(pit), 1))).mean()
        assert gain < saving(pit, np.tile(best, (len(pit), 1))).mean()


def test_under_other_weights_what_is_known_counts_for_less() -> None:
    rng = np.random.default_rng(9)
    evidence = pass_days(Evidence.none(3, 1, 1), [day_of(rng, 1.6) for _ in range(14)])
    certain, counts = evidence.certainty(), evidence.counts.copy()
    evidence.loosen(1, 0.25)
    assert evidence.counts[1].tolist() == (counts[1] / 4).tolist()
    assert evidence.counts[SHOP].tolist() == counts[SHOP].tolist()
    # Sums and squares are of a quarter as many days: half as many deviations.
    half = certain[OWN, 1, 0, 0] / 2
    assert evidence.certainty()[OWN, 1, 0, 0] == pytest.approx(half)
