"""The loop while quantiles are served at other levels: what goes out, and how it is scored."""

from __future__ import annotations

from typing import Any

import pytest

from freshet.online.adjust.decision import Decisions, encoded
from freshet.stream.config import Settings
from freshet.stream.schemas import WIRE_LEVELS, CalibrationDecision, Forecast, QuantileMap
from freshet.stream.units import HOUR_MS
from tests.online.worker.test_loop_adjust import decision as adjustment
from tests.online.worker.test_loop_adjust import recovered, scored, shadow_of
from tests.online.worker.turns import CUTOFF_MS, Turns, owned_of, reader_of

WIDER = [0.01, 0.03, 0.05, 0.2, 0.5, 0.8, 0.95, 0.97, 0.99]
FIRST_TWO = QuantileMap(
    segment="all",
    first_step=1,
    last_step=2,
    from_units=16.0,
    below_units=None,
    levels=WIDER,
    certainty=4.0,
)
DECISION = CalibrationDecision(
    resolution_ms=HOUR_MS,
    as_of_ms=CUTOFF_MS - HOUR_MS,
    quantile_levels=list(WIRE_LEVELS),
    maps=[FIRST_TWO],
)
NAME = encoded(DECISION)[0]


def turns_of(monkeypatch: pytest.MonkeyPatch, *made: Any) -> Turns:
    decisions = Decisions()
    for one in made:
        key, value = encoded(one)
        decisions.take(key.encode(), value)
    return Turns(monkeypatch, owned_of(reader_of(), decisions=decisions))


def plain(monkeypatch: pytest.MonkeyPatch) -> list[Forecast]:
    turns = turns_of(monkeypatch)
    turns.turn()
    return turns.forecasts()


def test_steps_with_a_map_go_out_at_its_levels_and_say_so_and_others_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch, DECISION)
    turns.turn()
    for served, own in zip(turns.forecasts(), plain(monkeypatch), strict=True):
        steps = len(own.quantiles)
        assert served.adjustments.calibration_id == NAME
        assert served.adjustments.calibrated == [1, 1] + [0] * (steps - 2)
        assert served.forecast_id != own.forecast_id
        assert served.context_sha256 == own.context_sha256
        # The .9 quantile that is served is the network's own at .95.
        assert [step[6] for step in served.quantiles[:2]] == [own.quantiles[0][7]] * 2
        assert [step[5] for step in served.quantiles[:2]] == [
            pytest.approx(100.0 + 10.0 * 0.8416, rel=1e-3)
        ] * 2
        assert served.quantiles[2:] == own.quantiles[2:]
        # The first sum is the first step, or nearly: sums are drawn from what is served.
        assert served.cumulative is not None and own.cumulative is not None
        widths = [one.quantiles[0][6] - one.quantiles[0][2] for one in (served, own)]
        sums = [
            one.cumulative.quantiles[0][6] - one.cumulative.quantiles[0][2]
            for one in (served, own)
            if one.cumulative is not None
        ]
        assert sums[0] / sums[1] == pytest.approx(widths[0] / widths[1], rel=0.1)


def test_scores_are_of_what_was_served_and_say_where_the_actual_fell_in_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch, DECISION)
    turns.turn()
    found = scored(turns)
    network = [step.network for one in found for step in one.steps]
    assert found and None not in network
    for one in found:
        # 5 units, or none, of about 100.
        (step,) = one.steps
        assert step.network is not None and step.network.median == step.median == 100.0
        assert step.high == pytest.approx(100.0 + 10.0 * 1.2816, rel=0.01)
        assert step.network.residual < step.residual < 0, "the network was surer"


def test_a_next_worker_knows_by_which_maps_what_waits_was_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = turns_of(monkeypatch, DECISION)
    turns.turn()
    for one in (recovered(monkeypatch, turns).main, turns.main):
        (due,) = one.pending.due(CUTOFF_MS)
        assert due.calibration_id == NAME
        assert due.maps_I is not None and due.maps_I.tolist() == [1, 1]


def test_without_adjustments_is_without_maps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = turns_of(monkeypatch, DECISION, adjustment())
    turns.turn()
    assert all(one.adjustments.calibrated for one in turns.forecasts())
    assert [one.adjustments.calibrated for one in shadow_of(turns)] == [[], []]
    for one in scored(turns):
        assert [step.network for step in one.unadjusted] == [None]
        assert one.steps[0].network is not None


@pytest.mark.parametrize(
    "made",
    [
        [],
        [
            DECISION,
            CalibrationDecision(
                resolution_ms=HOUR_MS, as_of_ms=CUTOFF_MS - 1, quantile_levels=list(WIRE_LEVELS)
            ),
        ],
    ],
)
def test_without_a_map_all_is_as_it_was_to_the_last_bit(
    monkeypatch: pytest.MonkeyPatch, made: list[CalibrationDecision]
) -> None:
    turns = turns_of(monkeypatch, *made)
    turns.turn()
    assert turns.forecasts() == plain(monkeypatch)


def test_levels_can_be_left_alone_and_are_of_the_main_resolution() -> None:
    def calibrating(settings: Settings) -> list[int]:
        made = {one.resolution_ms: reader_of() for one in settings.served}
        owned = owned_of(made, settings=settings)
        return [one.resolution_ms for one in owned.served if one.calibrated is not None]

    assert calibrating(Settings()) == [HOUR_MS]
    assert calibrating(Settings.model_validate({"worker": {"calibrate": False}})) == []
