"""What a worker serves by maps of the owner: which steps, at which levels, by which decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from freshet.online.adjust.calibrated import HOLDS_BUCKETS, Calibrated
from freshet.online.adjust.decision import Decisions, encoded
from freshet.online.adjust.record import hashed, with_maps
from freshet.stream.codec import encode
from freshet.stream.schemas import (
    WIRE_LEVELS,
    AdjustmentDecision,
    Adjustments,
    CalibrationDecision,
    QuantileMap,
)
from freshet.stream.units import DAY_MS, HOUR_MS

WIDER = [0.005, 0.02, 0.05, 0.2, 0.5, 0.8, 0.95, 0.98, 0.995]
LATER = [0.02, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 0.97, 0.995]


def one(segment: str, levels: Sequence[float], **told: Any) -> QuantileMap:
    every = {"first_step": 1, "last_step": None, "from_units": 0.0, "below_units": None}
    return QuantileMap(segment=segment, levels=list(levels), certainty=4.0, **(every | told))


def made(as_of_ms: int, *maps: QuantileMap, width: int = HOUR_MS) -> CalibrationDecision:
    levels = list(WIRE_LEVELS)
    return CalibrationDecision(
        resolution_ms=width, as_of_ms=as_of_ms, quantile_levels=levels, maps=list(maps)
    )


def calibrated_of(*records: CalibrationDecision | AdjustmentDecision) -> Calibrated:
    decisions = Decisions(lambda: 10**12)
    for record in records:
        key, value = encoded(record)
        decisions.take(key.encode(), value)
    return Calibrated(decisions, HOUR_MS, lambda ids: [item_id[0] for item_id in ids])


def test_the_newest_before_a_cutoff_holds_until_nobody_has_decided_for_days() -> None:
    maps, none = one("all", WIDER), made(9 * HOUR_MS)
    served = calibrated_of(made(5 * HOUR_MS, maps), none, made(7 * HOUR_MS, width=DAY_MS))
    names = []
    for hour in (5, 6, 9, 10):
        served.begin(hour * HOUR_MS)
        names.append(served.name)
    name = encoded(made(5 * HOUR_MS, maps))[0]
    assert names == ["", name, name, ""] and name.startswith("calibration:")
    old = calibrated_of(made(5 * HOUR_MS, maps))
    old.begin((5 + HOLDS_BUCKETS) * HOUR_MS)
    assert old.name == name
    old.begin((6 + HOLDS_BUCKETS) * HOUR_MS)
    assert old.name == ""


def test_a_decision_on_levels_is_none_on_segments_and_no_other_key_will_do() -> None:
    segments = AdjustmentDecision(resolution_ms=HOUR_MS, as_of_ms=7, weights_version="v")
    levels = made(7, one("all", WIDER))
    decisions = Decisions()
    for record in (segments, levels):
        key, value = encoded(record)
        decisions.take(key.encode(), value)
        decisions.take(key.removeprefix("calibration:").encode() + b"x", encode(record))
    found, maps = decisions.newest(HOUR_MS), decisions.newest_maps(HOUR_MS)
    assert found is not None and found.record == segments
    assert maps is not None and maps.record == levels
    assert decisions.maps(maps.sha256) == levels.maps
    assert decisions.maps(found.sha256) == decisions.maps("calibration:unknown") == []
    bare = maps.sha256.removeprefix("calibration:").encode()
    only = Decisions()
    only.take(bare, encode(levels))
    assert only.newest_maps(HOUR_MS) is None


def test_a_segments_own_map_counts_for_more_than_the_shops_in_the_cells_that_it_names() -> None:
    maps = [
        one("b", LATER, first_step=2, last_step=3),
        one("all", WIDER, from_units=4.0, below_units=16.0),
        one("c", [], last_step=2, from_units=4.0, below_units=16.0),
    ]
    served = calibrated_of(made(0, *maps))
    served.begin(1)
    quantiles = np.zeros((4, 4, 9))
    quantiles[..., 6] = [[1, 4, 15.9, 16], [4, 4, 4, 4], [5, 5, 5, 5], [1, 1, 1, 1]]
    places = served.places(["a1", "b1", "c1", "b2"], quantiles, WIRE_LEVELS)
    assert places is not None
    assert places.tolist() == [[0, 2, 2, 0], [2, 1, 1, 2], [0, 0, 2, 2], [0, 1, 1, 0]]
    assert served.places(["a1"], np.zeros((1, 4, 9)), WIRE_LEVELS) is None


def test_only_steps_with_a_map_are_moved_and_others_stay_to_the_last_bit() -> None:
    served = calibrated_of(made(0, one("all", WIDER), one("a", LATER)))
    served.begin(1)
    quantiles = np.cumsum(np.random.default_rng(1).random((2, 3, 9)), -1)
    places = np.array([[0, 1, 0], [2, 0, 1]])
    found = served.moved(quantiles, WIRE_LEVELS, places)
    assert (found[places == 0] == quantiles[places == 0]).all()
    # The .9 quantile is the network's own at .95, the .75 one a third of the way from .75 to .9.
    assert found[0, 1, 6] == quantiles[0, 1, 7]
    third = quantiles[1, 2, 5] + (quantiles[1, 2, 6] - quantiles[1, 2, 5]) / 3
    assert found[1, 2, 5] == pytest.approx(third)
    assert found[1, 0, 2] == pytest.approx(np.interp(0.2, WIRE_LEVELS, quantiles[1, 0]))


def test_a_record_names_the_map_of_each_step_and_ids_without_any_are_what_they_always_were() -> (
    None
):
    found = with_maps({1: Adjustments(sums_from="f")}, np.array([[0, 0], [0, 3]]), "calibration:d")
    moved = Adjustments(sums_from="f", calibration_id="calibration:d", calibrated=[0, 3])
    assert found == {1: moved}
    assert hashed(moved)["calibrated"] == [0, 3]
    assert "calibrated" not in hashed(Adjustments(sums_from="f"))
    assert with_maps({}, None, "") == {}
